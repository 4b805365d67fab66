"""Writes the shell lines that fill a container's HOME before its command, and pack files of it afterwards."""

from __future__ import annotations

import binascii
import shlex
from collections.abc import Iterator

from pccpipe import limits
from pccpipe.docker_api.settings import HOME, OUT
from pccpipe.target import NEVER_KEPT, PACKED, HomeFiles

NOT_UNPACKED = "pccpipe: the session's files could not be unpacked into HOME, so the session starts cold"
_END = "PCC_PACKED"
"""The end of the archive: base64 has no underscore."""
_PIECE = 48 << 10
"""Bytes of a line; a multiple of 3, so that only the last line has padding."""


def unpack(archive: bytes, folder: str) -> Iterator[str]:
    """Yield lines that unpack `archive` into HOME; without the tools or the room for it, the session starts cold."""
    # Bash keeps a long here-document in a file below TMPDIR.
    yield f"(TMPDIR={HOME}; base64 -d <<'{_END}' | gzip -dc | tar -xf - -C {HOME}) 2>/dev/null || pcc_cold=1"
    for start in range(0, len(archive), _PIECE):
        yield binascii.b2a_base64(archive[start : start + _PIECE], newline=False).decode()
    yield _END
    cold = f"rm -rf {shlex.quote(f'{HOME}/{folder}')}; export PCC_SESSION=; echo {shlex.quote(NOT_UNPACKED)} >&2"
    yield f'[ -z "${{pcc_cold-}}" ] || {{ {cold}; }}; unset pcc_cold'


def run_and_pack(command: str, keeps: HomeFiles) -> list[str]:
    """Return lines that run `command`, then pack the files and exit with its code.

    TERM ends the command; the shell goes on and packs. A second one while it packs does not stop it either.
    """
    tests = " -o ".join(f"-path {shlex.quote(f'./{_loosened(pattern)}')}" for pattern in keeps.patterns)
    never = " ".join(f"! -name {shlex.quote(name)}" for name in NEVER_KEPT)
    wanted = f"find . -type f ! -path '*\n*' {never} -size -{keeps.most + 1}c \\( {tests} \\)"
    # Not every tar reads names from a file. Many names make several archives, one behind the other.
    most = keeps.most + limits.TRANSCRIPT_HEADS.most
    pack = f"{wanted} -exec tar -cf - {{}} + | gzip -1 | head -c {most} >{OUT}/{PACKED}"
    return [
        # The shell would report on stderr which signal ended its child.
        "exec 9>&2 2>/dev/null; trap : TERM",
        f"(exec {command} 2>&9 9>&-)",
        "pcc_code=$?",
        f"PATH=$pcc_own; rm -rf {OUT}/{PACKED}",
        f"cd {shlex.quote(f'{HOME}/{keeps.folder}')} && {pack}",
        "exit $pcc_code",
    ]


def _loosened(pattern: str) -> str:
    """Return a pattern for `find -path`, whose `*` also matches a slash: it matches all that `pattern` does."""
    return pattern.replace("**/", "*").replace("**", "*")
