"""Enters a run's workspace on a machine, and no other folder.

A step may have removed the workspace, or replaced it with a link.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from pccpipe.errors import WorkspaceGone
from pccpipe.layout import COPIES, WORKSPACES

GONE, LINK = 91, 92
"""Exit codes of a script that begins with `enter`."""

# It compares the path after entering the folder, so nothing can change in between. It opens a folder that its owner may
# not enter.
_ENTER = """pcc_enter() { # BASE FOLDER_IN_IT
  cd -P -- "$1" 2>/dev/null || exit $pcc_gone
  pcc_base=$(pwd -P)
  if ! cd -P -- "./$2" 2>/dev/null || [ ! -r . ] || [ ! -w . ]; then
    cd -P -- "$pcc_base" || exit
    [ ! -L "./$2" ] || exit $pcc_link
    [ -d "./$2" ] || exit $pcc_gone
    chmod u+rwx "./$2" 2>/dev/null
    cd -P -- "./$2" || exit
  fi
  [ "$(pwd -P)" = "${pcc_base%/}/$2" ] || exit $pcc_link
}
"""


def enter(folder: str) -> str:
    """Return lines of sh that enter the folder. They end the script if it is gone, or if a link leads to it."""
    base, inner = base_of(folder)
    return f"pcc_gone={GONE} pcc_link={LINK}\n{_ENTER}{shlex.join(['pcc_enter', base, inner])}\n"


def base_of(folder: str) -> tuple[str, str]:
    """Split the path of a workspace: links may be in the first part, and not in the second."""
    parts = PurePosixPath(folder).parts
    # Above the folder of all runs, an operator may use links.
    at = next((parts.index(name) for name in (WORKSPACES, COPIES) if name in parts), len(parts) - 1)
    return str(PurePosixPath(*parts[:at])), str(PurePosixPath(*parts[at:]))


def check_entered(host: str, folder: str, code: int) -> None:
    """Raise WorkspaceGone for the exit code of a script that could not go into the folder."""
    if code == GONE:
        raise gone(host, folder)
    if code == LINK:
        raise replaced(host, folder, "pccpipe does not follow it")


def gone(host: str, folder: str) -> WorkspaceGone:
    return WorkspaceGone(f"{host}: the workspace {folder} is gone: a step removed or moved it", HINT)


def replaced(host: str, folder: str, so: str) -> WorkspaceGone:
    """Make the error for a link that replaced the workspace; `so` says what follows from that."""
    return WorkspaceGone(f"{host}: the workspace {folder} is a symbolic link now: {so}", HINT)


HINT = "a step may change what is in $PCC_WORKSPACE, not the folder itself"
