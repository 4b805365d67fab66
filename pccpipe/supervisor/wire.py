"""Packs the messages between pccpipe and its supervisor: a few fields of bytes behind a line with their lengths."""

from __future__ import annotations

LONGEST = 64 << 20
"""The most bytes of a message."""
_LONGEST_LINE = 1 << 20


def pack(*fields: bytes) -> bytes:
    """Make a message."""
    return b" ".join(b"%d" % len(field) for field in fields) + b"\n" + b"".join(fields)


def unpack(inbox: bytearray) -> list[bytes] | None:
    """Take the first message out of the received bytes, if it is complete. Raises ValueError."""
    line = inbox.find(b"\n", 0, _LONGEST_LINE)
    if line < 0:
        if len(inbox) >= _LONGEST_LINE:
            raise ValueError("a message has no beginning")
        return None
    words = bytes(inbox[:line]).split()
    if not all(word.isdigit() and len(word) < 10 for word in words):
        raise ValueError(inbox[:line].decode("utf-8", "replace"))
    sizes = [int(word) for word in words]
    end = line + 1 + sum(sizes)
    if end > LONGEST:
        raise ValueError("a message is too long")
    if len(inbox) < end:
        return None
    fields, at = [], line + 1
    for size in sizes:
        fields.append(bytes(inbox[at : at + size]))
        at += size
    del inbox[:end]
    return fields
