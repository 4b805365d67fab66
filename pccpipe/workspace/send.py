"""Sends a tree to a machine that has find, xargs and GNU tar: sends what differs, and removes what the tree lacks."""

from __future__ import annotations

import shlex
import stat
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from pccpipe.errors import ActionError
from pccpipe.machine.base import Machine, cannot_write
from pccpipe.machine.entering import check_entered, enter
from pccpipe.machine.script import read_to_end
from pccpipe.record.fence import GIT
from pccpipe.workspace.allowed import name_refusal
from pccpipe.workspace.entry import Entry, EntryMemory
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.git_base import HEAD
from pccpipe.workspace.listing import is_same, list_tree, null_ended
from pccpipe.workspace.pack import Pack
from pccpipe.workspace.reading import PIECE, SILENCE


def send(machine: Machine, pack: Pack, remote: str, excluded: Excluded) -> None:
    """Make the folder `remote` on the machine equal to the tree; excluded files there stay as they are.

    Raises ActionError with the machine's words, ConnectionError, TimeoutError, Unavailable.
    """
    folder = shlex.quote(remote)
    # Removes a link that a step put in its place.
    make = f"[ ! -L {folder} ] || rm -f -- {folder}; mkdir -p -- {folder} || exit"
    made = machine.run(f"export LC_ALL=C; {make}\n{enter(remote)}ls -A | head -n 1")
    check_entered(machine.host, remote, made.code)
    if made.code:
        raise cannot_write(machine.host, made.stderr.decode("utf-8", "replace").strip())
    wanted: Sequence[str] = list(pack.entries)
    if made.stdout:
        obsolete, wanted = _differences(machine, pack, remote, excluded)
        for command, names in obsolete.commands:
            _feed(machine, f"{enter(remote)}exec xargs -0 {command} --", names)
    if wanted:
        # Reads 256 KiB at a time, not 10.
        command = f"{enter(remote)}exec tar -b 512 -xpf - --no-same-owner"
        if words := _feed(machine, command, pack.pieces(wanted)):
            raise ActionError(f"tar could not unpack the workspace on {machine.host}: {words}")


def send_git(machine: Machine, base: Pack, remote: str, *, renews: bool) -> None:
    """Make a git repository in the folder `remote`; with `renews` in place of one that is there."""
    if not renews and machine.run(f"{enter(remote)}[ ! -L {GIT} ] && [ -f {GIT}/{HEAD} ]").code == 0:
        return
    # A step may have left a link there, or folders that it cannot write.
    clear = f"[ -L {GIT} ] || chmod -R u+rwX {GIT} 2>/dev/null; rm -rf {GIT} && mkdir {GIT} && cd {GIT} || exit"
    # Without its HEAD, git takes a half of it for nothing.
    names = sorted(base.entries, key=lambda path: path == HEAD)
    if words := _feed(machine, f"{enter(remote)}{clear}; exec tar -xpf - --no-same-owner", base.pieces(names)):
        raise ActionError(f"the git repository of the workspace cannot be unpacked on {machine.host}: {words}")


class _Obsolete:
    """The names to remove on the machine. A folder with excluded files in it stays.

    Holds them as bytes for xargs: freeing a million strings takes long.
    """

    def __init__(self, tree: Container[str]) -> None:
        self.around: set[str] = set()
        """The folders of the tree that lose something."""
        self._tree = tree
        self._memory = EntryMemory()
        self._last = ""
        self._files: list[bytearray] = []
        self._folders: dict[int, list[bytearray]] = {}

    def add(self, entry: Entry) -> None:
        """Raises ActionError if all names together exceed the limit."""
        self._memory.add(entry)
        is_folder = stat.S_ISDIR(entry.mode)
        pieces = self._folders.setdefault(entry.path.count("/"), []) if is_folder else self._files
        if not pieces or len(pieces[-1]) >= PIECE:
            pieces.append(bytearray())
        pieces[-1] += null_ended(entry.path)
        path = entry.path.rpartition("/")[0]
        if path != self._last:
            self._last = path
            while path and path not in self.around:
                if path in self._tree:
                    self.around.add(path)
                path = path.rpartition("/")[0]

    @property
    def commands(self) -> Iterator[tuple[str, list[bytearray]]]:
        """The programs that remove them, each with its names."""
        if self._files:
            yield "rm -f", self._files
        if self._folders:
            # Inner folders first.
            yield "rmdir", [piece for depth in sorted(self._folders, reverse=True) for piece in self._folders[depth]]


def _differences(machine: Machine, pack: Pack, remote: str, excluded: Excluded) -> tuple[_Obsolete, list[str]]:
    """Return the names to remove, and those to send, with the folders above them."""
    obsolete = _Obsolete(pack.entries)
    same: set[str] = set()
    for entry in list_tree(machine, remote, None, excluded):
        local = pack.entries.get(entry.path)
        if local and stat.S_ISDIR(local.mode) == stat.S_ISDIR(entry.mode):
            if is_same(entry, local):
                same.add(entry.path)
        elif not name_refusal(entry.path) and not _is_excluded(PurePosixPath(entry.path), excluded):
            obsolete.add(entry)
    wanted = {path for path in pack.entries if path not in same}
    # Sends the folders above each too: that restores their times, and replaces links that a step put there.
    for path in [*wanted, *obsolete.around]:
        wanted.add(path)
        while (path := path.rpartition("/")[0]) and path not in wanted:
            wanted.add(path)
    return obsolete, [path for path in pack.entries if path in wanted]


def _feed(machine: Machine, command: str, data: Iterable[bytes | bytearray]) -> str:
    """Feed a command's stdin and wait for its end; return its words if it failed."""
    process = machine.popen(f"export LC_ALL=C; {command}")
    try:
        process.settimeout(SILENCE)
        broke: ConnectionError | None = None
        try:
            for piece in data:
                process.sendall(bytes(piece))
            process.shutdown_write()
        except ConnectionError as error:
            # The command may have failed first: then its words explain the error.
            broke = error
        _, stderr = read_to_end(process, time.monotonic() + SILENCE)
        code = process.wait(SILENCE)
        if broke and not code:
            raise broke
        return (stderr.decode("utf-8", "replace").strip() or f"exit code {code}") if code else ""
    finally:
        process.close()


def _is_excluded(path: PurePosixPath, excluded: Excluded) -> bool:
    parents = [str(parent) for parent in path.parents if str(parent) != "."]
    return any(excluded.name(parent, is_folder=True) for parent in parents) or any(
        excluded.name(str(path), is_folder=is_folder) for is_folder in (False, True)
    )
