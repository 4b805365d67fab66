"""Writes figures for people: bytes, seconds."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Write a duration: `0.3s`, `12s`, `1m05s`, `2h03m`."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def limit(seconds: float) -> str:
    """Write a limit as in a pipeline: `15m`, `90s`, `1h30m`."""
    left, text = seconds, ""
    for unit, length in (("h", 3600), ("m", 60)):
        if left >= length:
            text += f"{left // length:.0f}{unit}"
            left %= length
    return f"{text}{left:g}s" if left or not text else text


def size(count: float) -> str:
    """Write a number of bytes: `512 B`, `34.6 kB`, `4.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"


def memory(count: int) -> str:
    """Write a limit of memory as in a pipeline: `4g`, `512m`."""
    for unit, factor in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
        if count % factor == 0 and count:
            return f"{count // factor}{unit}"
    return f"{count} bytes"


def money(usd: float) -> str:
    """Say an amount of money; one below a dollar with more digits."""
    return f"{usd:,.2f} USD" if usd >= 1 or round(usd * 1e6) % 10_000 == 0 else f"{usd:,.4f} USD"
