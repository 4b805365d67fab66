"""Trees over the connection as tar streams, with nothing but tar on the other side."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

from pccpipe.errors import ActionError
from pccpipe.shell.housekeeping import read_to_end
from pccpipe.targets.machine import Machine, Process
from pccpipe.workspace.copy import Counted, Limits, vet_tree
from pccpipe.workspace.exclude import Excluded

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
            _check(process, "unpack")
            raise
        _check(process, "unpack")
    finally:
        process.close()
    _delete(machine, source, remote, excluded)


def fetch(machine: Machine, remote: str, target: Path, excluded: Excluded, limits: Limits) -> Counted:
    """Make `target`, anew, as the folder `remote` is there, but for what is excluded or may not come. Raises as
    `send`.
    """
    rules = " ".join(
        f"--exclude={shlex.quote(pattern)}" for pattern in excluded.patterns if not pattern.startswith("!")
    )
    large = _too_large(machine, remote, limits)
    if not large:
        return _fetch(machine, f"cd {shlex.quote(remote)} && exec tar -cf - {rules} .", target, limits)
    # What is too large is not even begun with: to pass over 50 GB of a stream takes as long as to take them.
    chosen = f"find . ! -type f -print0 -o -size -{limits.file + 1}c -print0"
    command = f"{chosen} | tar -cf - {rules} --null --no-recursion -T -"
    counted = _fetch(machine, f"cd {shlex.quote(remote)} && {command}", target, limits)
    counted.refused += [f"{name!r}: over {limits.file >> 20} MiB" for name in large]
    return counted


def _too_large(machine: Machine, remote: str, limits: Limits) -> list[str]:
    """The files there that are larger than one may be."""
    found = machine.run(f"cd {shlex.quote(remote)} && find . -type f -size +{limits.file}c -print0", timeout=SILENCE)
    return [name.decode("utf-8", "replace").removeprefix("./") for name in found.stdout.split(b"\0") if name]


def fetch_paths(machine: Machine, remote: str, paths: Sequence[str], target: Path, limits: Limits) -> Counted:
    """Make `target`, anew, of these files and folders of `remote`. Raises as `send`."""
    names = " ".join(shlex.quote(f"./{path}") for path in paths)
    return _fetch(machine, f"cd {shlex.quote(remote)} && exec tar -cf - {names}", target, limits)


def _fetch(machine: Machine, command: str, target: Path, limits: Limits) -> Counted:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    process = machine.popen(f"export LC_ALL=C; {command}")
    refused: list[str] = []
    try:
        process.settimeout(SILENCE)
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", _Source(process)), mode="r|", bufsize=BUFFER) as archive:
                refused = _extract(archive, target, limits)
        except tarfile.TarError as error:
            _check(process, "pack")
            raise ActionError(f"what came from {machine.host} is no tar archive: {error}") from error
        _check(process, "pack")
    finally:
        process.close()
    counted = vet_tree(target, limits)
    counted.refused[:0] = refused
    return counted


def _extract(archive: tarfile.TarFile, target: Path, limits: Limits) -> list[str]:
    """Write plain files and folders; links last, so that nothing is written through one. Gives what was refused."""
    refused: list[str] = []
    links: list[tuple[Path, str]] = []
    files = total = 0
    for member in archive:
        path = _inside(member.name, target)
        if path is None:
            refused.append(f"{member.name!r}: not a name inside of the folder")
        elif member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.issym():
            links.append((path, member.linkname))
        elif not member.isfile():
            refused.append(f"{member.name!r}: no plain file")
        elif member.size > limits.file:
            refused.append(f"{member.name!r}: over {limits.file >> 20} MiB")
        else:
            files, total = files + 1, total + member.size
            if files > limits.files or total > limits.bytes:
                raise ActionError(
                    f"over {limits.files} files or {limits.bytes >> 20} MiB would come home: exclude some"
                )
            _write(archive, member, path)
    for path, text in links:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(text)
    return refused


def _inside(name: str, target: Path) -> Path | None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name:
        return None
    return target.joinpath(*parts)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None
    # A second member of the name replaces the first; nothing is opened that is there.
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, BUFFER)
    path.chmod(stat.S_IMODE(member.mode) & 0o777)
    os.utime(path, (member.mtime, member.mtime))


def _delete(machine: Machine, source: Path, remote: str, excluded: Excluded) -> None:
    """Remove there what is not here: what is excluded stays, for it was never sent."""
    listing = machine.run(f"cd {shlex.quote(remote)} && find . -mindepth 1 -print0", timeout=SILENCE)
    if listing.code:
        raise ActionError(f"{machine.host}: {listing.stderr.decode('utf-8', 'replace').strip()}")
    names = [name.decode("utf-8", "surrogateescape").removeprefix("./") for name in listing.stdout.split(b"\0") if name]
    gone = [
        name for name in names if not os.path.lexists(source / name) and not _is_excluded(PurePosixPath(name), excluded)
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


def _check(process: Process, what: str) -> None:
    """Raise what the other side said, if it failed."""
    _, said = read_to_end(process, time.monotonic() + SILENCE)
    code = process.wait(SILENCE)
    words = said.decode("utf-8", "replace").strip()
    # tar exits with 1 for files that changed while it read them, which in a run's own folder is no failure.
    if code > 1 or (code and what == "unpack"):
        raise ActionError(f"tar could not {what} the workspace there: {words or f'exit code {code}'}")


class _Sink:
    """Where tarfile writes to."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def write(self, data: bytes) -> int:
        self._process.sendall(data)
        return len(data)


class _Source:
    """Where tarfile reads from: whole blocks, as it expects of a file; the other side's words do not fill up
    meanwhile.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ended = False

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and not self._ended:
            more = self._process.recv(size - len(data))
            if not more:
                self._ended = True
            data += more
        return bytes(data)
