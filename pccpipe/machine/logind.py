"""Finds out whether systemd's logind ends what a login leaves, such as the commands of a disconnected run."""

from __future__ import annotations

import shlex

from pccpipe import limits
from pccpipe.errors import PccpipeError
from pccpipe.machine.base import Machine

# The last line of each key counts: a drop-in comes after the file.
_LOOK = """
[ -d /run/systemd/system ] || exit 0
export LC_ALL=C
for pcc_key in KillUserProcesses KillExcludeUsers; do
  pcc_said=$(busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager $pcc_key)
  if [ -n "$pcc_said" ]; then
    echo "$pcc_key $pcc_said"
  else
    cat /etc/systemd/logind.conf /usr/lib/systemd/logind.conf.d/*.conf /etc/systemd/logind.conf.d/*.conf |
      grep "^$pcc_key="
  fi
done 2>/dev/null"""
_DROP_IN = "/etc/systemd/logind.conf.d/pccpipe.conf"


def ends_logins(machine: Machine) -> bool:
    """Ask whether logind ends what the login leaves. Raises `Unavailable`, ConnectionError, TimeoutError."""
    said = machine.run(_LOOK, 15.0).stdout[: limits.MACHINE_WORDS.most].decode(errors="replace").splitlines()
    excluded = {word.strip('"') for line in said if "ExcludeUsers" in line for word in line.replace("=", " ").split()}
    kills = [line.lower() for line in said if "KillUserProcesses" in line][-1:]
    is_on = bool(kills) and kills[0].endswith(("true", "=yes", "=1", "=on"))
    return is_on and machine.facts.user not in {"root", *excluded}


def spare_login(machine: Machine) -> str:
    """Write the command that makes logind spare the run's login. One line: a view would show a newline as an escape."""
    sudo = "" if machine.facts.uid == 0 else "sudo "
    lines = shlex.join(["[Login]", f"KillExcludeUsers=root {machine.facts.user}"])
    reload = f"{sudo}systemctl kill -s HUP systemd-logind"
    return f"printf '%s\\n' {lines} | {sudo}install -D -m 644 /dev/stdin {_DROP_IN} && {reload}"


def blame(machine: Machine) -> str:
    """Say that logind ended a command, with the fix; return "" if it does not do that. Never raises."""
    try:
        if not ends_logins(machine):
            return ""
        user = machine.facts.user
        words = f"logind there ends the processes of {user} at logout (KillUserProcesses=yes)"
        return f"{words}; fix, on {machine.host}: {spare_login(machine)}"
    except (PccpipeError, OSError):
        return ""
