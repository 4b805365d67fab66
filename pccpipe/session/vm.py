"""The project's VM as one run has it: one connection, the lease, the run's folders, and a clean beginning."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import TYPE_CHECKING

from pccpipe.errors import PccpipeError, VmBusy
from pccpipe.layout import COPIES, IO, KEPT, STATES, WORKSPACES, SystemDir
from pccpipe.machine.gate import Gate
from pccpipe.machine.retry import UNREACHABLE, reconnecting
from pccpipe.record import fence
from pccpipe.spec.project_model import Vm

if TYPE_CHECKING:
    from pccpipe.machine.account import Account
    from pccpipe.machine.base import ListeningMachine, Machine
    from pccpipe.machine.lease import Lease
    from pccpipe.ssh.connection import Connection


_LOGINS = futures.ThreadPoolExecutor(max_workers=4, thread_name_prefix="pccpipe-login")
"""Logs in for all runs of the process. A run that needs the VM before its turn logs in by itself."""


class ProjectVm:
    """Safe from many threads.

    Args:
        resumes: whether this process goes on with the run of another one.
        is_over: whether a run, by its id, has ended: what such a one left on the VM is removed.
        has_only_copy: whether the VM has changes of such a run that were not brought back: they are not.
        has_copies: whether steps of the run have workspaces of their own.
    """

    def __init__(
        self,
        vm: Vm,
        run_id: str,
        *,
        resumes: bool,
        accept_new_host_key: bool,
        is_over: Callable[[str], bool],
        has_only_copy: Callable[[str], bool],
        has_copies: bool = False,
    ) -> None:
        self.root = vm.root
        system = SystemDir.on_vm(vm.root)
        self.folder = system.workspace(run_id)
        """The folder for the run's copy of the code. The login owns it."""
        self.workspace = system.workspace(run_id, of_account=bool(vm.run_as))
        """The run's copy of the code."""
        self.copies = system.copies(run_id, of_account=bool(vm.run_as))
        """The folder for the copies of steps with a workspace of their own."""
        self.state = system.state(run_id)
        """The files of its commands."""
        self.gate = Gate(system.path)
        """The gate through which the run begins commands."""
        self._vm = vm
        self._run_id = run_id
        self._resumes = resumes
        self._accept_new = accept_new_host_key
        self._is_over = is_over
        self._has_only_copy = has_only_copy
        self._has_copies = has_copies
        self._lock = threading.Lock()
        self._ssh: Connection | None = None
        self._lease: Lease | None = None
        self._account: Account | None = None
        self._login: futures.Future[None] | None = None
        self._was_reached = False
        self._wait_until = 0.0
        self._give_up: Callable[[], bool] = lambda: True
        self._on_wait: Callable[[str], None] = lambda _: None
        self._on_kept: Callable[[str], None] = lambda _: None

    @property
    def connection(self) -> Machine:
        """The run's one connection; it connects on first use."""
        with self._lock:
            return self._connected()

    @property
    def listening_machine(self) -> ListeningMachine:
        """The same connection, for programs on the VM that connect to this process."""
        with self._lock:
            return self._connected()

    @property
    def account(self) -> Account | None:
        """The account that the workspace's code runs as, if not the login. Known once the VM was claimed."""
        return self._account

    @property
    def runs_as_account(self) -> bool:
        """True if commands run as an account of their own."""
        return self._vm.run_as is not None

    @property
    def had(self) -> bool:
        """True if this process reached the VM, even if another run has it."""
        return self._was_reached

    @property
    def fenced(self) -> str | None:
        """A sentence that names the run that took over the VM: this one does nothing there any more."""
        return self._lease.lost if self._lease else None

    def connect_early(self) -> None:
        """Begin to log in, while the caller goes on. A step that asks for the VM reports a failure."""
        self._login = _LOGINS.submit(self._log_in)

    def warn(self, on_kept: Callable[[str], None]) -> None:
        """Set the function that gets a sentence when a folder of an earlier run is kept."""
        self._on_kept = on_kept

    def queue(self, wait: float, give_up: Callable[[], bool], on_wait: Callable[[str], None]) -> None:
        """Set how long, from now on, each `claim` waits for another run's end. Arguments as for `Lease.acquire`."""
        self._wait_until = time.monotonic() + wait
        self._give_up, self._on_wait = give_up, on_wait

    def claim(self) -> Machine:
        """Claim the VM for this run alone, until `close`; return its connection. Waits as `queue` says.

        Raises `VmBusy`; `Unavailable`, as `Fenced` when another run took the VM over meanwhile.
        """
        self._await_login()
        with self._lock:
            if self._lease is None:
                self._lease = self._acquired()
            self._lease.check()
            return self._connected()

    def interrupt(self) -> None:
        """End an attempt to connect that is under way. From any thread, at once."""
        # Without the lock: the thread that connects holds it.
        if self._ssh:
            self._ssh.interrupt()

    def gives_sign(self) -> bool:
        """Ask the VM for a sign of life, wait some seconds for it, and return whether it came."""
        # Without the lock: a thread that waits for an absent VM holds it.
        return self._ssh is not None and self._ssh.gives_sign()

    def make_sure(self) -> None:
        """Find out whether the run still has the VM, if that may have changed. Never raises."""
        with self._lock, contextlib.suppress(*UNREACHABLE):
            if self._lease:
                self._lease.check()

    def leave(self) -> None:
        """Disconnect, and let the lease go stale: a process that resumes the run soon still has the VM."""
        self._await_login()
        with self._lock:
            if self._lease is not None:
                self._lease.keep()
            if self._ssh:
                self._ssh.close()

    def close(self) -> None:
        """Release the VM. Idempotent; never raises."""
        self._await_login()
        with self._lock:
            if self._lease is not None:
                self._close_account(self._lease)
                # If it is empty, it was made only for commands to begin in. The next run would have to look at it.
                self._lease.release(self.folder)
            if self._ssh:
                self._ssh.close()

    def _close_account(self, lease: Lease) -> None:
        """Sweep the account, and close the kept files to it. Do nothing on a VM that another run took over."""
        if self._account is None or lease.lost:
            return
        from pccpipe.detached import as_account

        # `gc` does the rest.
        with contextlib.suppress(*UNREACHABLE):
            as_account.leave(self._connected(), self._account, self.root, self._run_id)

    def _connected(self) -> Connection:
        if self._ssh is None:
            from pccpipe.ssh.connection import Connection

            self._ssh = Connection(self._vm, accept_new_host_key=self._accept_new)
        return self._ssh

    def _await_login(self) -> None:
        if self._login and not self._login.cancel():
            futures.wait([self._login])

    def _log_in(self) -> None:
        with contextlib.suppress(*UNREACHABLE):
            _ = self.connection.facts

    def _acquired(self) -> Lease:
        from pccpipe.machine.lease import Lease

        holder = f"{socket.gethostname()} pid {os.getpid()}"
        lease = Lease(
            self._connected(),
            self.root,
            self._run_id,
            holder=holder,
            resumes=self._resumes,
            on_lost=self._connected().fence,
            gate=self.gate,
            in_line_for=f"{self._vm.external_ip}:{self._vm.port} {self.root}",
        )
        try:
            lease.acquire(max(0.0, self._wait_until - time.monotonic()), self._give_up, self._waits_for)
        except VmBusy:
            self._was_reached = True
            raise
        self._was_reached = True
        self._connected().begin_with(lease.hello, self.gate.guard)
        try:
            self._clear()
            if self._vm.run_as:
                from pccpipe.detached import as_account

                machine, shared = self._connected(), self._vm.shared_home
                self._account = as_account.prepare(
                    machine,
                    self._vm.run_as,
                    self.root,
                    self._run_id,
                    shared,
                    is_new=not self._resumes,
                    has_copies=self._has_copies,
                )
        except BaseException:
            lease.release()
            raise
        return lease

    def _waits_for(self, words: str) -> None:
        self._was_reached = True
        self._on_wait(words)

    def _clear(self) -> None:
        """Clean the VM: files of an earlier run with this id must not look like this run's."""
        from pccpipe.detached import programs

        machine = self._connected()
        # The project's folder may be a git repository: a step's git must not find it.
        listing = f"pcc_fence .; ls -1 {WORKSPACES} {COPIES} {STATES} {IO}"
        listing = f"{fence.SCRIPT}cd {shlex.quote(SystemDir.on_vm(self.root).path)} && {{ {listing}; }} 2>/dev/null; :"
        done = reconnecting(machine, lambda: machine.run(listing))
        there = set(done.stdout.decode(errors="replace").split())
        if self._run_id in there and not self._resumes:
            from pccpipe.targets.container import ContainerTarget

            containers = ContainerTarget(machine, self._run_id, self.state, lambda: self.workspace)
            containers.take_over()
            containers.close()
            end = programs.end_run(programs.RunDir(self._run_id, self.state))
            reconnecting(machine, lambda: machine.run(end))
            copies = SystemDir.on_vm(self.root).copies(self._run_id)
            for folder in (self.folder, copies):
                self._keep_aside(machine, folder)
            if self._vm.run_as:
                self._remove_of_account(self._vm.run_as)
            reconnecting(machine, lambda: machine.run(f"{end}\nrm -rf {shlex.join([self.folder, copies])}"))
        if any(self._is_over(other) for other in there - {self._run_id}):
            # In the background: the run does not wait for it.
            threading.Thread(target=self._collect, name="pccpipe-leftovers", daemon=True).start()

    def _keep_aside(self, machine: Machine, folder: str) -> None:
        """Move away the workspaces of an earlier run with this id: an agent's only copy may be in them."""
        kept = f"{self.folder.rpartition('/')[0]}/{self._run_id[:50]}{KEPT}{secrets.token_hex(3)}"
        old, new = shlex.quote(folder), shlex.quote(kept)
        # A folder that cannot be read may hold anything.
        script = f"""[ -d {old} ] && [ ! -L {old} ] || exit 0
            [ -n "$(find {old} -type f -print -quit 2>&1)" ] || exit 0
            mv -- {old} {new} && echo kept"""
        done = reconnecting(machine, lambda: machine.run(script))
        if done.stdout.strip() == b"kept":
            words = f"an earlier run with this id left its workspace on the VM; it is now {kept}"
            self._on_kept(f"{words}, and `pccpipe gc --discard {kept.rpartition('/')[2]}` removes it")

    def _remove_of_account(self, name: str) -> None:
        from pccpipe.detached import as_account

        reconnecting(self._connected(), lambda: as_account.remove(self._connected(), name, self.root, self._run_id))

    def _collect(self) -> None:
        from pccpipe.docker_api.engine import DockerEngine
        from pccpipe.gc import collect_over

        machine = self._connected()
        # `gc` removes the rest, or says why it cannot.
        with contextlib.suppress(PccpipeError, OSError):
            collect_over(
                machine,
                DockerEngine(machine),
                self.root,
                self._is_over,
                self._vm.run_as,
                self._has_only_copy,
            )
