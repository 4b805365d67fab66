"""Read the transcripts of an agent's session from the archive that its container packed, and pack them again.

The container's code may have written the archive itself, so each name, kind and size is checked before it counts. The
archive that pccpipe packs has only files that passed.
"""

from __future__ import annotations

import fnmatch
import re
import stat
import zlib
from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import PccpipeError
from pccpipe.secrets.mask import Masker
from pccpipe.target import NEVER_KEPT, HomeFiles
from pccpipe.workspace import tar
from pccpipe.workspace.entry import Entry

_PIECE = 256 << 10
_PLAIN = re.compile(r"[A-Za-z0-9._@+=,:-]{1,200}(?:/[A-Za-z0-9._@+=,:-]{1,200})*")
"""A path without blanks, control characters, empty names or a slash in front."""


class NotKept(PccpipeError):
    """The session is not kept, so the step's next turn starts cold."""


def read_transcripts(packed: bytes, keeps: HomeFiles, masker: Masker) -> dict[str, bytes]:
    """Return the files of an archive, by their paths below HOME. Raises NotKept, which says why."""
    files: dict[str, bytes] = {}
    wanted = [_regex(pattern) for pattern in keeps.patterns]
    for name, data in _members(_unzipped(packed, keeps.most)):
        if why := _refusal(name, wanted):
            raise NotKept(f"{name[:100]!a} {why}")
        if f"{keeps.folder}/{name}" in files:
            raise NotKept(f"{name[:100]!a} is there twice")
        if len(files) == limits.TRANSCRIPT_FILES.most:
            raise NotKept(limits.TRANSCRIPT_FILES.exceeded("it"))
        if masker.data(data) is not data or masker.text(name) != name:
            raise NotKept("a secret's value is in its transcripts")
        files[f"{keeps.folder}/{name}"] = data
    if sum(map(len, files.values())) > keeps.most:
        raise NotKept(_too_large(keeps.most))
    return files


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a gzipped tar archive of the files."""
    zipper = zlib.compressobj(1, wbits=31)
    packed: list[bytes] = []
    for name, data in files.items():
        packed.append(zipper.compress(tar.head(Entry(name, stat.S_IFREG | 0o600, len(data)))))
        view = memoryview(data)
        packed += [zipper.compress(view[start : start + _PIECE]) for start in range(0, len(data), _PIECE)]
        packed.append(zipper.compress(tar.filler(len(data))))
    return b"".join([*packed, zipper.compress(tar.END), zipper.flush()])


def _unzipped(packed: bytes, most: int) -> bytes:
    """Return the archive, unzipped piece by piece until it exceeds its limit."""
    unzipper = zlib.decompressobj(wbits=31)
    whole = bytearray()
    left = packed
    try:
        while not unzipper.eof:
            piece = unzipper.decompress(left, _PIECE)
            left = unzipper.unconsumed_tail
            if not piece and not left and not unzipper.eof:
                raise NotKept("its archive ends in the middle")
            whole += piece
            if len(whole) > most + limits.TRANSCRIPT_HEADS.most:
                raise NotKept(_too_large(most))
    except zlib.error:
        raise NotKept("its archive is not a gzip file") from None
    return bytes(whole)


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the plain files of an archive. Raises NotKept for anything else in it."""
    at, long_name = 0, b""
    while head := archive[at : at + tar.BLOCK]:
        at += tar.BLOCK
        if not any(head):
            continue  # the end of an archive, and another one may follow
        try:
            size, kind = tar.size_of(head), head[156:157]
        except tar.NotTar:
            raise NotKept("its archive is damaged") from None
        data = archive[at : at + size]
        if len(head) < tar.BLOCK or len(data) < size:
            raise NotKept("its archive ends in the middle")
        at += tar.padded(size)
        if kind == b"L" and size <= tar.LONGEST:
            long_name = data.rstrip(b"\0")
            continue
        name = (long_name or tar.name_of(head)).removeprefix(b"./").decode("utf-8", "surrogateescape")
        long_name = b""
        if kind not in {b"0", b"\0"}:
            raise NotKept(f"{name[:100]!a} is not a plain file")
        yield name, data


def _refusal(name: str, wanted: list[re.Pattern[str]]) -> str:
    """Return why a file is not a transcript; empty if it is one."""
    parts = name.split("/")
    if not _PLAIN.fullmatch(name) or {".", ".."} & {*parts} or len(name) > limits.TRANSCRIPT_NAME.most:
        return "is not a name that transcripts have"
    if any(fnmatch.fnmatchcase(parts[-1].lower(), never) for never in NEVER_KEPT):
        return "has the name of a login or of settings"
    if not any(pattern.fullmatch(name) for pattern in wanted):
        return "is not one of the files that the agent file names"
    return ""


def _regex(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern: `*` matches within a name, `**/` any folders."""
    pieces = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    words = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(pieces.get(word) or re.escape(word) for word in words))


def _too_large(most: int) -> str:
    return replace(limits.TRANSCRIPTS, most=most).exceeded("it")
