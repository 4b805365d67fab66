"""Checks what sshd allows a login: sessions at a time, and forwarding."""

from __future__ import annotations

import contextlib

from pccpipe.checkup.check import Check, Finding, Fix, ok, skipped, warning, wrong
from pccpipe.checkup.context import CheckContext
from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.ssh.connection import SESSIONS, Connection

FEW = 4
"""With fewer sessions, a run waits for one again and again, and then gives up."""
# The first value of each setting counts. Only root may ask sshd itself.
_SETTINGS = """
{ sudo -n sshd -T || sshd -T || cat /etc/ssh/sshd_config.d/*.conf /etc/ssh/sshd_config; } 2>/dev/null |
  grep -iE '^[[:space:]]*(AllowTcpForwarding|AllowStreamLocalForwarding|DisableForwarding)[[:space:]=]'"""
_FORWARDING = {"AllowStreamLocalForwarding": "yes", "AllowTcpForwarding": "yes", "DisableForwarding": "no"}


def sessions(context: CheckContext) -> Finding:
    """Count the sessions that sshd opens, on a connection of the check's own."""
    assert context.vm is not None
    connection = Connection(context.vm)
    with contextlib.ExitStack() as held:
        held.callback(connection.close)
        opened = 0
        try:
            for _ in range(SESSIONS):
                held.callback(connection.popen("cat").close)
                opened += 1
        except Unavailable as no:
            if no.reason is not Reason.SSH_SESSION_REFUSED or opened == SESSIONS:
                return skipped(f"sessions could not be counted: {no.words}")
    if opened == SESSIONS:
        return ok(f"sshd opens {SESSIONS} sessions at a time")
    words = f"sshd opens {opened} sessions at a time (MaxSessions); a run uses up to {SESSIONS}, so its commands wait"
    fix = _setting(context, "MaxSessions 10")
    if opened < FEW:
        return wrong(f"{words}, and after 20 s a step is unavailable (ssh_session_refused)", fix)
    return warning(f"{words} for each other", fix)


def allow_forwarding(context: CheckContext) -> Fix:
    """Return the fix that makes sshd forward the proxy's sockets, which AllowTcpForwarding can forbid too."""
    found: dict[str, str] = {}
    for line in context.words_of(_SETTINGS).splitlines():
        name, _, value = line.strip().replace("=", " ").partition(" ")
        found.setdefault(name.lower(), value.strip().lower())
    # `local` allows only the other direction.
    allows = {"yes", "all", "remote"}
    off = [
        f"{name} {right}"
        for name, right in _FORWARDING.items()
        if (said := found.get(name.lower())) and (said != "no" if right == "no" else said not in allows)
    ]
    return _setting(context, *(off or [f"{name} {right}" for name, right in _FORWARDING.items() if right == "yes"]))


def _setting(context: CheckContext, *lines: str) -> Fix:
    text = "\\n".join(lines)
    edit = f"{context.sudo}sed -i '1i {text}' /etc/ssh/sshd_config"
    return Fix(f"{edit} && {context.service('reload', 'ssh')}")


CHECKS = [Check("sessions", sessions, ("login",), limit=40)]
