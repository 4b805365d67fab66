"""Reads the numbers and names in the answers of a machine.

A machine on which a stranger's code ran may answer anything. Each number here has bounds, so no arithmetic, date or
memory here depends on it. Every answer without sense is the same error: `Nonsense`.
"""

from __future__ import annotations

import re

from pccpipe import limits
from pccpipe.errors import Nonsense
from pccpipe.values import Json

EXIT_CODES = 255
PORTS = 65535
IDS = 2**32 - 1
"""The highest uid or gid."""

_PLAIN = re.compile(r"[0-9]{1,16}", re.ASCII)


def number(host: str, what: str, said: object, most: int = limits.MACHINE_NUMBER.most) -> int:
    """Read a whole number from 0 to `most`, from digits or from JSON. Raises Nonsense."""
    if isinstance(said, bytes):
        said = said.decode("ascii", "replace")
    if isinstance(said, str) and _PLAIN.fullmatch(said):
        said = int(said)
    if isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= most:
        return said
    raise Nonsense(host, what, said)


def number_or_none(said: object, most: int = limits.MACHINE_NUMBER.most) -> int | None:
    """Read a number that the machine need not know; return None for anything else."""
    try:
        return number("", "", said, most)
    except Nonsense:
        return None


def df_column(head: str, line: str, column: str) -> int | None:
    """Read a number of `df` by its column (`available` in kB, `ifree`); return None if the column is missing.

    `df -i` of a Mac has other columns than GNU's, and names of file systems with spaces.
    """
    names, fields = head.lower().split(), line.split()
    first = next((index for index, field in enumerate(fields) if index and field.isdigit()), None)
    if column not in names or first is None or (column == "available" and "1024-blocks" not in names):
        return None
    # A file system that does not limit files (btrfs, some network ones) says 0 of 0.
    if column == "ifree" and names[1:2] == ["inodes"] and fields[first] == "0":
        return None
    return number_or_none(next(iter(fields[first + names.index(column) - 1 :]), None))


def name(host: str, what: str, said: object, form: re.Pattern[str]) -> str:
    """Read a word of this form. Raises Nonsense."""
    if isinstance(said, str) and form.fullmatch(said):
        return said
    raise Nonsense(host, what, said)


def text(host: str, what: str, said: Json, longest: int = 4096) -> str:
    """Read a string of an answer in JSON. Raises Nonsense."""
    if isinstance(said, str) and len(said) <= longest:
        return said
    raise Nonsense(host, what, said)
