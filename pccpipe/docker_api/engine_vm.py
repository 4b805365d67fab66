"""An engine in a small VM of its own, as every one on a Mac: what that may lack of this machine's folders and sockets.

Such a VM shares some folders of the machine, not all, and no Unix sockets in them. So a container looks before its
command begins. Nothing but the image's shell, and the relay, has run by then.
"""

from __future__ import annotations

from pccpipe.docker_api import relay
from pccpipe.docker_api.settings import IN, PROXY, WORKSPACE
from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason

NOT_SHARED, NO_SOCKETS = 119, 120
"""Exit codes before the command begins: a folder is not this machine's; the proxy's socket is not."""
_SHARE = (
    "keep records and workspace in a folder that the engine's VM shares, such as one below $HOME (--runs-dir, "
    "--workspace), or share theirs in the engine's settings"
)
_ANOTHER_WAY = (
    "give the project a VM (`isolation_mode: vm`), or the secret `via: direct`, which hands its value to the command"
)
# What engines say to a mount of a folder that they do not see.
_UNSEEN = ("bind source path does not exist", "mounts denied", "is not shared from the host")


def lines(script: str, *, is_proxied: bool, has_files: bool) -> list[str]:
    """Shell lines that look, in the container.

    Args:
        script: the name of a file that is in the folder of the command's files for certain.
        has_files: whether the workspace has any on this machine.
    """
    looks = [f"[ -e {IN}/{script} ] || exit {NOT_SHARED}"]
    if has_files:
        # One that it may not read is there.
        anything = f"{WORKSPACE}/* {WORKSPACE}/.[!.]* {WORKSPACE}/..?*"
        looks += [
            f"pcc_seen=; for pcc_file in {anything}; do",
            '  [ -e "$pcc_file" ] || [ -L "$pcc_file" ] && pcc_seen=1',
            "done",
            f'[ "$pcc_seen" ] || [ ! -r {WORKSPACE} ] || exit {NOT_SHARED}; unset pcc_seen pcc_file',
        ]
    if is_proxied:
        # Any other status is of no use: a relay that cannot start, as memory is short, must lead nowhere else.
        connect = f"(cd / && exec $pcc_relay {relay.AT}) </dev/null >/dev/null 2>&1"
        looks += [*relay.choose(), f'[ -z "$pcc_relay" ] || {connect}; [ $? -ne 3 ] || exit {NO_SOCKETS}']
    return looks


def why(code: int | None, workspace: str, files: str) -> Unavailable | None:
    """Say why a command never began, if its container's exit code is one of these."""
    if code == NO_SOCKETS:
        words = f"the engine of this machine runs in a VM of its own, in which {PROXY} has no socket of this machine's"
        return Unavailable(Reason.PROXY_REFUSED, words, _ANOTHER_WAY)
    return _not_shared(f"{files} and {workspace}") if code == NOT_SHARED else None


def why_refused(words: str) -> Unavailable | None:
    """The same for an engine that refused to make the container, by its words."""
    return _not_shared(words) if any(each in words.lower() for each in _UNSEEN) else None


def _not_shared(words: str) -> Unavailable:
    told = (
        f"the engine of this machine runs in a VM of its own, which does not see all folders of this machine: {words}"
    )
    return Unavailable(Reason.WORKSPACE_REFUSED, told, _SHARE)
