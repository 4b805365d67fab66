"""How many tokens the answers of a model's API say that they took: OpenAI's Responses and Chat Completions."""

from __future__ import annotations

import json

from msgspec import Struct

from pccpipe.values import Json

LIMIT = 32 << 20
"""Bytes of an answer, or of one event of a stream, that are looked at; what is larger counts by its size."""
BYTES_A_TOKEN = 4
"""For answers that do not say what they took: cut streams, mostly. A guess that is rather too high than too low."""

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Tokens(Struct, frozen=True):
    """What one call took, or several."""

    input: int = 0
    cached_input: int = 0
    """Of `input`."""
    output: int = 0
    estimated: int = 0
    """By size, for calls whose answers did not say; in none of the others."""

    @property
    def total(self) -> int:
        return self.input + self.output + self.estimated

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.cached_input + other.cached_input,
            self.output + other.output,
            self.estimated + other.estimated,
        )


class Counter:
    """Reads an answer as it passes.

    Args:
        is_stream: whether it is a stream of server-sent events, rather than one JSON document.
    """

    def __init__(self, *, is_stream: bool) -> None:
        self._is_stream = is_stream
        self._held = bytearray()
        self._too_large = False
        self._found: Tokens | None = None
        self._size = 0

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        self._size += len(data)
        self._held += data
        if self._is_stream:
            *lines, rest = self._held.split(b"\n")
            self._held = bytearray(rest)
            for line in lines:
                if self._too_large:
                    self._too_large = False  # the end of a line whose beginning is gone
                elif b'"usage"' in line:
                    self._take(line.removeprefix(b"data:"))
        if len(self._held) > LIMIT:
            self._held.clear()
            self._too_large = True

    def tokens(self, request_size: int) -> Tokens:
        """What the call took, now that the answer has ended, or is cut."""
        if not self._is_stream and not self._too_large:
            self._take(self._held)
        return self._found or Tokens(estimated=(request_size + self._size) // BYTES_A_TOKEN)

    def _take(self, text: bytes | bytearray) -> None:
        try:
            data: Json = json.loads(text)
        except (ValueError, RecursionError):
            return
        match data:
            case {"type": str(kind), "response": {"usage": dict(usage)}} if kind in _ENDS:
                self._found = _tokens(usage)
            case {"type": str(kind)} if kind.startswith("response."):
                pass
            case {"usage": dict(usage)}:
                self._found = _tokens(usage)
            case _:
                pass


def _tokens(usage: dict[str, Json]) -> Tokens:
    into = _count(usage, "input_tokens", "prompt_tokens")
    details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    return Tokens(into, min(cached, into), _count(usage, "output_tokens", "completion_tokens"))


def _count(usage: dict[str, Json], *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return 0
