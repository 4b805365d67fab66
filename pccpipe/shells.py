"""The programs that run scripts: `shell:` as people write it."""

from __future__ import annotations

_DIALECTS = {"sh": "sh", "dash": "sh", "bash": "bash"}


def program_of(shell: str) -> str:
    """Return the name of a shell's program: `python3` of `/usr/bin/python3 -u`."""
    return shell.split(" ", 1)[0].rpartition("/")[2]


def dialect_of(shell: str) -> str:
    """Return the language of a shell's scripts, `sh` or `bash`; empty for another interpreter's."""
    return _DIALECTS.get(program_of(shell), "")
