"""Stores the uploaded tree as the archive that is sent, with an index.

Writing one large file takes a tenth of the time of many small ones.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Halt
from pccpipe.errors import ActionError
from pccpipe.record.fence import GIT
from pccpipe.record.files import write_atomically
from pccpipe.workspace import tar
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.folder import PIECE, TreeName, pieces, walk
from pccpipe.workspace.guard import Guard

BUFFER = 128 * 1024
"""Less than a `PIECE`, so that the pieces of a large file bypass the buffer."""
INDEX = "index.json"


class Pack:
    """A snapshot of a tree.

    Args:
        folder: the folder of its archive and index; `store` makes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        """By path, folders before what is in them."""
        self._starts: dict[str, tuple[int, int]] = {}
        """The offsets of an entry's header and content in the archive."""
        self._number = 0
        """The number of the archive; a new archive gets the next one."""

    @property
    def exists(self) -> bool:
        return (self.folder / INDEX).exists()

    @property
    def files(self) -> int:
        """The number of its files and links."""
        return sum(not stat.S_ISDIR(entry.mode) for entry in self.entries.values())

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(entry.size for entry in self.entries.values())

    @staticmethod
    def open(folder: Path) -> Pack:
        """Open an existing one. Raises OSError, ValueError."""
        pack = Pack(folder)
        kept = json.loads((folder / INDEX).read_bytes())
        pack._number = kept["number"]
        pack.entries = {path: Entry(path, *about) for path, *about, _, _ in kept["entries"]}
        pack._starts = {path: (start, content) for path, *_, start, content in kept["entries"]}
        return pack

    def store(
        self,
        root: Path,
        excluded: Excluded,
        halt: Halt,
        guard: Guard | None = None,
        *,
        full: bool,
        own: bool = False,
    ) -> None:
        """Take a snapshot of `root`, completely or not at all. Links stay links; skips excluded and special files.

        Args:
            guard: inspects new files; None lets every file through.
            full: read each file; otherwise keep those whose size, time and mode are unchanged.
            own: `root` is pccpipe's own: open to its owner what he may not read.

        Raises ActionError with the file that is unreadable, unwritable or must not leave this machine; Halted.
        """
        full = full or not self.exists or self._is_mostly_waste
        number = self._number + 1 if full else self._number
        archive = self._archive(number)
        length = 0 if full else archive.stat().st_size
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with archive.open("wb" if full else "ab", BUFFER) as file:
                writer = _Writer(file, length)
                for found in walk(root, excluded.going_up(), _refuse if own else None):
                    halt.check()
                    path = found.entry.path
                    if not full and self.entries.get(path) == found.entry:
                        writer.keep(found.entry, self._starts[path])
                    else:
                        writer.add(found, guard)
                if guard:
                    guard.check()
            self._keep(number, writer)
        except BaseException as error:
            if full:
                archive.unlink(missing_ok=True)
                if not self.exists:
                    shutil.rmtree(self.folder, ignore_errors=True)
            else:
                os.truncate(archive, length)
            if isinstance(error, OSError):
                words = f"cannot copy the workspace: {error.filename or root}: {error.strerror}"
                raise ActionError(words) from error
            raise

    def pieces(self, paths: Iterable[str]) -> Iterator[bytes]:
        """Yield an archive of these entries."""
        with self._archive(self._number).open("rb", buffering=0) as file:
            begin = end = 0
            for path in paths:
                start, content = self._starts[path]
                if start != end:
                    yield from _range(file, begin, end)
                    begin = start
                end = content + tar.padded(self.entries[path].size)
            yield from _range(file, begin, end)
        yield tar.END

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        return b"".join(self.content(path))

    def content(self, path: str) -> Iterator[bytes]:
        """Yield a file's content in pieces."""
        start = self._starts[path][1]
        with self._archive(self._number).open("rb", buffering=0) as file:
            yield from _range(file, start, start + self.entries[path].size)

    def put(self, path: str, target: Path, halt: Halt | None = None) -> None:
        """Make a file or link of it, or an empty folder. Raises OSError, Halted."""
        entry = self.entries[path]
        if stat.S_ISLNK(entry.mode):
            target.symlink_to(entry.link)
        elif stat.S_ISDIR(entry.mode):
            target.mkdir()
        else:
            with target.open("xb", buffering=0) as file:
                for piece in self.content(path):
                    if halt:
                        halt.check()
                    file.write(piece)
                os.fchmod(file.fileno(), stat.S_IMODE(entry.mode))
                os.utime(file.fileno(), ns=(entry.mtime_ns, entry.mtime_ns))

    def unpack(self, target: Path, halt: Halt, base: Pack | None = None) -> None:
        """Make the tree, completely or not at all, with `base` as its git repository. Raises ActionError, Halted."""
        unfinished = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
            for path in self.entries:
                halt.check()
                self.put(path, unfinished / path, halt)
            if base:
                base.unpack(unfinished / GIT, halt)
            # Inner folders first: any change in a folder sets its time.
            for path, entry in reversed(self.entries.items()):
                if stat.S_ISDIR(entry.mode):
                    # So that its owner can always empty it.
                    (unfinished / path).chmod(stat.S_IMODE(entry.mode) | 0o700)
                    os.utime(unfinished / path, ns=(entry.mtime_ns, entry.mtime_ns))
            unfinished.rename(target)
        except OSError as error:
            raise ActionError(f"cannot copy the workspace: {error.filename}: {error.strerror}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _is_mostly_waste(self) -> bool:
        return self._archive(self._number).stat().st_size > 2 * (self.size + 4 * tar.BLOCK * len(self.entries))

    def _archive(self, number: int) -> Path:
        return self.folder / f"{number}.tar"

    def _keep(self, number: int, writer: _Writer) -> None:
        entries = [
            [path, entry.mode, entry.size, entry.mtime_ns, entry.link, *writer.starts[path]]
            for path, entry in writer.entries.items()
        ]
        write_atomically(self.folder / INDEX, json.dumps({"number": number, "entries": entries}).encode())
        if number != self._number:
            self._archive(self._number).unlink(missing_ok=True)
        self.entries, self._starts, self._number = writer.entries, writer.starts, number


class _Writer:
    """Writes entries at the end of an archive."""

    def __init__(self, file: IO[bytes], position: int) -> None:
        self.entries: dict[str, Entry] = {}
        self.starts: dict[str, tuple[int, int]] = {}
        self._file = file
        self._position = position

    def keep(self, entry: Entry, starts: tuple[int, int]) -> None:
        self.entries[entry.path] = entry
        self.starts[entry.path] = starts

    def add(self, found: TreeName, guard: Guard | None) -> None:
        mode = found.entry.mode
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self._write(found.entry, [])
        elif stat.S_ISREG(mode):
            try:
                fd = found.folder.file(found.name)
            except FileNotFoundError:
                return  # it vanished meanwhile
            try:
                self._add_file(found.entry, fd, guard)
            finally:
                os.close(fd)

    def _add_file(self, entry: Entry, fd: int, guard: Guard | None) -> None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return
        begin = os.read(fd, min(status.st_size, limits.SEARCHED.most))
        if guard:
            guard.look_at(entry.path, begin)
        # The entry has the time from before the read: after a change meanwhile, the next snapshot reads it again.
        size = len(begin) if len(begin) < limits.SEARCHED.most else status.st_size
        sized = entry if entry.size == size else replace(entry, size=size)
        self._write(sized, chain([begin], pieces(fd, size - len(begin))))

    def _write(self, entry: Entry, content: Iterable[bytes]) -> None:
        header = tar.head(entry)
        self._file.write(header)
        missing = entry.size
        for piece in content:
            self._file.write(piece)
            missing -= len(piece)
        if missing:
            raise OSError(0, "it became shorter while pccpipe read it", entry.path)
        self._file.write(tar.filler(entry.size))
        self._index(entry, len(header))

    def _index(self, entry: Entry, length: int) -> None:
        content = self._position + length
        self.entries[entry.path] = entry
        self.starts[entry.path] = (self._position, content)
        self._position = content + tar.padded(entry.size)


def _refuse(locked: Entry) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), locked.path)


def _range(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    while start < end:
        data = os.pread(file.fileno(), min(PIECE, end - start), start)
        if not data:
            raise OSError(0, "the archive of the upload is incomplete", file.name)
        start += len(data)
        yield data
