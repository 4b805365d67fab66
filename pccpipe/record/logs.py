"""A command's log: its stdout and stderr, byte for byte as they came (masked), in two files."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from pccpipe.outcome import Stream


class CommandLog:
    """Appends to a command's two log files; what is written is with the kernel at once, so that a reader sees it.

    Use `create`; `stdout_name` and `stderr_name` are the paths within the run's folder. With `anew` what is in them is
    dropped: the command's output comes from its first byte again.
    """

    def __init__(self, run_dir: Path, stdout_name: str, stderr_name: str, *, anew: bool = False) -> None:
        self.stdout_name = stdout_name
        self.stderr_name = stderr_name
        self.stdout_path = run_dir / stdout_name
        self.stderr_path = run_dir / stderr_name
        self.stdout_path.parent.mkdir(parents=True, exist_ok=True)
        self._written: set[Stream] = set()
        self._files = {
            Stream.STDOUT: self.stdout_path.open("wb" if anew else "ab", buffering=0),
            Stream.STDERR: self.stderr_path.open("wb" if anew else "ab", buffering=0),
        }

    @staticmethod
    def create(run_dir: Path, folder: Path, command_id: str, *, short: bool) -> CommandLog:
        """The log of a command in `folder` of the run: `stdout.log` and `stderr.log` if `short` and not taken yet."""
        prefix = "" if short and not (run_dir / folder / "stdout.log").exists() else f"{command_id}."
        return CommandLog(run_dir, str(folder / f"{prefix}stdout.log"), str(folder / f"{prefix}stderr.log"))

    def write(self, stream: Stream, data: bytes) -> None:
        left = memoryview(data)
        self._written.add(stream)
        while left:
            left = left[self._files[stream].write(left) :]

    def close(self) -> None:
        """Bring what was written to the disk: the target's copy is thrown away after that."""
        for stream, file in self._files.items():
            if stream in self._written:
                os.fdatasync(file)
            file.close()

    def __enter__(self) -> CommandLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tail(path: Path, most: int) -> str:
    """The last `most` bytes of a log as text, from a line's beginning if there is one; empty if there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most))
            data = file.read(most)
    except FileNotFoundError:
        return ""
    if size > most:
        _, newline, rest = data.partition(b"\n")
        data = rest if newline and rest else data
    return data.decode("utf-8", "replace")
