"""Brings a tree to a machine, with nothing but find, xargs and GNU tar there: what is not there, or is not the same, is
sent, and what is not in the tree is removed.
"""

from __future__ import annotations

import shlex
import stat
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from pccpipe.errors import ActionError
from pccpipe.machine.base import Machine, refused
from pccpipe.machine.entering import check_entered, enter
from pccpipe.machine.script import read_to_end
from pccpipe.workspace.allowed import name_refusal
from pccpipe.workspace.entry import Entry, EntryMemory
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.listing import is_same, list_tree, null_ended
from pccpipe.workspace.pack import Pack
from pccpipe.workspace.reading import PIECE, SILENCE


def send(machine: Machine, pack: Pack, remote: str, excluded: Excluded) -> None:
    """Make the folder `remote` there as the tree is; what is excluded stays as it is there.

    Raises ActionError with the other side's words, ConnectionError, TimeoutError, Unavailable.
    """
    folder = shlex.quote(remote)
    # A step may have put a link in its place: that goes.
    make = f"[ ! -L {folder} ] || rm -f -- {folder}; mkdir -p -- {folder} || exit"
    made = machine.run(f"export LC_ALL=C; {make}\n{enter(remote)}ls -A | head -n 1")
    check_entered(machine.host, remote, made.code)
    if made.code:
        raise refused(machine.host, made.stderr.decode("utf-8", "replace").strip())
    wanted: Sequence[str] = list(pack.entries)
    if made.stdout:
        gone, wanted = _differences(machine, pack, remote, excluded)
        for command, names in gone.commands:
            _feed(machine, f"{enter(remote)}exec xargs -0 {command} --", names)
    if wanted:
        # It reads 256 KiB at a time, not 10.
        command = f"{enter(remote)}exec tar -b 512 -xpf - --no-same-owner"
        if words := _feed(machine, command, pack.pieces(wanted)):
            raise ActionError(f"tar could not unpack the workspace on {machine.host}: {words}")


class _Gone:
    """What is to go there, as far as that is possible: a folder that still has something excluded in it stays.

    Kept as the programs there take it: a million names are quickly let go of then.
    """

    def __init__(self, mine: Container[str]) -> None:
        self.around: set[str] = set()
        """The folders of the tree that something goes from."""
        self._mine = mine
        self._names = EntryMemory()
        self._last = ""
        self._files: list[bytearray] = []
        self._folders: dict[int, list[bytearray]] = {}

    def add(self, entry: Entry) -> None:
        """Raises ActionError when it is too much altogether."""
        self._names.add(entry)
        is_folder = stat.S_ISDIR(entry.mode)
        pieces = self._folders.setdefault(entry.path.count("/"), []) if is_folder else self._files
        if not pieces or len(pieces[-1]) >= PIECE:
            pieces.append(bytearray())
        pieces[-1] += null_ended(entry.path)
        path = entry.path.rpartition("/")[0]
        if path != self._last:
            self._last = path
            while path and path not in self.around:
                if path in self._mine:
                    self.around.add(path)
                path = path.rpartition("/")[0]

    @property
    def commands(self) -> Iterator[tuple[str, list[bytearray]]]:
        """The programs that remove it, and of which names."""
        if self._files:
            yield "rm -f", self._files
        if self._folders:
            # Inner ones first.
            yield "rmdir", [piece for depth in sorted(self._folders, reverse=True) for piece in self._folders[depth]]


def _differences(machine: Machine, pack: Pack, remote: str, excluded: Excluded) -> tuple[_Gone, list[str]]:
    """What is to go there, and what is to be sent, with the folders that it is in."""
    gone = _Gone(pack.entries)
    same: set[str] = set()
    for entry in list_tree(machine, remote, None, excluded):
        mine = pack.entries.get(entry.path)
        if mine and stat.S_ISDIR(mine.mode) == stat.S_ISDIR(entry.mode):
            if is_same(entry, mine):
                same.add(entry.path)
        elif not name_refusal(entry.path) and not _is_excluded(PurePosixPath(entry.path), excluded):
            gone.add(entry)
    wanted = {path for path in pack.entries if path not in same}
    # With each its folders, so that they have their times again, and are no links that somebody has put there.
    for path in [*wanted, *gone.around]:
        wanted.add(path)
        while (path := path.rpartition("/")[0]) and path not in wanted:
            wanted.add(path)
    return gone, [path for path in pack.entries if path in wanted]


def _feed(machine: Machine, command: str, data: Iterable[bytes | bytearray]) -> str:
    """Give a command its stdin and wait for its end: what it said if it failed."""
    process = machine.popen(f"export LC_ALL=C; {command}")
    try:
        process.settimeout(SILENCE)
        broke: ConnectionError | None = None
        try:
            for piece in data:
                process.sendall(bytes(piece))
            process.shutdown_write()
        except ConnectionError as error:
            # It may have ended because it failed: then its words count.
            broke = error
        _, said = read_to_end(process, time.monotonic() + SILENCE)
        code = process.wait(SILENCE)
        if broke and not code:
            raise broke
        return (said.decode("utf-8", "replace").strip() or f"exit code {code}") if code else ""
    finally:
        process.close()


def _is_excluded(path: PurePosixPath, excluded: Excluded) -> bool:
    parents = [str(parent) for parent in path.parents if str(parent) != "."]
    return any(excluded.name(parent, is_folder=True) for parent in parents) or any(
        excluded.name(str(path), is_folder=is_folder) for is_folder in (False, True)
    )
