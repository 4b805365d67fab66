"""Holds the secrets of a run in one object, for all code that needs a value."""

from __future__ import annotations

from collections.abc import Mapping

from pccpipe.secrets.mask import Masker

SHORTEST_SEARCHED = 12
"""Characters; a shorter value would be found in many files that have nothing to do with it."""


class Secrets:
    """The values of a run's secrets by name, and the masker that knows them all. Its repr shows no value."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})
        self._searched = [
            (name, value.encode()) for name, value in self._values.items() if len(value) >= SHORTEST_SEARCHED
        ]
        self.masker = Masker(self._values.values())

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._values)})"

    def found_in(self, data: bytes) -> str | None:
        """Return the name of the first secret whose value appears in `data` as it is written; None if none does."""
        return next((name for name, value in self._searched if value in data), None)
