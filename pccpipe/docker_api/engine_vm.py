"""Detects an engine's VM, as on every Mac, that does not share the run's folders or the proxy's socket.

Such a VM shares some folders of the machine, and no Unix sockets in them. So a container checks that before its command
begins. Only the image's shell and the relay have run by then.
"""

from __future__ import annotations

from pccpipe.docker_api import relay
from pccpipe.docker_api.settings import IN, PROXY, WORKSPACE
from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason

NOT_SHARED, NO_SOCKETS = 119, 120
"""Exit codes before the command begins: the VM does not share a folder; it does not share the proxy's socket."""
_SHARE = (
    "keep records and workspace in a folder that the engine's VM shares, such as one below $HOME (--runs-dir, "
    "--workspace), or share theirs in the engine's settings"
)
_ANOTHER_WAY = (
    "give the project a VM (`isolation_mode: vm`), or the secret `via: direct`, which hands its value to the command"
)
# Engines' words for a mount of a folder that they do not see.
_UNSEEN = ("bind source path does not exist", "mounts denied", "is not shared from the host")


def lines(script: str, *, is_proxied: bool, has_files: bool) -> list[str]:
    """Return shell lines that check, in the container, for the host's files and socket.

    Args:
        script: the name of a file that is always in the folder of the command's files.
        has_files: whether the workspace has files on this machine.
    """
    looks = [f"[ -e {IN}/{script} ] || exit {NOT_SHARED}"]
    if has_files:
        # A workspace that it may not read is there.
        anything = f"{WORKSPACE}/* {WORKSPACE}/.[!.]* {WORKSPACE}/..?*"
        looks += [
            f"pcc_seen=; for pcc_file in {anything}; do",
            '  [ -e "$pcc_file" ] || [ -L "$pcc_file" ] && pcc_seen=1',
            "done",
            f'[ "$pcc_seen" ] || [ ! -r {WORKSPACE} ] || exit {NOT_SHARED}; unset pcc_seen pcc_file',
        ]
    if is_proxied:
        # Only status 3 counts: a relay that cannot start, as memory is short, is not a reason for another place.
        connect = f"(cd / && exec $pcc_relay {relay.AT}) </dev/null >/dev/null 2>&1"
        looks += [*relay.choose(), f'[ -z "$pcc_relay" ] || {connect}; [ $? -ne 3 ] || exit {NO_SOCKETS}']
    return looks


def why(code: int | None, workspace: str, files: str) -> Unavailable | None:
    """Return why a command never began, if its container's exit code is one of these."""
    if code == NO_SOCKETS:
        words = f"the engine of this machine runs in a VM of its own, which does not share the proxy's socket ({PROXY})"
        return Unavailable(Reason.PROXY_REFUSED, words, _ANOTHER_WAY)
    return _not_shared(f"{files} and {workspace}") if code == NOT_SHARED else None


def why_refused(words: str) -> Unavailable | None:
    """Return the same for an engine that refused to make the container, by its words."""
    return _not_shared(words) if any(each in words.lower() for each in _UNSEEN) else None


def _not_shared(words: str) -> Unavailable:
    words = (
        f"the engine of this machine runs in a VM of its own, which does not see all folders of this machine: {words}"
    )
    return Unavailable(Reason.WORKSPACE_REFUSED, words, _SHARE)
