"""Lists a folder on another machine with its find."""

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
"""In front of an entry that the machine may not read."""
_FIELDS = "%y %s %T@ %m %p\\0%l\\0"
_PRINT = f"-printf '{_FIELDS}'"
_PRINT_LOCKED = f"-printf '{_LOCKED_MARK.decode()}{_FIELDS}'"
_LOCKED = f"-type d \\( ! -readable -o ! -executable \\) {_PRINT_LOCKED} -prune -o -type f ! -readable {_PRINT_LOCKED}"


def list_tree(machine: Machine, folder: str, paths: Sequence[str] | None, excluded: Excluded) -> Generator[Entry]:
    """Yield the entries of a folder on the machine, or of some paths in it; folders come before what is in them.

    Leaves out what is excluded as far as find can: the caller checks again. Lists nothing inside a locked folder.
    Raises ActionError, ConnectionError, TimeoutError. To end find early, close the generator.
    """
    roots = " ".join(shlex.quote(f"./{path}") for path in paths) if paths is not None else ". -mindepth 1"
    command = f"find {roots} {_prune(excluded)} {_LOCKED} -o {_PRINT}"
    with WorkspaceReader(machine, folder, command) as reading:
        rest, count = b"", 0
        while piece := reading.some():
            *fields, rest = (rest + piece).split(b"\0")
            if len(fields) % 2:
                rest = fields.pop() + b"\0" + rest
            if len(rest) > limits.LISTED_FILE.most:
                words = f"a path in it has over {limits.LISTED_FILE.most} bytes"
                words = f"invalid output of find on {machine.host}: {words}"
                raise ActionError(words, "remove the folders that are so deep")
            count += len(fields) // 2
            if count > limits.TREE_ENTRIES.most:
                raise ActionError(limits.TREE_ENTRIES.exceeded(f"the listing of {folder} on {machine.host}"))
            for fact, link in zip(fields[::2], fields[1::2], strict=True):
                yield _entry(machine.host, fact, link)
        # A file that vanishes meanwhile is not a failure.
        reading.check("find", "list the workspace", ("No such file or directory",))


def null_ended(path: str) -> bytes:
    """Return a name as programs read it with `--null` or `-0`, relative to the folder."""
    return b"./" + path.encode("utf-8", "surrogateescape") + b"\0"


def is_same(remote: Entry | None, local: Entry | None) -> bool:
    """Say whether two entries of one path, remote and local, are equal by kind, mode, size and time.

    Ignores the time of a folder, which any change in it sets.
    """
    if local is None or remote is None or stat.S_IFMT(remote.mode) != stat.S_IFMT(local.mode):
        return False
    if stat.S_ISLNK(remote.mode):
        return remote.link == local.link
    # Fetching makes a file readable by its owner, whatever its mode was.
    if (remote.mode ^ local.mode) & 0o377:
        return False
    return stat.S_ISDIR(remote.mode) or (remote.size, remote.mtime_ns) == (local.size, local.mtime_ns)


def _entry(host: str, fields: bytes, link: bytes) -> Entry:
    is_locked = fields.startswith(_LOCKED_MARK)
    fields = fields.removeprefix(_LOCKED_MARK)
    try:
        kind, size, mtime, mode, path = fields.split(b" ", 4)
        seconds, _, fraction = mtime.partition(b".")
        # Negative before 1970.
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
        raise ActionError(f"invalid output of find on {host}: {fields[: limits.TREE_PATH.most]!r}") from None


def _prune(excluded: Excluded) -> str:
    """Return the excluded names as tests of find, so that it skips `node_modules`; empty if a `!` lets some in."""
    if any(pattern.startswith("!") for pattern in excluded.patterns):
        return ""
    plain = [pattern for pattern in excluded.patterns if re.fullmatch(r"[^/#\\\[\]]+/?", pattern.strip())]
    tests = [
        f"{'-type d ' if pattern.endswith('/') else ''}-name {shlex.quote(pattern.rstrip('/'))}" for pattern in plain
    ]
    return f"\\( {' -o '.join(tests)} \\) -prune -o" if tests else ""
