"""Estimate what calls of a model cost, by the built-in price file or the operator's own."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import ceil
from pathlib import Path
from typing import cast

from msgspec import Struct, field

from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.spec.load import load_source
from pccpipe.values import Json

BUILT_IN = Path(__file__).parent / "prices.yaml"
MICROS = 1_000_000
"""Millionths of a USD in a USD. Money is counted in them, as whole numbers."""
MOST_USD = 1e12
_VERSION = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})\Z", re.ASCII)
"""The date of a model's version, at the end of its name."""


def micros(usd: float) -> int:
    """Return an amount of USD in millionths; a forged record may have any number."""
    return round(min(max(0.0, usd), MOST_USD) * MICROS)


class Price(Struct, frozen=True):
    """A model's price in USD for a million tokens: in millionths of a USD for one."""

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None

    @property
    def dearest_input(self) -> float:
        """The price of a token of input, however the provider's cache counts it."""
        return max(self.input, self.cached_input or 0.0, self.cache_write or 0.0)

    def most(self, into: int, out: int) -> int:
        """Return the most that a call with this many tokens costs."""
        return ceil(into * self.dearest_input + out * self.output)

    def of(self, tokens: Tokens, likely_input: int) -> int:
        """Return what a call took; of its estimated tokens, at most `likely_input` count as input."""
        cached, written = tokens.cached_input, tokens.cache_write_input
        estimated = min(tokens.estimated, likely_input)
        return ceil(
            max(0, tokens.input - cached - written) * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + tokens.output * self.output
            + estimated * self.dearest_input
            + (tokens.estimated - estimated) * self.output
        )


class Prices(Struct, frozen=True):
    """Prices by model. They are estimates, of a date."""

    as_of: str = ""
    models: Mapping[str, Price] = field(default_factory=dict)

    def of(self, model: str) -> Price | None:
        """Return the price of the first name or pattern that fits; None for a model without one."""
        for name in dict.fromkeys((model, _VERSION.sub("", model))):
            for pattern, price in self.models.items():
                if fnmatchcase(name, pattern):
                    return price
        return None


def load_prices(path: Path | None = None) -> Prices:
    """Read a price file; without a path, the one that comes with pccpipe. Raises SpecError, UsageError."""
    return _read(path) if path else _built_in()


@functools.cache
def _built_in() -> Prices:
    return _read(BUILT_IN)


def _read(path: Path) -> Prices:
    data = cast("dict[str, Json]", load_source(path, "prices", lambda _: []).data)
    models = cast("dict[str, dict[str, float]]", data["models"])
    return Prices(str(data["as_of"]), {name: Price(**price) for name, price in models.items()})
