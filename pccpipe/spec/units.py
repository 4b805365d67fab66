"""Reads durations as seconds, and sizes as bytes."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
LONGEST = 100 * 365 * 86400.0
"""The most seconds; a longer duration means this one."""
LARGEST = 1 << 60
"""The most bytes or tokens; a larger number means this one."""
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


def seconds(text: str | float) -> float:
    """Read `15m`, `1h30m`, `500ms`, or a number of seconds. Raises ValueError."""
    if not isinstance(text, str):
        return float(min(text, LONGEST))
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"invalid duration {text!r}: write 90s, 15m or 1h30m")
    return min(LONGEST, sum(float(number) * _SECONDS[unit] for number, unit in parts))


def tokens(text: str | int) -> int:
    """Read `500k`, `2M`, or a number of tokens. Raises ValueError."""
    if not isinstance(text, str):
        return int(text)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kM]?)", text)
    if not match:
        raise ValueError(f"invalid number of tokens {text!r}: write 500k or 2M")
    return int(min(LARGEST, float(match[1]) * {"": 1, "k": 1000, "M": 1_000_000}[match[2]]))


def size(text: str | int) -> int:
    """Read `512m`, `4g`, or a number of bytes, in powers of 1024 as Docker. Raises ValueError."""
    if not isinstance(text, str):
        return min(text, LARGEST)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([bkmg]?)", text.lower())
    if not match:
        raise ValueError(f"invalid size {text!r}: write 512m or 4g")
    return int(min(LARGEST, float(match[1]) * _BYTES[match[2]]))
