"""The plain values that files, events and results are made of, and the one that several parts begin with."""

from __future__ import annotations

from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

ENDPOINT = "https://api.openai.com/v1"
"""The base URL of the model's API where nobody names another."""
