"""Keeps what a list of runs needs of each ended run in one file beside the records, so that it opens no journal.

It is a cache: without it, or if it is torn or forged, a list takes longer. No removal trusts it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import MsgspecError, Struct

from pccpipe.layout import ENDED_RUNS
from pccpipe.record.files import write_atomically
from pccpipe.record.run_events import RunEnded, RunStarted
from pccpipe.version import __version__

_LONGEST = 16 * 1024
"""Bytes of an ended run that the file takes; of a run with longer inputs, a list reads the journal."""
_LARGEST = 256 << 20
"""Bytes of a file that is still read."""
_HEAD = f'"pccpipe {__version__}"\n'.encode()
"""The first line: another version may know more of an event."""


class EndedRun(Struct, frozen=True, array_like=True):
    """An ended run, as its journal had it at that time and size."""

    run_id: str
    mtime_ns: int
    size: int
    began_at: float | None
    started: RunStarted | None
    ended_at: float
    ended: RunEnded


def load_ended(runs_dir: Path) -> dict[str, EndedRun]:
    """Return the ended runs of the file by id; none if it cannot be read or another user could have written it."""
    try:
        data = _read(runs_dir)
        runs = _decoder().decode_lines(data[len(_HEAD) :]) if data.startswith(_HEAD) else []
    except (OSError, MsgspecError, ValueError, RecursionError):
        return {}
    return {run.run_id: run for run in runs}


def save_ended(runs_dir: Path, runs: Mapping[str, EndedRun]) -> None:
    """Replace the file, unless this process may not write there or the disk is full."""
    with contextlib.suppress(OSError):
        write_atomically(runs_dir / ENDED_RUNS, b"".join([_HEAD, *_lines(runs.values())]))


def _lines(runs: Iterable[EndedRun]) -> Iterable[bytes]:
    for run in runs:
        # msgspec writes no integer of over 64 bits, which an input may be.
        with contextlib.suppress(MsgspecError, ValueError, OverflowError, TypeError):
            line = msgspec.json.encode(run)
            if len(line) <= _LONGEST:
                yield line + b"\n"


def _read(runs_dir: Path) -> bytes:
    # Does not wait for a FIFO in its place.
    fd = os.open(runs_dir / ENDED_RUNS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        is_ours = status.st_uid in {os.geteuid(), runs_dir.stat().st_uid} and not status.st_mode & 0o022
        if not stat.S_ISREG(status.st_mode) or not is_ours or status.st_size > _LARGEST:
            return b""
        return file.read(_LARGEST)


@functools.cache
def _decoder() -> msgspec.json.Decoder[EndedRun]:
    return msgspec.json.Decoder(EndedRun)
