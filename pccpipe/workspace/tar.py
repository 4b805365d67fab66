"""The tar format, as far as workspaces need it: GNU's, with times to the nanosecond as pax has them.

Python's tarfile takes 60 us to write a header, and ten times what is needed to read one; and what it reads, it trusts.
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
"""Bytes of a name in front of a header that are read."""
_NAME = 100
"""Bytes that a name or a link's text may have in a header."""


class NotTar(ValueError):
    """What was read is no header."""


def head(entry: Entry) -> bytes:
    """What stands in an archive before an entry's content: it belongs to nobody, and to root where root unpacks it."""
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
    """The bytes that so many of content take."""
    return size + -size % BLOCK


def filler(size: int) -> bytes:
    """What stands after so many bytes of content."""
    return bytes(padded(size) - size)


def name_of(header: bytes) -> bytes:
    return header[:_NAME].rstrip(b"\0")


def size_of(header: bytes) -> int:
    """The size that a header says, once its checksum holds. Raises NotTar."""
    try:
        told = int(header[148:156].rstrip(b"\0 ") or b"0", 8)
        if header[124] & 0x80:
            size = int.from_bytes(header[125:136], "big")
        else:
            size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        raise NotTar from None
    if told != sum(header) - sum(header[148:156]) + 8 * 0x20 or size < 0:
        raise NotTar
    return size


def _filled(data: bytes) -> bytes:
    return data + filler(len(data))


@functools.cache
def _time_header(size: int) -> bytes:
    return _header(b"./@PaxHeader", 0o644, size, 0, b"x", b"")


def _header(name: bytes, mode: int, size: int, mtime: int, kind: bytes, link: bytes) -> bytes:
    # A size that 11 octal digits can't tell is in binary.
    told = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    made = b"%b%07o\x000000000\x000000000\x00%b%011o\x00        %b%bustar  \x00" % (
        name.ljust(_NAME, b"\0"),
        mode,
        told,
        mtime,
        kind,
        link.ljust(_NAME, b"\0"),
    )
    return (made[:148] + b"%06o\0 " % sum(made) + made[156:]).ljust(BLOCK, b"\0")
