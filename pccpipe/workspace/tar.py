"""Trees over the connection as tar streams, with nothing but tar on the other side."""

from __future__ import annotations

import os
import shlex
import tarfile
import time
from pathlib import Path, PurePosixPath
from typing import IO, cast

from pccpipe.errors import ActionError
from pccpipe.shell.housekeeping import read_to_end
from pccpipe.targets.machine import Machine, Process
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.intake import name_refusal
from pccpipe.workspace.listing import list_tree

BUFFER = 256 * 1024
SILENCE = 120.0
"""Seconds that the other side may be silent in the middle of a transfer."""


def send(machine: Machine, source: Path, remote: str, excluded: Excluded) -> None:
    """Make the folder `remote` there as `source` is here; what is excluded stays as it is there.

    Raises ActionError with the other side's words, ConnectionError, TimeoutError.
    """
    folder = shlex.quote(remote)
    process = machine.popen(f"export LC_ALL=C; mkdir -p {folder} && cd {folder} && exec tar -xpf - --no-same-owner")
    try:
        process.settimeout(SILENCE)
        try:
            with tarfile.open(
                fileobj=cast("IO[bytes]", _Sink(process)), mode="w|", bufsize=BUFFER, format=tarfile.PAX_FORMAT
            ) as archive:
                archive.add(source, arcname=".", filter=_without_owner)
            process.shutdown_write()
        except ConnectionError:
            # It may have ended because it failed: then its words count.
            _check(process)
            raise
        _check(process)
    finally:
        process.close()
    _delete(machine, source, remote, excluded)


def _delete(machine: Machine, source: Path, remote: str, excluded: Excluded) -> None:
    """Remove there what is not here: what is excluded stays, for it was never sent."""
    gone = [
        entry.path
        for entry in list_tree(machine, remote, None, excluded)
        if not name_refusal(entry.path)
        and not os.path.lexists(source / entry.path)
        and not _is_excluded(PurePosixPath(entry.path), excluded)
    ]
    # Deepest first; a folder that still has something excluded in it stays.
    gone.sort(key=lambda name: name.count("/"), reverse=True)
    for start in range(0, len(gone), 1000):
        lines = [
            f"rm -f {_quoted(name)} 2>/dev/null || rmdir {_quoted(name)} 2>/dev/null"
            for name in gone[start : start + 1000]
        ]
        machine.run("\n".join([f"cd {shlex.quote(remote)} || exit", *lines, "true"]), timeout=SILENCE)


def _is_excluded(path: PurePosixPath, excluded: Excluded) -> bool:
    parents = [str(parent) for parent in path.parents if str(parent) != "."]
    return any(excluded.name(parent, is_folder=True) for parent in parents) or any(
        excluded.name(str(path), is_folder=is_folder) for is_folder in (False, True)
    )


def _quoted(name: str) -> str:
    return shlex.quote(f"./{name}")


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _check(process: Process) -> None:
    """Raise what the other side said, if it failed."""
    _, said = read_to_end(process, time.monotonic() + SILENCE)
    code = process.wait(SILENCE)
    words = said.decode("utf-8", "replace").strip()
    if code:
        raise ActionError(f"tar could not unpack the workspace there: {words or f'exit code {code}'}")


class _Sink:
    """Where tarfile writes to."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def write(self, data: bytes) -> int:
        self._process.sendall(data)
        return len(data)
