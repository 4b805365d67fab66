"""Goes into a run's workspace on a machine and nowhere else: a step may have removed it, or put a link in its place."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from pccpipe.errors import WorkspaceGone
from pccpipe.layout import WORKSPACES

GONE, LINK = 91, 92
"""Exit codes of a script that begins with `enter`."""

# The question where one is comes after the step, so nothing can come between. A folder that its owner may not enter is
# opened first.
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
    """Give lines of sh that go into the folder; they end the script if it is gone, or is reached through a link."""
    base, inner = base_of(folder)
    return f"pcc_gone={GONE} pcc_link={LINK}\n{_ENTER}{shlex.join(['pcc_enter', base, inner])}\n"


def base_of(folder: str) -> tuple[str, str]:
    """Split a workspace's path: the part that may lead through links, and the part below it that may not."""
    parts = PurePosixPath(folder).parts
    # Above the folder of all runs, an operator may have laid out links as he likes.
    at = parts.index(WORKSPACES) if WORKSPACES in parts else len(parts) - 1
    return str(PurePosixPath(*parts[:at])), str(PurePosixPath(*parts[at:]))


def check_entered(host: str, folder: str, code: int) -> None:
    """Raise WorkspaceGone for the exit code of a script that could not go into the folder."""
    if code == GONE:
        raise gone(host, folder)
    if code == LINK:
        raise replaced(host, folder, "nothing that it leads to is taken")


def gone(host: str, folder: str) -> WorkspaceGone:
    return WorkspaceGone(f"{host}: the workspace {folder} is gone: a step removed or moved it", HINT)


def replaced(host: str, folder: str, so: str) -> WorkspaceGone:
    """Say that a link is in the workspace's place, and what follows from that."""
    return WorkspaceGone(f"{host}: the workspace {folder} is a symbolic link now: {so}", HINT)


HINT = "a step may change what is in $PCC_WORKSPACE, not the folder itself"
