"""Reads what a command left on a VM or in a container: its files, and the name of its signal."""

from __future__ import annotations

from pccpipe.detached import programs
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Nonsense, ResultError, ResultMissing
from pccpipe.machine.base import Machine
from pccpipe.machine.retry import retrying

TRUNCATED = b"pccpipe: the rest of the output is missing: it could not be kept there (is the disk full?)\n"
"""The last words of a command's stderr if its machine could not keep all of its output."""
_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG"
    " XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_SIGNALS = dict(enumerate(_NAMES.split(" "), start=1))
"""The numbers of Linux on x86, ARM and most others (signal(7))."""


def fetch_file(machine: Machine, run_dir: RunDir, command_id: str, name: str, limit: int, lost_after: float) -> bytes:
    """Fetch a plain file of the command's PCC_OUT, and retry while the machine is unreachable.

    Raises `ResultError` as `Running.fetch` does, `Lost` after `lost_after` seconds without an answer.
    """
    script = programs.fetch(run_dir, command_id, name, limit)
    try:
        done = retrying(
            lambda: machine.run(script), lost_after, may_retry=lambda error: not isinstance(error, Nonsense)
        )
    except Nonsense as error:
        raise ResultError(f"cannot read the command's files: {error.words}") from error
    match done.code:
        case 0 if len(done.stdout) > limit:
            raise ResultError(f"{name} has more than {limit} bytes")
        case 0:
            return done.stdout
        case 3:
            raise ResultMissing(f"{name} is missing: the command left no such file in PCC_OUT")
        case 4:
            raise ResultError(f"{name} in PCC_OUT is not a plain file")
        case _:
            raise ResultError(f"{name} cannot be read: {done.stderr.decode(errors='replace').strip()}")


def signal_name(code: int) -> str | None:
    """Return the signal of Linux that an exit code means by the shell's convention: `KILL` for 137.

    Commands on a VM and in containers run on Linux, whatever numbers the signals have on this machine.
    """
    return _SIGNALS.get(code - 128)
