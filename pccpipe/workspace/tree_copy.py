"""Copies a workspace on its machine, for a step that has one of its own."""

from __future__ import annotations

import secrets
import shlex
from pathlib import PurePosixPath

from pccpipe.errors import ActionError
from pccpipe.machine.base import Machine, cannot_write, is_full
from pccpipe.machine.entering import check_entered, enter

MOST_TIME = 6 * 3600.0
"""Seconds that a copy may take; a step's own time limit ends it earlier."""
FAILED = 94
"""Exit code of the script if cp failed."""

# `cp -a` follows no link, and keeps modes, times, hard links and FIFOs. It leaves out a file that vanishes meanwhile.
# Without a reader of the dots, the connection is gone or the copy was halted: then cp ends too.
_SCRIPT = """
pcc_clear() {
  rm -rf -- "$pcc_to/$pcc_name" "$pcc_to/.$pcc_name".* 2>/dev/null && return
  chmod -R u+rwX -- "$pcc_to/$pcc_name" "$pcc_to/.$pcc_name".* 2>/dev/null
  rm -rf -- "$pcc_to/$pcc_name" "$pcc_to/.$pcc_name".*
}
pcc_copy() { # prints what cp says, and the mark with its exit code
  cp -a $pcc_how . "$pcc_new" 2>&1 >/dev/null 3>&- 4>&- &
  pcc_cp=$!
  {
    trap '' PIPE
    while sleep 1 4>&-; do
      printf . >&4 || { kill $pcc_cp; exit; }
    done
  } >/dev/null 2>&1 3>&- &
  pcc_dots=$!
  wait $pcc_cp
  echo "$pcc_mark $?" >&3
  kill $pcc_dots
}
pcc_how= pcc_new=$pcc_to/.$pcc_name.$pcc_mark
cp --reflink=auto --version >/dev/null 2>&1 && pcc_how=--reflink=auto
pcc_clear || exit
# Another step may be removing the folder above at this moment.
mkdir -p -- "$pcc_new" 2>/dev/null || mkdir -p -- "$pcc_new" || exit
exec 4>&1
pcc_said=$({ pcc_copy | grep -v ': No such file or directory$' | { head -n 20; cat >/dev/null; }; } 3>&1)
case $pcc_said in
*"$pcc_mark 0"* | "$pcc_mark 1") mv -- "$pcc_new" "$pcc_to/$pcc_name" && exit ;;
esac
printf '%s\\n' "$pcc_said" | grep -v "^$pcc_mark " | head -n 5 >&2
pcc_clear
"""


def copy_tree(machine: Machine, source: str, target: str) -> None:
    """Make `target` a copy of the folder `source` on the machine; replace what an earlier try left there.

    Raises `Unavailable` for a full disk, ActionError with the words of cp, WorkspaceGone, ConnectionError.
    """
    folder = PurePosixPath(target)
    values = {"pcc_to": str(folder.parent), "pcc_name": folder.name, "pcc_mark": secrets.token_hex(8)}
    settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    done = machine.run(f"export LC_ALL=C\n{enter(source)}{settings}{_SCRIPT}\nexit {FAILED}\n", MOST_TIME)
    check_entered(machine.host, source, done.code)
    if done.code:
        words = done.stderr.decode("utf-8", "replace").strip() or "cp was ended"
        if is_full(words):
            raise cannot_write(machine.host, words)
        raise ActionError(f"{machine.host}: the workspace cannot be copied: {words}")
