"""`PATH` under `env:`: the entry `$PATH` stands for what it extends, and a relative entry is below the workspace."""

from __future__ import annotations

import posixpath
import re
import shlex

INHERITED = ("$PATH", "${PATH}")
"""The entry that stands for the PATH of the next outer `env:`, and in the end of the place where the command runs."""
_INHERITED = re.compile(r"(?:(?<=:)|\A)(?:\$PATH|\$\{PATH\})(?=:|\Z)")


AGENT_PATH = "a file there could replace the program that gets the model"


def extended(outer: str, inner: str) -> str:
    """Return the PATH `inner` with `outer` in place of its first entry `$PATH`."""
    return _INHERITED.sub(lambda _: outer, inner, count=1)


def relative_entries(path: str) -> list[str]:
    """Return the entries of a PATH that are below the workspace."""
    return [entry for entry in path.split(":") if entry and not entry.startswith("/") and entry not in INHERITED]


def reaches_workspace(path: str) -> bool:
    """Say whether a program in a folder of the workspace could replace one that is looked up by its name."""
    absolute = (posixpath.normpath("/" + entry.lstrip("/")) + "/" for entry in path.split(":") if entry[:1] == "/")
    # A process finds its current folder below /proc.
    return bool(relative_entries(path)) or any(entry.startswith(("/workspace/", "/proc/")) for entry in absolute)


def entries(path: str, workspace: str) -> list[str]:
    """Return the entries of a PATH, absolute; an empty one, which would mean any current folder, is left out."""
    found = (entry if entry in INHERITED else posixpath.join(workspace, entry) for entry in path.split(":") if entry)
    return [entry if entry in INHERITED else posixpath.normpath(entry) for entry in found]


def resolved(path: str, workspace: str, inherited: str) -> str:
    """Return a PATH as its command gets it, at a place whose own PATH is `inherited`."""
    return ":".join(inherited if entry in INHERITED else entry for entry in entries(path, workspace))


def as_shell_word(path: str, workspace: str, default: str) -> str:
    """Write a PATH as a word of sh, which reads the place's own PATH, or takes `default` if that is empty."""
    own = f'"${{PATH:-{default}}}"'
    return ":".join(own if entry in INHERITED else shlex.quote(entry) for entry in entries(path, workspace)) or "''"
