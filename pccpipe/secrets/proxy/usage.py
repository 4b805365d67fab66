"""Reads from the answers of a model's API how many tokens they took: OpenAI's, Anthropic's and Gemini's."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import LimitExceeded
from pccpipe.json_reader import NotJson, read_json
from pccpipe.values import Json

BYTES_A_TOKEN = 4
"""For answers that do not state their tokens, such as cut streams. The estimate is rather too high than too low."""

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Tokens(Struct, frozen=True):
    """The tokens that one or more calls took."""

    input: int = 0
    cached_input: int = 0
    """A part of `input`: read from the provider's cache."""
    output: int = 0
    estimated: int = 0
    """Estimated by size, for calls whose answers did not state them; not part of the others."""
    cache_write_input: int = 0
    """A part of `input`: written to the provider's cache."""

    @property
    def total(self) -> int:
        return self.input + self.output + self.estimated

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.cached_input + other.cached_input,
            self.output + other.output,
            self.estimated + other.estimated,
            self.cache_write_input + other.cache_write_input,
        )


class TokenCounter:
    """Reads an answer as it passes.

    Args:
        is_stream: whether it is a stream of server-sent events, rather than one JSON document.
    """

    def __init__(self, *, is_stream: bool) -> None:
        self._is_stream = is_stream
        self._held = bytearray()
        self._too_large = False
        self._found = Tokens()
        self._open_since: int | None = 0
        """The offset from which on the last count lacks the answer; None if it has all of it."""
        self._is_error = False
        self._size = 0
        self._at = 0
        """The offset of the end of the line that is being read."""

    def feed(self, data: bytes) -> None:
        """Add the next piece of the body."""
        self._size += len(data)
        self._held += data
        if self._is_stream:
            # Searches only the new bytes: otherwise each piece would search an endless line again.
            end = self._held.rfind(b"\n", len(self._held) - len(data))
            lines = self._held[:end].split(b"\n") if end >= 0 else []
            del self._held[: end + 1]
            for line in lines:
                self._at += len(line) + 1
                if self._too_large:
                    self._too_large = False  # the end of a line whose beginning is gone
                elif b'"usage' in line or b'"error"' in line:
                    self._count_usage(line.removeprefix(b"data:"))
        if len(self._held) > limits.ANSWER.most:
            self._at += len(self._held)
            self._held.clear()
            self._too_large = True

    def tokens(self, likely_input: int) -> Tokens:
        """Return what the call took, after the end of the answer or a cut; `likely_input` is its request's."""
        if not self._is_stream and not self._too_large:
            self._count_usage(self._held)
        if self._is_error and not self._found.total:
            return Tokens()  # an API that is overloaded says so in a stream
        if not self._found.input and not self._found.output:
            return Tokens(estimated=likely_input + self._size // BYTES_A_TOKEN)
        missing = 0 if self._open_since is None else (self._size - self._open_since) // BYTES_A_TOKEN
        unstated = 0 if self._found.input else likely_input
        return replace(self._found, estimated=unstated + max(0, missing - self._found.output))

    def _count_usage(self, text: bytes | bytearray) -> None:
        try:
            data = read_json(bytes(text), "the answer")
        except (NotJson, LimitExceeded):
            return
        if isinstance(data, list) and data:
            data = data[-1]  # Gemini streams a JSON list if it is not asked for events
        match data:
            case {"type": str(kind), "response": {"usage": dict(usage)}} if kind in _ENDS:
                self._find(_tokens(usage))
            case {"type": str(kind)} if kind.startswith("response."):
                pass
            case {"type": "message_start", "message": {"usage": dict(usage)}}:
                self._found = _tokens(usage)
                self._open_since = self._at
            case {"type": "message_delta", "usage": dict(usage)}:
                # The counts are cumulative; only the first event may have the input.
                before, now = self._found, _tokens(usage)
                if now.output:
                    self._find(replace(now if now.input >= before.input else before, output=now.output))
            case {"usageMetadata": dict(usage)}:
                before, now = self._found, _gemini_tokens(usage)
                if now.output or not self._is_stream:
                    self._find(now)
                else:
                    self._found = replace(now, output=before.output)
            case {"usage": dict(usage)}:
                self._find(_tokens(usage))
            case {"type": "error"}:
                self._is_error = True
            case _:
                pass

    def _find(self, tokens: Tokens) -> None:
        self._found = tokens
        self._open_since = None


def _tokens(usage: dict[str, Json]) -> Tokens:
    into = _count(usage, "input_tokens", "prompt_tokens")
    # Anthropic does not count cached tokens as input.
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    into += read + written
    details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else read
    cached = min(cached, into)
    out = _count(usage, "output_tokens", "completion_tokens")
    return Tokens(into, cached, out, cache_write_input=min(written, into - cached))


def _gemini_tokens(usage: dict[str, Json]) -> Tokens:
    into = _count(usage, "promptTokenCount") + _count(usage, "toolUsePromptTokenCount")
    out = _count(usage, "candidatesTokenCount") + _count(usage, "thoughtsTokenCount")
    return Tokens(into, min(_count(usage, "cachedContentTokenCount"), into), out)


def _count(usage: dict[str, Json], *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limits.CALL_TOKENS.most:
            return value
    return 0
