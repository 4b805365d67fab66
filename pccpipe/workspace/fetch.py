"""Fetches files from an untrusted machine: reads its listing, asks for files by name, and accepts only those.

The machine needs only find and GNU tar. The reader of its tar stream knows plain files alone. The limits hold while
data arrives, whatever a hostile machine sends.
"""

from __future__ import annotations

import contextlib
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct, field

from pccpipe.errors import ActionError
from pccpipe.machine.base import Machine, Process
from pccpipe.secrets.mask import Masker
from pccpipe.workspace import tar
from pccpipe.workspace.choice import Choice, Choosing
from pccpipe.workspace.entry import Entry, EntryMemory
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.intake import Counted, Intake, KnownTree, Limits
from pccpipe.workspace.listing import is_same, list_tree, null_ended
from pccpipe.workspace.reading import WorkspaceReader
from pccpipe.workspace.tar import BLOCK, padded

Unlock: TypeAlias = Callable[[Sequence[str]], object]
"""Makes locked files of a workspace readable, as far as possible."""


def fetch_tree(
    machine: Machine,
    folder: str,
    known: KnownTree,
    target: Path,
    excluded: Excluded,
    limits: Limits,
    unlocks: Sequence[Unlock] = (),
) -> Counted:
    """Make a new `target` like the folder on the machine, without what is excluded or not allowed.

    A file that nothing can unlock stays as `known` has it, so that it does not look deleted.

    Args:
        known: a local tree that is mostly the same; files of equal size, time and mode are not sent.
        unlocks: ways to unlock what the machine can't read, to try one after another.

    Raises ActionError with the machine's words or the limit that was reached, ConnectionError, TimeoutError.
    """

    def list_all() -> _Listed:
        return _Listed.read(machine, folder, None, excluded, Intake(target, limits), known.entries)

    listed = _unlocked(list_all, unlocks)
    for path in (*listed.same, *_kept(listed, known.entries)):
        listed.intake.reuse(path, known)
    _receive(machine, folder, listed.intake)
    return listed.intake.finish()


def fetch_paths(
    machine: Machine,
    folder: str,
    choice: Choice,
    roots: Sequence[str],
    target: Path,
    limits: Limits,
    masker: Masker,
    unlocks: Sequence[Unlock] = (),
) -> Counted:
    """Make a new `target` of the files and folders that `choice` wants. Arguments and errors as for `fetch_tree`.

    Args:
        roots: the files and folders to list; an empty name is the whole workspace.
    """

    def list_all() -> _Listed:
        intake = Intake(target, limits, masker)
        listing = None if "" in roots else roots
        return _Listed.read(machine, folder, listing, choice.excluded, intake, {}, Choosing(choice, intake))

    listed = _unlocked(list_all, unlocks)
    _kept(listed, {})
    _receive(machine, folder, listed.intake)
    return listed.intake.finish()


def unlock_own(machine: Machine, folder: str, paths: Sequence[str]) -> None:
    """Let the owner read these files and folders and all that is in them: an `Unlock` for his own ones."""
    # The files of other users stay locked.
    with WorkspaceReader(machine, folder, "sh -c 'xargs -0 chmod -R u+rX -- 2>/dev/null; :'") as reading:
        _ask(reading.process, paths)
        reading.check("chmod", "unlock files")


class _Listed(Struct):
    """A tree that was listed: what to fetch, the files equal to known ones, and what its machine can't read."""

    intake: Intake
    same: list[str] = field(default_factory=list)
    locked: list[Entry] = field(default_factory=list)

    @staticmethod
    def read(
        machine: Machine,
        folder: str,
        paths: Sequence[str] | None,
        excluded: Excluded,
        intake: Intake,
        known: Mapping[str, Entry],
        choosing: Choosing | None = None,
    ) -> _Listed:
        """List a folder, or some paths of it, and offer each entry, or those that are chosen, to the intake."""
        listed, memory = _Listed(intake), EntryMemory()
        with contextlib.closing(list_tree(machine, folder, paths, excluded)) as listing:
            for entry in listing:
                if excluded.name(entry.path, is_folder=stat.S_ISDIR(entry.mode)):
                    continue
                chosen = choosing.matching(entry) if choosing else []
                is_left_out = choosing is not None and not chosen
                if entry.is_locked and (stat.S_ISDIR(entry.mode) or not is_left_out):
                    memory.add(entry)
                    listed.locked.append(entry)
                    continue
                if choosing:
                    if chosen:
                        choosing.admit(entry, chosen)
                    else:
                        choosing.hold(entry)
                    continue
                unchanged = is_same(entry, known.get(entry.path))
                is_admitted = intake.admit(entry, own_link=unchanged, known=entry.path in known)
                if is_admitted and unchanged and stat.S_ISREG(entry.mode):
                    listed.same.append(entry.path)
        return listed


def _unlocked(list_all: Callable[[], _Listed], unlocks: Sequence[Unlock]) -> _Listed:
    """List, and again after each of the `unlocks`, until nothing is locked."""
    listed = list_all()
    for unlock in unlocks:
        if not listed.locked:
            break
        unlock([entry.path for entry in listed.locked])
        listed = list_all()
    return listed


def _kept(listed: _Listed, known: Mapping[str, Entry]) -> list[str]:
    """Refuse what the machine can't read; return the local files that replace it."""
    locked = {entry.path: stat.S_IFMT(entry.mode) for entry in listed.locked}
    if not locked:
        return []
    kept: list[str] = []
    for path, entry in known.items():
        outer = next((each for each in _with_parents(path) if each in locked), None)
        if outer is None or stat.S_IFMT(known[outer].mode if outer in known else 0) != locked[outer]:
            continue
        if listed.intake.admit(entry, own_link=True, known=True) and stat.S_ISREG(entry.mode):
            kept.append(path)
    for entry in listed.locked:
        mode = stat.S_IMODE(entry.mode)
        listed.intake.refuse(entry, f"unreadable there: it belongs to another user, with mode {mode:03o}")
    return kept


def _with_parents(path: str) -> Iterator[str]:
    """Yield the path, and each folder above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _receive(machine: Machine, folder: str, intake: Intake) -> None:
    """Ask for the files that are not local yet, and write them as they arrive."""
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
                raise _truncated(machine.host)
        reading.check("tar", "pack the workspace", _HARMLESS)
        sender.join()


AT_ONCE = 1000
"""Names that are sent at a time."""
_HARMLESS = (
    "No such file or directory",
    "file changed as we read it",
    "File removed before we read it",
    "file shrank by",
    "Exiting with failure status",
)
"""The words of tar about files that change while it reads them."""


def _ask(process: Process, wanted: Sequence[str]) -> None:
    try:
        for start in range(0, len(wanted), AT_ONCE):
            process.sendall(b"".join(map(null_ended, wanted[start : start + AT_ONCE])))
        process.shutdown_write()
    except OSError:
        return  # the process has ended: its output says why


def _members(reading: WorkspaceReader, host: str) -> Iterator[tuple[str, int]]:
    """Yield the plain files of a tar stream, each with its size; the caller reads its content before the next."""
    long_name = b""
    while True:
        head = reading.exactly(BLOCK)
        if len(head) < BLOCK:
            raise _truncated(host)
        if not any(head):
            return
        try:
            size, kind = tar.size_of(head), head[156:157]
        except tar.NotTar:
            raise ActionError(f"{host} sent something that is not a tar archive") from None
        if kind == b"L":
            if size > tar.LONGEST:
                raise ActionError(f"{host} sent a tar archive that was not asked for: a name of {size} bytes")
            long_name = reading.exactly(padded(size))[:size].rstrip(b"\0")
            continue
        if kind not in {b"0", b"\0"}:
            raise ActionError(f"{host} sent something that is not a plain file, which was not asked for")
        name = long_name or tar.name_of(head)
        long_name = b""
        yield name.removeprefix(b"./").decode("utf-8", "surrogateescape"), size


def _truncated(host: str) -> ConnectionError:
    return ConnectionResetError(f"the data from {host} ended in the middle")
