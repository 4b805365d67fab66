"""Hashes the login's start-up files: a program that writes one decides what a shell or sshd does next."""

from __future__ import annotations

from collections.abc import Mapping

from pccpipe.errors import Unavailable
from pccpipe.machine.base import Machine
from pccpipe.machine.retry import reconnecting
from pccpipe.outcome import Reason

FILES = (
    *(".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile", ".kshrc", ".inputrc"),
    *(".zshenv", ".zprofile", ".zshrc", ".zlogin", ".config/fish/config.fish"),
    *(".ssh/rc", ".ssh/environment", ".ssh/authorized_keys", ".ssh/authorized_keys2", ".pam_environment"),
    *(".docker/config.json", ".gitconfig"),
)
CRONTAB = "crontab"
UNITS = ".config/systemd/user"
"""Names of things that are not start-up files: the user's crontab, and the folder of its systemd units."""
TIMEOUT = 30.0

# One line each: NAME HASH. An endless file or a FIFO must not hold the script up.
_SCRIPT = """
export LC_ALL=C
pcc_sum() { # NAME
  if [ -L "$1" ]; then echo "$1 link:$(readlink -- "$1" | sha256sum | cut -c 1-64)$(pcc_hash "$1")"
  elif [ -e "$1" ]; then echo "$1 $(pcc_hash "$1")"
  else echo "$1 -"
  fi
}
pcc_hash() { # FILE
  [ -f "$1" ] || { echo other; return; }
  [ -r "$1" ] || { echo unreadable; return; }
  timeout 5 sha256sum <"$1" | cut -c 1-64 | grep . || echo endless
}
cd || exit
for pcc_name in %(files)s; do pcc_sum "$pcc_name"; done
pcc_table=$(timeout 5 crontab -l 2>/dev/null | grep -v '^#' | sha256sum | cut -c 1-64)
[ "$pcc_table" = %(empty)s ] && pcc_table=-
echo "%(crontab)s $pcc_table"
pcc_list=$(timeout 5 find -P %(units)s ! -type d -printf '%%P %%l\\n' -type f -exec sha256sum {} + 2>/dev/null |
  head -c 1000000 | sort | sha256sum | cut -c 1-64)
[ "$pcc_list" = %(empty)s ] && pcc_list=-
echo "%(units)s $pcc_list"
"""
_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def startup_files(machine: Machine) -> Mapping[str, str]:
    """Return the hash of each file, by name; "" for an absent one. Raises `Unavailable`."""
    script = _SCRIPT % {"files": " ".join(FILES), "crontab": CRONTAB, "units": UNITS, "empty": _EMPTY}
    done = reconnecting(machine, lambda: machine.run(script, TIMEOUT))
    found = dict(line.partition(" ")[::2] for line in done.stdout.decode(errors="replace").splitlines())
    wanted = (*FILES, CRONTAB, UNITS)
    if done.code or not set(wanted) <= set(found):
        words = done.stderr.decode(errors="replace").strip() or f"exit status {done.code}"
        raise Unavailable(Reason.SSH_SESSION_REFUSED, f"{machine.host}: the start-up files cannot be read: {words}")
    return {name: "" if found[name] == "-" else found[name] for name in wanted}


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Name the files that changed, in words. It ignores names that are not in `before`."""
    names = [name for name in now if before.get(name, now[name]) != now[name]]
    return [f"{_shown(name)} {_how(before[name], now[name])}" for name in names]


def _shown(name: str) -> str:
    return "the crontab" if name == CRONTAB else f"~/{name}"


def _how(before: str, now: str) -> str:
    if not before:
        return "is new"
    return "was changed" if now else "was removed"
