"""Brings files home from a machine that is not trusted: it says what it has, what may come is asked for by name, and
what comes is taken only if it was asked for.

Nothing but find and GNU tar are needed there; its tar's stream is read here by a reader that knows plain files alone.
Whatever a hostile machine sends, the limits hold while it is received.
"""

from __future__ import annotations

import shlex
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.targets.machine import Machine, Process
from pccpipe.workspace import tar
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.intake import Counted, Intake, Known, Limits
from pccpipe.workspace.listing import is_same, list_tree, null_ended
from pccpipe.workspace.reading import PIECE, Reading
from pccpipe.workspace.tar import BLOCK, padded


def fetch_tree(
    machine: Machine, folder: str, known: Known, target: Path, excluded: Excluded, limits: Limits
) -> Counted:
    """Make `target`, anew, as the folder is there, but for what is excluded or may not come.

    Args:
        known: a tree here that is much the same already; what is as it was (by size, time and mode) is not sent.

    Raises ActionError with the other side's words or the limit that was reached, ConnectionError, TimeoutError.
    """
    intake = Intake(target, limits)
    here = known.entries
    same: list[str] = []
    listing = list_tree(machine, folder, None, excluded)
    try:
        for entry in listing:
            if excluded.name(entry.path, is_folder=stat.S_ISDIR(entry.mode)):
                continue
            same_as_here = is_same(entry, here.get(entry.path))
            if intake.admit(entry, own_link=same_as_here) and same_as_here and stat.S_ISREG(entry.mode):
                same.append(entry.path)
    finally:
        listing.close()
    for path in same:
        intake.have(path, known)
    _receive(machine, folder, intake)
    return intake.finish()


def fetch_paths(
    machine: Machine, folder: str, paths: Sequence[str], target: Path, limits: Limits, masker: Masker
) -> Counted:
    """Make `target`, anew, of these files and folders. Raises as `fetch_tree`."""
    intake = Intake(target, limits, masker)
    for path in paths:
        intake.root(path)
    listing = list_tree(machine, folder, paths, Excluded.only(()))
    try:
        for entry in listing:
            intake.admit(entry)
    finally:
        listing.close()
    _receive(machine, folder, intake)
    return intake.finish()


def _receive(machine: Machine, folder: str, intake: Intake) -> None:
    """Ask for the files that are wanted, and write them as they come."""
    wanted = intake.wanted
    if not wanted:
        return
    command = "exec tar -cf - --format=gnu --hard-dereference --no-recursion --null --no-unquote -T -"
    with Reading(machine, f"cd {shlex.quote(folder)} && {command}") as reading:
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


_HARMLESS = (
    "No such file or directory",
    "file changed as we read it",
    "File removed before we read it",
    "file shrank by",
    "Exiting with failure status",
)
"""What tar says of files that somebody works on meanwhile."""


def _ask(process: Process, wanted: Sequence[str]) -> None:
    names = null_ended(wanted)
    try:
        for start in range(0, len(names), PIECE):
            process.sendall(names[start : start + PIECE])
        process.shutdown_write()
    except OSError:
        return  # the process has ended: reading from it tells why


def _members(reading: Reading, host: str) -> Iterator[tuple[str, int]]:
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
            raise ActionError(f"{host} sent what is no plain file, which was not asked for")
        name = long_name or tar.name_of(head)
        long_name = b""
        yield name.removeprefix(b"./").decode("utf-8", "surrogateescape"), size


def _torn(host: str) -> ConnectionError:
    return ConnectionResetError(f"what came from {host} ended in the middle")
