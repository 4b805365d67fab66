"""What is asked of a command that has ended, wherever it ran: the files that it left, and the name of its signal."""

from __future__ import annotations

import signal

from pccpipe.errors import Nonsense, ResultError, Unavailable
from pccpipe.shell import programs
from pccpipe.shell.programs import Place
from pccpipe.shell.retry import Retry
from pccpipe.targets.machine import Done, Machine


def fetch_file(machine: Machine, place: Place, command_id: str, name: str, limit: int, lost_after: float) -> bytes:
    """A plain file of the command's PCC_OUT; asked for again while the machine is away.

    Raises `ResultError` as `Running.fetch` does, `Lost` when the machine stays away for `lost_after` seconds.
    """
    done = _run(machine, programs.fetch(place, command_id, name, limit), lost_after)
    match done.code:
        case 0 if len(done.stdout) > limit:
            raise ResultError(f"{name} has more than {limit} bytes")
        case 0:
            return done.stdout
        case 3:
            raise ResultError(f"{name} is missing: the command left no such file in PCC_OUT")
        case 4:
            raise ResultError(f"{name} in PCC_OUT is no plain file")
        case _:
            raise ResultError(f"{name} cannot be read: {done.stderr.decode(errors='replace').strip()}")


def signal_name(code: int) -> str | None:
    """`KILL` for 137: which signal an exit code stands for, in the shell's convention."""
    try:
        return signal.Signals(code - 128).name.removeprefix("SIG")
    except ValueError:
        return None


def _run(machine: Machine, script: str, lost_after: float) -> Done:
    retry = Retry(lost_after)
    while True:
        retry.wait(lost_after)
        try:
            return machine.run(script)
        except Nonsense as error:
            raise ResultError(f"what the command left cannot be read: {error.words}") from error
        except (Unavailable, ConnectionError, TimeoutError) as error:
            retry.failed(error)
