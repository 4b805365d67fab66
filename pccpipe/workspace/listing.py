"""What is in a folder on another machine, as its find tells it."""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Generator, Sequence

from pccpipe import limits
from pccpipe.errors import ActionError, Nonsense
from pccpipe.machine.answers import number
from pccpipe.machine.base import Machine
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.reading import WorkspaceReader

_KINDS = {b"f": stat.S_IFREG, b"d": stat.S_IFDIR, b"l": stat.S_IFLNK}
_LOCKED_MARK = b"!"
"""In front of what may not be read there."""
_FIELDS = "%y %s %T@ %m %p\\0%l\\0"
_TELL = f"-printf '{_FIELDS}'"
_TELL_LOCKED = f"-printf '{_LOCKED_MARK.decode()}{_FIELDS}'"
_LOCKED = f"-type d \\( ! -readable -o ! -executable \\) {_TELL_LOCKED} -prune -o -type f ! -readable {_TELL_LOCKED}"


def list_tree(machine: Machine, folder: str, paths: Sequence[str] | None, excluded: Excluded) -> Generator[Entry]:
    """What is in `folder` there, or in these paths of it, folders before what is in them.

    What is excluded is left out as far as find can do that: the caller looks once more. Of a locked folder, nothing
    that is in it is listed. Raises ActionError, ConnectionError, TimeoutError; a caller that has had enough closes the
    generator, which ends the find there.
    """
    roots = " ".join(shlex.quote(f"./{path}") for path in paths) if paths is not None else ". -mindepth 1"
    command = f"find {roots} {_prune(excluded)} {_LOCKED} -o {_TELL}"
    with WorkspaceReader(machine, folder, command) as reading:
        rest, count = b"", 0
        while piece := reading.some():
            *fields, rest = (rest + piece).split(b"\0")
            if len(fields) % 2:
                rest = fields.pop() + b"\0" + rest
            if len(rest) > limits.LISTED_FILE.most:
                words = f"a path in it has over {limits.LISTED_FILE.most} bytes"
                words = f"what find on {machine.host} says is no listing: {words}"
                raise ActionError(words, "remove what lies so deep there")
            count += len(fields) // 2
            if count > limits.TREE_ENTRIES.most:
                raise ActionError(limits.TREE_ENTRIES.exceeded(f"what find on {machine.host} lists in {folder}"))
            for told, link in zip(fields[::2], fields[1::2], strict=True):
                yield _entry(machine.host, told, link)
        # What vanished meanwhile is no failure.
        reading.check("find", "look through the workspace", ("No such file or directory",))


def null_ended(path: str) -> bytes:
    """A name of a folder as the programs there take it with `--null` or `-0`, in that folder."""
    return b"./" + path.encode("utf-8", "surrogateescape") + b"\0"


def is_same(there: Entry | None, here: Entry | None) -> bool:
    """Whether two entries of one path, on a machine and here, are taken for the same: by kind, mode, size and time.

    A folder's time is that of any change in it, and counts for nothing.
    """
    if here is None or there is None or stat.S_IFMT(there.mode) != stat.S_IFMT(here.mode):
        return False
    if stat.S_ISLNK(there.mode):
        return there.link == here.link
    # What came home can be read by its owner, whatever it was there.
    if (there.mode ^ here.mode) & 0o377:
        return False
    return stat.S_ISDIR(there.mode) or (there.size, there.mtime_ns) == (here.size, here.mtime_ns)


def _entry(host: str, told: bytes, link: bytes) -> Entry:
    is_locked = told.startswith(_LOCKED_MARK)
    told = told.removeprefix(_LOCKED_MARK)
    try:
        kind, size, mtime, mode, path = told.split(b" ", 4)
        seconds, _, fraction = mtime.partition(b".")
        # Before 1970 it is negative.
        before = -1 if seconds.startswith(b"-") else 1
        return Entry(
            path.decode("utf-8", "surrogateescape").removeprefix("./").rstrip("/"),
            (_KINDS[kind] | int(mode, 8) & 0o7777) if kind in _KINDS else 0,
            number(host, "size of a file", size),
            before * number(host, "time of a file", seconds.removeprefix(b"-"), limits.FILE_TIME.most) * 1_000_000_000
            + number(host, "time of a file", fraction[:9].ljust(9, b"0")),
            link.decode("utf-8", "surrogateescape"),
            is_locked,
        )
    except Nonsense as error:
        raise ActionError(error.words) from error
    except ValueError:
        raise ActionError(f"what find on {host} says is no listing: {told[: limits.TREE_PATH.most]!r}") from None


def _prune(excluded: Excluded) -> str:
    """Excluded names for find, so that it does not even look into `node_modules`; none if some are let in again."""
    if any(pattern.startswith("!") for pattern in excluded.patterns):
        return ""
    plain = [pattern for pattern in excluded.patterns if re.fullmatch(r"[^/#\\\[\]]+/?", pattern.strip())]
    tests = [
        f"{'-type d ' if pattern.endswith('/') else ''}-name {shlex.quote(pattern.rstrip('/'))}" for pattern in plain
    ]
    return f"\\( {' -o '.join(tests)} \\) -prune -o" if tests else ""
