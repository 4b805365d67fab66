"""Works on a machine as the account that runs the code of steps: makes its folders, sweeps its processes."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from pccpipe.detached import programs
from pccpipe.errors import Unavailable
from pccpipe.layout import SystemDir
from pccpipe.machine.account import PATH, Account
from pccpipe.machine.answers import IDS, number
from pccpipe.machine.base import ByteStream, Done, Facts, Machine, Process, cannot_write, is_full
from pccpipe.machine.retry import reconnecting
from pccpipe.machine.script import run_script
from pccpipe.outcome import Reason

_FILES = ("tools.sh", "account.sh")
LEFT, OUT_OF_REACH = 4, 5
"""Exit codes of the script of `prepare`: the sweep left processes; the account cannot reach the folder `.system`."""


Working: TypeAlias = Callable[[], AbstractContextManager[None]]
"""A block in which no sweep kills what pccpipe itself runs as the account."""


class AccountMachine:
    """A `Machine` that does everything as the account, so the login follows nothing that the account's code left."""

    def __init__(self, machine: Machine, account: Account, working: Working = contextlib.nullcontext) -> None:
        self._machine = machine
        self._account = account
        self._working = working

    @property
    def host(self) -> str:
        return self._machine.host

    @property
    def facts(self) -> Facts:
        login, account = self._machine.facts, self._account
        return replace(
            login, uid=account.uid, gid=account.gid, user=account.name, home="/", has_engine=account.has_engine
        )

    def popen(self, command: str) -> Process:
        words = [*self._account.become, "env", "-i", f"PATH={PATH}", "sh", "-c", command]
        with contextlib.ExitStack() as work:
            work.enter_context(self._working())
            process = self._machine.popen(f"cd / && exec {shlex.join(words)}")
            return _AtWork(process, work.pop_all())

    def run(self, script: str, timeout: float = 60.0) -> Done:
        return run_script(self.popen("exec sh"), script, timeout)

    def dial(self, path: str, timeout: float = 10.0) -> ByteStream:
        return self._machine.dial(path, timeout)


class _AtWork:
    """A `Process` that keeps sweeps away until it is closed."""

    def __init__(self, process: Process, work: contextlib.ExitStack) -> None:
        self._work = work
        self.fileno, self.settimeout, self.shutdown_write = process.fileno, process.settimeout, process.shutdown_write
        self.recv, self.recv_stderr, self.sendall = process.recv, process.recv_stderr, process.sendall
        self.ready, self.wait = process.ready, process.wait
        self._close = process.close

    def close(self) -> None:
        try:
            self._close()
        finally:
            self._work.close()


def prepare(
    machine: Machine,
    name: str,
    root: str,
    run_id: str,
    shared_home: tuple[str, ...] = (),
    *,
    is_new: bool = False,
    has_copies: bool = False,
) -> Account:
    """Make a run's folders for the account `name`; with `is_new`, sweep that first.

    With `has_copies`, also make the folder for the copies of steps with workspaces of their own.

    Raises `Unavailable`, also if the login cannot become the account.
    """
    login = machine.facts
    call = "pcc_prepare new" if is_new else "pcc_prepare"
    call = f"pcc_copies={'1' if has_copies else ''}\n{call}"
    script = f"pcc_engine_socket={shlex.quote(login.engine_socket)}\n{_script(name, login.uid, root, run_id, call)}"
    done = reconnecting(machine, lambda: machine.run(script))
    if done.code == LEFT:
        raise processes_left(machine.host, name, done.stdout.decode(errors="replace").strip())
    if done.code == OUT_OF_REACH:
        words = f"{machine.host}: {name} cannot reach the folder {SystemDir.on_vm(root).path}"
        raise Unavailable(
            Reason.START_REFUSED, words, f"on the VM: chmod o+x {shlex.quote(root)}, and each folder above it"
        )
    words = done.stderr.decode(errors="replace").strip()
    try:
        uid, gid, engine = done.stdout.decode(errors="replace").split()
        system = SystemDir.on_vm(root)
        return Account(
            name=name,
            uid=number(machine.host, "uid", uid, IDS),
            gid=number(machine.host, "gid", gid, IDS),
            login_uid=login.uid,
            has_engine=engine == "0",
            workspace=system.workspace(run_id, of_account=True),
            io=system.account_files(run_id),
            shared_home=shared_home,
        )
    except ValueError:
        if is_full(words):
            raise cannot_write(machine.host, words) from None
        hint = f"`pccpipe provision` makes the account; the rule for sudo is: {login.user} ALL=({name}) NOPASSWD: ALL"
        words = f"{machine.host}: {login.user} cannot run commands as {name}: {words or 'no answer'}"
        raise Unavailable(Reason.START_REFUSED, words, hint) from None


def processes_left(host: str, name: str, names: str) -> Unavailable:
    """Make the error for processes of the account that a sweep could not kill."""
    # A process that kills the sweep, or has a new number at each look, has no name here.
    words = f"{host}: processes of {name} cannot be killed: {names or 'they kill the process that sweeps them'}"
    return Unavailable(Reason.PROCESSES_LEFT, words, f"as root on the VM: pkill -KILL -u {name}")


def leave(machine: Machine, account: Account, root: str, run_id: str) -> bool:
    """Sweep the account, and close the run's folders to it; return whether no process is left.

    Raises `Unavailable`, ConnectionError, TimeoutError.
    """
    return machine.run(_script(account.name, account.login_uid, root, run_id, "pcc_leave")).code == 0


def remove(machine: Machine, name: str, root: str, run_id: str) -> None:
    """Remove what an earlier run of this name left in the account's folders. Raises as `leave` does."""
    machine.run(_script(name, machine.facts.uid, root, run_id, "pcc_remove"))


class Processes(Struct, frozen=True):
    """The account's processes outside of containers, in words such as `2 processes (sleep, sh)`; "" for none.

    `after` names those that a sweep left.
    """

    before: str
    after: str = ""


def processes(machine: Machine, name: str, root: str, *, kill: bool) -> Processes:
    """Name the account's processes outside containers; with `kill`, also kill them. Raises `Unavailable`."""
    call = f"pcc_spared='[0-9a-f]{{64}}'\npcc_report {'kill' if kill else ''}"
    done = reconnecting(machine, lambda: machine.run(_script(name, machine.facts.uid, root, "", call)))
    if done.code:
        words = done.stderr.decode(errors="replace").strip() or f"exit status {done.code}"
        raise Unavailable(Reason.START_REFUSED, f"{machine.host}: cannot list the processes of {name}: {words}")
    before, after, *_ = [*done.stdout.decode(errors="replace").splitlines(), "", ""]
    return Processes(_counted(before), _counted(after))


def _counted(line: str) -> str:
    count, _, names = line.partition(" ")
    if not count.isascii() or not count.isdecimal() or count == "0":
        return ""
    return f"{count} process{'' if count == '1' else 'es'} ({', '.join(dict.fromkeys(names.split()))})"


def _script(name: str, login_uid: int, root: str, run_id: str, call: str) -> str:
    system = SystemDir.on_vm(root)
    values = {
        "pcc_system": system.path,
        "pcc_run_id": run_id,
        "pcc_state": system.state(run_id),
        "pcc_account": name,
        "pcc_login": str(login_uid),
        "pcc_spared": "",
    }
    return programs.script_of(_FILES, values, call)
