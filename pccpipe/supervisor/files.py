"""Writes and reads the files of a run's local commands: their scripts, their inputs, and how they ended."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from pccpipe.detached.programs import RunDir
from pccpipe.errors import Lost, Nonsense, ResultError, ResultMissing
from pccpipe.layout import COMMANDS
from pccpipe.machine.answers import EXIT_CODES, number
from pccpipe.machine.base import cannot_write
from pccpipe.outcome import Stream
from pccpipe.supervisor import processes
from pccpipe.target import Command

HOST = "localhost"
_MARK = re.compile("[0-9a-f]{32}")
_KINDS = ("sh", "sup", "stdout", "stderr")
_NO_FILE = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EOPNOTSUPP}
"""Errors from opening a link or a socket, on Linux or macOS."""
_PIECE = 1 << 20
_AWAIT = 2.0
"""Seconds to wait until a claimed command has begun."""


class Ended:
    """The end of a command, in the supervisor's words: `0 -`. Raises Nonsense."""

    def __init__(self, said: str) -> None:
        code, _, flags = said.strip().partition(" ")
        if not flags or set(flags) - set("-tbl"):
            raise Nonsense(HOST, "report on a command's end", said)
        self.code = number(HOST, "exit code", code, EXIT_CODES)
        self.timed_out, self.left_processes, self.output_lost = ("t" in flags, "b" in flags, "l" in flags)


class Files:
    """The files of one run."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self.state = Path(run_dir.state)
        self.commands = self.state / COMMANDS

    def make(self) -> None:
        """Make the folders. Raises `Unavailable`."""
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.commands.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise cannot_write(HOST, str(error)) from error

    def hold(self) -> bytes:
        """Name this process as the one that runs the run's commands: the supervisor then refuses those of others."""
        holder = secrets.token_hex(16).encode()
        self.make()
        try:
            new = self.state / f"holder.{holder.decode()}"
            new.write_bytes(holder)
            new.replace(self.state / "holder")
        except OSError as error:
            raise cannot_write(HOST, str(error)) from error
        return holder

    def of(self, command_id: str, kind: str) -> str:
        return self._run_dir.file_of(command_id, kind)

    def write(self, command: Command) -> None:
        """Write the script and the inputs of a command. Raises `Unavailable`."""
        try:
            self._write(self.of(command.id, "sh"), command.script.encode(errors="surrogateescape"))
            if command.files:
                folder = self.of(command.id, "in")
                self._make_empty(folder)
                for name, data in command.files.items():
                    self._write(f"{folder}/{name}", data)
            if command.wants_out:
                self._make_empty(self.of(command.id, "out"))
        except OSError as error:
            self.remove(command.id)
            raise cannot_write(HOST, str(error)) from error

    def _make_empty(self, folder: str) -> None:
        try:
            Path(folder).mkdir(mode=0o700)
        except FileExistsError:
            # A process of the run made it, and was killed before the command began.
            shutil.rmtree(folder)
            Path(folder).mkdir(mode=0o700)

    def _write(self, path: str, data: bytes) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb", buffering=0) as opened:
            left = memoryview(data)
            while left:
                left = left[opened.write(left) :]

    def remove(self, command_id: str, mark: str = "") -> None:
        """Remove the files of a command."""
        for kind in (*_KINDS, *((f"claim-{mark}",) if mark else ())):
            with contextlib.suppress(OSError):
                Path(self.of(command_id, kind)).unlink()
        for kind in ("in", "out"):
            path = self.of(command_id, kind)
            if os.path.lexists(path):
                shutil.rmtree(path, ignore_errors=True)

    def void(self, command_id: str, mark: str) -> bool:
        """Make sure that a command never begins; return False if it has begun."""
        try:
            os.close(os.open(self.of(command_id, f"claim-{mark}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        except OSError:
            return not self.state.is_dir()
        return True

    def find(self, command_id: str) -> str | None:
        """Return the mark of a command that has begun."""
        until = time.monotonic() + _AWAIT
        while True:
            claims = dict(self._claims(command_id))
            is_late = time.monotonic() > until
            for mark, group in claims.items():
                # A claim that only voids a command stays without a process group.
                if (group or is_late) and self._sup(command_id):
                    return mark
            if not claims or is_late:
                return None
            time.sleep(0.05)

    def _claims(self, command_id: str) -> Iterator[tuple[str, int]]:
        """Yield the marks of a command, each with its process group, or 0 before it has one."""
        for path in self.commands.glob(f"{command_id}.claim-*"):
            mark = path.name.rpartition("-")[2]
            with contextlib.suppress(OSError, ValueError):
                # Other text comes from a lane, which ran the command in an earlier version.
                group = int(path.read_text().strip() or 0)
                if _MARK.fullmatch(mark):
                    yield mark, group

    def ended(self, command_id: str) -> Ended | None:
        """Read how a command ended; return None if it has not. Raises Nonsense, and `Lost` for an unknown command."""
        said = self._sup(command_id)
        if not said and not self.state.is_dir():
            raise self.removed
        if not said:
            raise Lost(f"{HOST} no longer knows the command")
        _, _, end = said.partition("\n")
        return Ended(end) if end.endswith("\n") else None

    @property
    def removed(self) -> Lost:
        return Lost(f"{HOST}: the folder {self.state} was removed during the run")

    def open_spool(self, command_id: str, stream: Stream) -> int:
        return os.open(self.of(command_id, stream.value), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def fetch(self, command_id: str, name: str, limit: int) -> bytes:
        """Read a plain file of the command's PCC_OUT. Raises `ResultError`."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            folder = os.open(self.of(command_id, "out"), flags | os.O_DIRECTORY)
            try:
                file = os.open(name, flags, dir_fd=folder)
            finally:
                os.close(folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ResultMissing(f"{name} is missing: the command left no such file in PCC_OUT") from error
        except OSError as error:
            # A link, a socket.
            if error.errno in _NO_FILE:
                raise ResultError(f"{name} in PCC_OUT is not a plain file") from error
            raise ResultError(f"{name} cannot be read: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ResultError(f"{name} in PCC_OUT is not a plain file")
            data = bytearray()
            while len(data) <= limit and (piece := os.read(file, min(limit + 1 - len(data), _PIECE))):
                data += piece
        finally:
            os.close(file)
        if len(data) > limit:
            raise ResultError(f"{name} has more than {limit} bytes")
        return bytes(data)

    def end_orphan(self, command_id: str) -> None:
        """Kill the processes that can be found of a command whose supervisor is gone."""
        tag = f"PCCPIPE_STEP={self._run_dir.tag}/{command_id}/".encode()
        groups = {group for _, group in self._claims(command_id)}
        _kill(tag, groups)

    def end_all(self) -> None:
        """Kill the rest of the run, which has no supervisor any more."""
        tag = f"PCCPIPE_STEP={self._run_dir.tag}/".encode()
        groups = {group for _, group in self._claims("*")}
        for pid in processes.tagged(tag):
            processes.signal_one(pid, signal.SIGTERM)
        for _ in range(5):
            # pccpipe's own processes end at once. Processes of a step get a moment before KILL.
            if not processes.tagged(tag):
                return
            time.sleep(0.02)
        _kill(tag, groups)

    def remove_all(self) -> str:
        """Remove the run's folder; return words on why that failed, or none."""
        words = ""
        for _ in range(5):
            # A process that is just ending may still write a file there.
            try:
                shutil.rmtree(self.state)
            except FileNotFoundError:
                return ""
            except OSError as error:
                words = str(error)
            if not self.state.exists():
                return ""
            time.sleep(0.02)
        return words or "a process makes it again"

    def _sup(self, command_id: str) -> str:
        try:
            return Path(self.of(command_id, "sup")).read_text(errors="replace")
        except OSError:
            return ""


def _kill(tag: bytes, groups: set[int]) -> None:
    # The first search may have missed a child that was just starting.
    for _ in range(3):
        found = processes.tagged(tag)
        if not found:
            return
        for pid in found:
            # Another group may have this number by now, unless one of its processes is ours.
            if (group := processes.group_of(pid)) in groups:
                processes.signal_group(group, signal.SIGKILL)
            processes.signal_one(pid, signal.SIGKILL)
        time.sleep(0.02)
