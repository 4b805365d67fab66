"""Lists the forms in which a secret's value commonly appears, as the bytes that are certain to appear."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Characters; a shorter value is masked only as it is: its other forms are in many words."""
SHORTEST_LINE = 8
"""The same for one line of a secret of several lines."""
_DIGITS_BETWEEN = (b" ", b":", b"-", b",", b", ", b" 0x", b",0x", b", 0x", b"\\x", b"\\\\x")
"""Separators between the digits of two bytes: in `od`, `xxd`, fingerprints, and arrays of programs."""
_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_BASE32_HEX = b"0123456789ABCDEFGHIJKLMNOPQRSTUV"


def forms_of(value: str) -> Iterator[bytes]:
    """Yield a value as it is, and in the usual encodings.

    These are base64 and base64url at all three alignments, base32 at all five, hex with and without separators, UTF-16
    and UTF-32, URL-encoded, JSON-escaped (once and twice), shell-quoted, as Python and HTML write it, and with each
    character escaped. Also yields each line of a value of several lines.
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
    yield from _base32(raw)
    yield from _wide(value)
    yield from _separated(raw)
    yield from _all_escaped(value, raw)


def _wide(value: str) -> Iterator[bytes]:
    """Yield UTF-16 and UTF-32 in both byte orders, and PowerShell's base64."""
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        yield value.encode(encoding, "surrogatepass")
    yield from _base64(value.encode("utf-16-le", "surrogatepass"))


def _separated(raw: bytes) -> Iterator[bytes]:
    """Yield hex with separators between bytes, or between pairs of bytes at both alignments, as `xxd` writes it."""
    digits = raw.hex().encode()
    pairs = [digits[start : start + 2] for start in range(0, len(digits), 2)]
    fours = [[digits[start : start + 4] for start in range(first, len(digits), 4)] for first in (0, 2)]
    made = [between.join(pairs) for between in _DIGITS_BETWEEN]
    made += [b" ".join(fours[0]), b" ".join([digits[:2], *fours[1]])]
    for text in made:
        yield text
        yield text.upper().replace(b"X", b"x")


def _all_escaped(value: str, raw: bytes) -> Iterator[bytes]:
    """Yield the value with each character, or byte, as an escape."""
    units = value.encode("utf-16-be", "surrogatepass").hex()
    codes = [ord(character) for character in value]
    escapes: list[tuple[str, list[str], str]] = [
        ("\\u", [units[start : start + 4] for start in range(0, len(units), 4)], ""),
        ("\\u{", [f"{code:x}" for code in codes], "}"),
        ("%", [f"{byte:02x}" for byte in raw], ""),
        ("%25", [f"{byte:02x}" for byte in raw], ""),
        ("\\", [f"{byte:03o}" for byte in raw], ""),
        ("&#", [f"{code}" for code in codes], ";"),
        ("&#x", [f"{code:x}" for code in codes], ";"),
    ]
    for before, digits, after in escapes:
        for each in (digits, [digit.upper() for digit in digits]):
            text = "".join(f"{before}{digit}{after}" for digit in each)
            yield text.encode()
            yield text.replace("\\", "\\\\").encode()


def _base32(raw: bytes) -> Iterator[bytes]:
    """Yield the part that is in the base32 of any text that contains `raw`, for each alignment and both alphabets."""
    for before in range(5):
        encoded = base64.b32encode(b"\0" * before + raw)
        sure = encoded[(before * 8 + 4) // 5 : (before + len(raw)) * 8 // 5]
        for text in (sure, sure.translate(bytes.maketrans(_BASE32, _BASE32_HEX))):
            if len(text) >= SHORTEST:
                yield text
                yield text.lower()


def _escaped(value: str) -> Iterator[str]:
    for text in (_json(value), _json(value, ascii_only=False)):
        yield text
        yield text.replace("/", "\\/")
        # An agent's events contain the JSON of its commands.
        yield _json(text)
    quoted = shlex.quote(value)
    inner = quoted[1:-1] if quoted.startswith("'") else quoted
    yield inner
    yield _json(inner)
    yield value.replace("'", "'\\''")
    yield re.sub(r"([^A-Za-z0-9_@%+=:,./-])", r"\\\1", value)  # like bash's printf %q
    yield repr(value)[1:-1]
    marked = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    yield marked
    yield marked.replace('"', "&quot;").replace("'", "&#x27;")


def _json(text: str, *, ascii_only: bool = True) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield the part that is in the base64 of any text that contains `raw`, for each alignment."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # The first and last characters share bits with the text around `raw`.
        start = (before * 8 + 5) // 6
        end = (before + len(raw)) * 8 // 6
        sure = encoded[start:end]
        if len(sure) >= SHORTEST:
            yield sure
            yield sure.replace(b"+", b"-").replace(b"/", b"_")
