"""Reads and writes the part of the tar format that workspaces need: GNU's, with the nanosecond times of pax.

Python's tarfile needs 60 us to write a header, ten times the necessary time to read one, and trusts its input.
The fields: https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

from __future__ import annotations

import functools
import stat

from pccpipe import limits
from pccpipe.workspace.entry import Entry

BLOCK = 512
END = bytes(2 * BLOCK)
LONGEST = 2 * limits.TREE_PATH.most
"""The most bytes of a long name in front of a header."""
_NAME = 100
"""The most bytes of a name or a link's text in a header."""


class NotTar(ValueError):
    """The data is not a header."""


def head(entry: Entry) -> bytes:
    """Return the headers of an entry. They name no owner; where root unpacks them, root owns the files."""
    name = entry.path.encode("utf-8", "surrogateescape")
    link = entry.link.encode("utf-8", "surrogateescape")
    if stat.S_ISDIR(entry.mode):
        kind = b"5"
        name += b"/"
    else:
        kind = b"2" if stat.S_ISLNK(entry.mode) else b"0"
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    parts = []
    if fraction:
        record = b" mtime=%d.%09d\n" % (seconds, fraction)
        # Its length counts itself, and is 10 to 99.
        parts += [_time_header(len(record) + 2), _filled(b"%d" % (len(record) + 2) + record)]
    for long, letter in ((link, b"K"), (name, b"L")):
        if len(long) > _NAME:
            parts += [_header(b"././@LongLink", 0o644, len(long) + 1, 0, letter, b""), _filled(long + b"\0")]
    parts.append(_header(name[:_NAME], entry.mode & 0o7777, entry.size, max(0, seconds), kind, link[:_NAME]))
    return b"".join(parts)


def padded(size: int) -> int:
    """Return the bytes that `size` bytes of content take in an archive."""
    return size + -size % BLOCK


def filler(size: int) -> bytes:
    """Return the padding after `size` bytes of content."""
    return bytes(padded(size) - size)


def name_of(header: bytes) -> bytes:
    return header[:_NAME].rstrip(b"\0")


def size_of(header: bytes) -> int:
    """Return the size in a header, after a check of its checksum. Raises NotTar."""
    try:
        checksum = int(header[148:156].rstrip(b"\0 ") or b"0", 8)
        if header[124] & 0x80:
            size = int.from_bytes(header[125:136], "big")
        else:
            size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        raise NotTar from None
    if checksum != sum(header) - sum(header[148:156]) + 8 * 0x20 or size < 0:
        raise NotTar
    return size


def _filled(data: bytes) -> bytes:
    return data + filler(len(data))


@functools.cache
def _time_header(size: int) -> bytes:
    return _header(b"./@PaxHeader", 0o644, size, 0, b"x", b"")


def _header(name: bytes, mode: int, size: int, mtime: int, kind: bytes, link: bytes) -> bytes:
    # A size that does not fit 11 octal digits is binary.
    digits = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    made = b"%b%07o\x000000000\x000000000\x00%b%011o\x00        %b%bustar  \x00" % (
        name.ljust(_NAME, b"\0"),
        mode,
        digits,
        mtime,
        kind,
        link.ljust(_NAME, b"\0"),
    )
    return (made[:148] + b"%06o\0 " % sum(made) + made[156:]).ljust(BLOCK, b"\0")
