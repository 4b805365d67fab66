"""The forms in which a secret's value commonly travels, as bytes that are sure to stand there."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Characters; a shorter value is masked as it is only: its other forms would be found in many a word."""
SHORTEST_LINE = 8
"""The same for one line of a secret of several lines."""
LONGEST_WRAPPED = 512
"""Bytes; base64 of a longer value is found on one line only, for its forms would be a thousand."""
_WRAPS = (76, 64)
"""Characters of a line of base64, as `base64` and MIME wrap it, and as `openssl` does."""


def forms_of(value: str) -> Iterator[bytes]:
    """As it is, base64 and base64url at all three alignments, hex, URL-encoded, JSON-escaped (twice too), shell-quoted,
    as Python and HTML write it. A value of several lines also line by line.
    """
    if len(value) < SHORTEST:
        yield value.encode("utf-8", "surrogatepass")
        return
    yield from _encoded(value)
    lines = value.splitlines()
    if len(lines) > 1:
        for line in lines:
            if len(line.strip()) >= SHORTEST_LINE:
                yield from _encoded(line.strip())


def wrapped_forms_of(value: str) -> Iterator[bytes]:
    """Base64 of it with the ends of lines in it, wherever the first falls; as they are, and as JSON has them."""
    raw = value.encode("utf-8", "surrogatepass")
    if not SHORTEST <= len(raw) <= LONGEST_WRAPPED:
        return
    for text in _base64(raw):
        # In two lines it is the same for both.
        for width in _WRAPS if len(text) > min(_WRAPS) else _WRAPS[:1]:
            for first in range(1, min(width + 1, len(text))):
                lines = [text[:first], *(text[start : start + width] for start in range(first, len(text), width))]
                yield b"\n".join(lines)
                yield b"\\n".join(lines)


def _encoded(value: str) -> Iterator[bytes]:
    raw = value.encode("utf-8", "surrogatepass")
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for text in _escaped(value):
        yield text.encode("utf-8", "surrogatepass")
    for encoded in (quote(raw, safe=""), quote(raw), quote(raw, safe="!'()*~"), quote_plus(raw)):
        yield encoded.encode()
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded).encode()
    yield from _base64(raw)


def _escaped(value: str) -> Iterator[str]:
    for text in (_json(value), _json(value, ascii_only=False)):
        yield text
        yield text.replace("/", "\\/")
        # An agent's events have its commands' JSON in them.
        yield _json(text)
    quoted = shlex.quote(value)
    inner = quoted[1:-1] if quoted.startswith("'") else quoted
    yield inner
    yield _json(inner)
    yield value.replace("'", "'\\''")
    yield re.sub(r"([^A-Za-z0-9_@%+=:,./-])", r"\\\1", value)  # as bash's printf %q
    yield repr(value)[1:-1]
    marked = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    yield marked
    yield marked.replace('"', "&quot;").replace("'", "&#x27;")


def _json(text: str, *, ascii_only: bool = True) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _base64(raw: bytes) -> Iterator[bytes]:
    """What is sure to stand in the base64 of any text that has `raw` in it, for each alignment."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # The first characters share bits with what comes before, the last ones with what comes after.
        start = (before * 8 + 5) // 6
        end = (before + len(raw)) * 8 // 6
        sure = encoded[start:end]
        if len(sure) >= SHORTEST:
            yield sure
            yield sure.replace(b"+", b"-").replace(b"/", b"_")
