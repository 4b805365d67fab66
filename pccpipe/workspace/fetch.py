"""Brings files home from a machine that is not trusted: it says what it has, what may come is asked for by name, and
what comes is taken only if it was asked for.

Nothing but find and GNU tar are needed there; its tar's stream is read here by a reader that knows plain files alone.
Whatever a hostile machine sends, the limits hold while it is received.
"""

from __future__ import annotations

import contextlib
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from msgspec import Struct

from pccpipe.errors import ActionError
from pccpipe.machine.base import Machine, Process
from pccpipe.secrets.mask import Masker
from pccpipe.workspace import tar
from pccpipe.workspace.entry import Entry, EntryMemory
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.intake import Counted, Intake, KnownTree, Limits
from pccpipe.workspace.listing import is_same, list_tree, null_ended
from pccpipe.workspace.reading import WorkspaceReader
from pccpipe.workspace.tar import BLOCK, padded

T = TypeVar("T")
Unlock: TypeAlias = Callable[[Sequence[str]], object]
"""Makes what is locked in a workspace readable, as far as it can."""


def fetch_tree(
    machine: Machine,
    folder: str,
    known: KnownTree,
    target: Path,
    excluded: Excluded,
    limits: Limits,
    unlocks: Sequence[Unlock] = (),
) -> Counted:
    """Make a new `target` as the folder is there, but for what is excluded or may not come.

    What nobody can unlock stays here as it was known, so that it does not look deleted.

    Args:
        known: a tree here that is much the same already; what is as it was (by size, time and mode) is not sent.
        unlocks: what is tried, in turn, if something can't be read there.

    Raises ActionError with the other side's words or the limit that was reached, ConnectionError, TimeoutError.
    """
    here = known.entries

    def looked_at() -> tuple[_Looked, list[str]]:
        intake = Intake(target, limits)
        same: list[str] = []
        locked, names = list[Entry](), EntryMemory()
        listing = list_tree(machine, folder, None, excluded)
        with contextlib.closing(listing):
            for entry in listing:
                if excluded.name(entry.path, is_folder=stat.S_ISDIR(entry.mode)):
                    continue
                if entry.is_locked:
                    names.add(entry)
                    locked.append(entry)
                    continue
                same_as_here = is_same(entry, here.get(entry.path))
                may_come = intake.admit(entry, own_link=same_as_here, known=entry.path in here)
                if may_come and same_as_here and stat.S_ISREG(entry.mode):
                    same.append(entry.path)
        return _Looked(intake, locked), same

    looked, same = _unlocked(looked_at, unlocks)
    for path in (*same, *_kept(looked, here)):
        looked.intake.reuse(path, known)
    _receive(machine, folder, looked.intake)
    return looked.intake.finish()


def fetch_paths(
    machine: Machine,
    folder: str,
    paths: Sequence[str],
    target: Path,
    limits: Limits,
    masker: Masker,
    unlocks: Sequence[Unlock] = (),
) -> Counted:
    """Make `target`, anew, of these files and folders. Arguments as for `fetch_tree`, which raises the same."""

    def looked_at() -> tuple[_Looked, None]:
        intake = Intake(target, limits, masker)
        for path in paths:
            intake.make_parents(path)
        locked, names = list[Entry](), EntryMemory()
        with contextlib.closing(list_tree(machine, folder, paths, Excluded.only(()))) as listing:
            for entry in listing:
                if entry.is_locked:
                    names.add(entry)
                    locked.append(entry)
                else:
                    intake.admit(entry)
        return _Looked(intake, locked), None

    looked, _ = _unlocked(looked_at, unlocks)
    _kept(looked, {})
    _receive(machine, folder, looked.intake)
    return looked.intake.finish()


def unlock_own(machine: Machine, folder: str, paths: Sequence[str]) -> None:
    """Let the owner read these files and folders there, and all that is in them: an `Unlock` for what is his."""
    # What is another user's stays locked.
    with WorkspaceReader(machine, folder, "sh -c 'xargs -0 chmod -R u+rX -- 2>/dev/null; :'") as reading:
        _ask(reading.process, paths)
        reading.check("chmod", "unlock files")


class _Looked(Struct):
    """A tree there that was looked at: what comes of it, and what can't be read."""

    intake: Intake
    locked: list[Entry]


def _unlocked(look: Callable[[], tuple[_Looked, T]], unlocks: Sequence[Unlock]) -> tuple[_Looked, T]:
    """Look, and again after each of the `unlocks`, until nothing is locked."""
    looked, more = look()
    for unlock in unlocks:
        if not looked.locked:
            break
        unlock([entry.path for entry in looked.locked])
        looked, more = look()
    return looked, more


def _kept(looked: _Looked, here: Mapping[str, Entry]) -> list[str]:
    """Name what can't be read; give the files here that stand for it."""
    locked = {entry.path: stat.S_IFMT(entry.mode) for entry in looked.locked}
    if not locked:
        return []
    kept: list[str] = []
    for path, entry in here.items():
        inside_of = next((above for above in _up(path) if above in locked), None)
        if inside_of is None or stat.S_IFMT(here[inside_of].mode if inside_of in here else 0) != locked[inside_of]:
            continue
        if looked.intake.admit(entry, own_link=True, known=True) and stat.S_ISREG(entry.mode):
            kept.append(path)
    for entry in looked.locked:
        looked.intake.refuse(entry, f"cannot be read there: another user's, with mode {stat.S_IMODE(entry.mode):03o}")
    return kept


def _up(path: str) -> Iterator[str]:
    """The path, and each folder above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _receive(machine: Machine, folder: str, intake: Intake) -> None:
    """Ask for the files that are wanted, and write them as they come."""
    wanted = intake.wanted
    if not wanted:
        return
    command = "tar -cf - --format=gnu --hard-dereference --no-recursion --null --no-unquote -T -"
    with WorkspaceReader(machine, folder, command) as reading:
        sender = threading.Thread(target=_ask, args=(reading.process, wanted), name="pccpipe-fetch", daemon=True)
        sender.start()
        for name, size in _members(reading, machine.host):
            left = padded(size) - size
            if not intake.write(name, size, reading.pieces(size)):
                raise ActionError(f"{machine.host} sent a file that was not asked for: {name!r}")
            if len(reading.exactly(left)) < left:
                raise _torn(machine.host)
        reading.check("tar", "pack the workspace", _HARMLESS)
        sender.join()


AT_ONCE = 1000
"""Names that are sent at once."""
_HARMLESS = (
    "No such file or directory",
    "file changed as we read it",
    "File removed before we read it",
    "file shrank by",
    "Exiting with failure status",
)
"""What tar says of files that somebody works on meanwhile."""


def _ask(process: Process, wanted: Sequence[str]) -> None:
    try:
        for start in range(0, len(wanted), AT_ONCE):
            process.sendall(b"".join(map(null_ended, wanted[start : start + AT_ONCE])))
        process.shutdown_write()
    except OSError:
        return  # the process has ended: reading from it tells why


def _members(reading: WorkspaceReader, host: str) -> Iterator[tuple[str, int]]:
    """The plain files of a tar stream, each with its size; the caller reads its content before the next."""
    long_name = b""
    while True:
        head = reading.exactly(BLOCK)
        if len(head) < BLOCK:
            raise _torn(host)
        if not any(head):
            return
        try:
            size, kind = tar.size_of(head), head[156:157]
        except tar.NotTar:
            raise ActionError(f"what came from {host} is no tar archive") from None
        if kind == b"L":
            if size > tar.LONGEST:
                raise ActionError(f"what came from {host} is no tar archive that was asked for: a name of {size} bytes")
            long_name = reading.exactly(padded(size))[:size].rstrip(b"\0")
            continue
        if kind not in {b"0", b"\0"}:
            raise ActionError(f"{host} sent what is not a plain file, which was not asked for")
        name = long_name or tar.name_of(head)
        long_name = b""
        yield name.removeprefix(b"./").decode("utf-8", "surrogateescape"), size


def _torn(host: str) -> ConnectionError:
    return ConnectionResetError(f"what came from {host} ended in the middle")
