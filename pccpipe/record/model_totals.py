"""Add up what all steps of a run took of models."""

from __future__ import annotations

from msgspec import Struct

from pccpipe.record.agent_events import ModelUsed


class ModelTotals(Struct):
    """The use of models by a whole run so far, by the proxy's account; see docs/run-record.md."""

    calls: int = 0
    refused: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    estimated_tokens: int = 0
    usd: float | None = 0.0
    """The price by estimate; None if a model without a price was called."""
    budget_tokens: int | None = None
    budget_usd: float | None = None

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.estimated_tokens

    def add(self, now: ModelUsed, before: ModelUsed | None) -> None:
        """Add a turn's use, of which `before` is counted already."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(now, name) - (getattr(before, name) if before else 0))
        if self.usd is not None and now.usd is not None:
            self.usd = round(self.usd + now.usd - ((before.usd or 0.0) if before else 0.0), 6)
        else:
            self.usd = None
        self.budget_tokens, self.budget_usd = now.run_budget_tokens, now.run_budget_usd


_COUNTS = (
    "calls",
    "refused",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "estimated_tokens",
)
