"""The run's one SSH connection to its VM, as a `Machine`. It connects at the first call, and reconnects when lost."""

from __future__ import annotations

import contextlib
import random
import shlex
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, TypeVar, cast

import paramiko

from pccpipe.errors import Fenced, Unavailable
from pccpipe.machine.base import ByteStream, Done, Facts, Listener, Process
from pccpipe.machine.retry import DISCONNECTED
from pccpipe.machine.script import ScriptShell, ShellGone, ask_facts, parse_facts, run_script
from pccpipe.outcome import Reason
from pccpipe.paste import operands
from pccpipe.ssh import entrance
from pccpipe.ssh.channels import ChannelProcess, ChannelStream, open_streamlocal
from pccpipe.ssh.forwards import Forwards
from pccpipe.ssh.login import log_in
from pccpipe.ssh.transport import SSH_ERRORS, Transport

if TYPE_CHECKING:
    from pccpipe.spec.project_model import Vm

SESSIONS = 9
"""Sessions open at once: one below sshd's default MaxSessions, as sshd counts a closed one for a moment."""
OPEN_TIMEOUT = 20.0
"""Seconds to open a session, with all retries."""
SESSION_WAIT = 60.0
"""Seconds to wait for one of the connection's sessions to end, if all are in use."""
FRESH = 0.003
"""Seconds after a script in which its shell gets the next one without a check that it is alive."""
SIGN_TIMEOUT = 5.0
"""Seconds for the answer to that check, and to a ping."""
FAILURE_LASTS = 0.5
"""Seconds in which a failed attempt to connect is also the answer for the threads that wait for it."""

T = TypeVar("T")
S = TypeVar("S", bound=ChannelStream)


class Connection:
    """One VM over one SSH connection; safe from many threads.

    Args:
        vm: how to reach it.
        accept_new_host_key: add an unknown server to known_hosts. It never adds one whose key changed.
    """

    def __init__(self, vm: Vm, *, accept_new_host_key: bool = False) -> None:
        self._vm = vm
        self._accept_new = accept_new_host_key
        self._lock = threading.Lock()
        self._facts_lock = threading.Lock()
        self._facts: Facts | None = None
        self._transports: tuple[Transport, ...] = ()
        self._hello: Callable[[Callable[[str, float], Done]], None] | None = None
        self._guard: Callable[[], str] = lambda: ""
        self._fenced: Fenced | None = None
        self._login: Future[tuple[Transport, ...]] | None = None
        self._failure: Unavailable | None = None
        self._failed_at = 0.0
        self._streams: weakref.WeakSet[ChannelStream] = weakref.WeakSet()
        self._streams_lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(SESSIONS)
        self._kept_lock = threading.Lock()
        self._kept: tuple[ScriptShell, float] | None = None
        """The shell of the last script, and the moment when that ended."""
        self._by_dial_stdio = False
        self._forwards = Forwards(vm.external_ip, self.run)

    @property
    def host(self) -> str:
        return self._vm.external_ip

    @property
    def facts(self) -> Facts:
        # Python 3.11's cached_property has one lock for all connections of the process.
        with self._facts_lock:
            if self._facts is None:
                self._facts = self._ask_facts()
            return self._facts

    def _ask_facts(self) -> Facts:
        done = self.run(ask_facts(self._vm.engine_socket))
        try:
            return parse_facts(done)
        except ValueError as error:
            words = (done.stderr or done.stdout).decode(errors="replace").strip()
            words = f"{self.host} gave no shell: {words or 'no answer'}"
            raise Unavailable(Reason.SSH_SESSION_REFUSED, words) from error

    def popen(self, command: str) -> Process:
        if not self._acquire_session():
            words = f"all {SESSIONS} sessions of the connection to {self.host} were in use for {SESSION_WAIT:g} s"
            raise Unavailable(Reason.SSH_SESSION_REFUSED, words)
        try:
            channel = self._with_transport(self._open_session)
            process = self._remember(ChannelProcess(channel, self._sessions.release))
        except BaseException:
            self._sessions.release()
            raise
        try:
            self._begin(channel, process, f"{self._guard()}{command}")
        except BaseException:
            process.close()
            raise
        return process

    def _begin(self, channel: paramiko.Channel, process: Process, command: str) -> None:
        word = entrance.new_word()
        try:
            channel.exec_command(entrance.behind(word, command).encode(errors="surrogateescape"))
        except SSH_ERRORS as error:
            if not self._is_alive():
                raise ConnectionResetError(f"the SSH connection to {self.host} ended") from error
            raise Unavailable(Reason.SSH_SESSION_REFUSED, f"{self.host} runs no command: {error}") from error
        heard = cast("Transport", channel.transport).heard
        entrance.enter(process, word, self.host, self._vm.user, lambda: heard.quiet_for)

    def run(self, script: str, timeout: float = 60.0) -> Done:
        shell = self._live_shell()
        if shell:
            with contextlib.suppress(ShellGone):
                return self._run_in(shell, script, timeout)
        return self._run_in(ScriptShell(self.popen("exec sh")), script, timeout)

    def dial(self, path: str, timeout: float = 10.0) -> ByteStream:
        if self._by_dial_stdio:
            return self.popen(_dial_stdio(path))
        try:
            return self._dial_directly(path, timeout)
        except paramiko.ChannelException as error:
            return self._dial_otherwise(path, timeout, error)
        except TimeoutError as error:
            raise Unavailable(Reason.ENGINE_NOT_ANSWERING, f"connect to {path} on {self.host}: {error}") from error

    def _dial_directly(self, path: str, timeout: float) -> ByteStream:
        channel = self._with_transport(lambda transport: open_streamlocal(transport, path, timeout))
        return self._remember(ChannelStream(channel))

    def _remember(self, stream: S) -> S:
        """Remember a stream for `close`: the pool of the engine's client, for one, does not close its own."""
        with self._streams_lock:
            self._streams.add(stream)
        return stream

    def serve_socket(self, path: str, accept: Callable[[ByteStream], None], *, open_to_all: bool = False) -> Listener:
        return self._with_transport(lambda transport: self._forwards.add_socket(transport, path, accept, open_to_all))

    def serve_port(self, port: int, accept: Callable[[ByteStream], None]) -> Listener:
        return self._with_transport(lambda transport: self._forwards.add_port(transport, port, accept))

    def _run_in(self, shell: ScriptShell, script: str, timeout: float) -> Done:
        try:
            done = shell.run(f"{self._guard()}{script}", timeout)
        except BaseException:
            shell.close()
            raise
        with self._kept_lock:
            if not shell.has_ended and not self._kept:
                self._kept = shell, time.monotonic()
                return done
        shell.close()
        return done

    def _live_shell(self) -> ScriptShell | None:
        """Return the kept shell if it answers: a new one takes the script if the connection was lost before."""
        kept = self._take_kept()
        if not kept:
            return None
        shell, ended_at = kept
        if time.monotonic() - ended_at < FRESH:
            return shell
        try:
            shell.run(":", SIGN_TIMEOUT)
        except DISCONNECTED:
            shell.close()
            return None
        return shell

    def _close_kept_shell(self) -> None:
        kept = self._take_kept()
        if kept:
            kept[0].close()

    def _take_kept(self) -> tuple[ScriptShell, float] | None:
        with self._kept_lock:
            kept, self._kept = self._kept, None
            return kept

    def _acquire_session(self) -> bool:
        """Take one of the sessions; return False if all stay in use."""
        if self._sessions.acquire(blocking=False):
            return True
        self._close_kept_shell()
        return self._sessions.acquire(timeout=SESSION_WAIT)

    def close(self) -> None:
        """End the connection. Programs on the VM go on. Idempotent; a later call reconnects."""
        self._close_kept_shell()
        with self._lock:
            for transport in self._transports:
                transport.close()
            self._transports = ()
        with self._streams_lock:
            streams = list(self._streams)
        for stream in streams:
            stream.close()

    def _is_alive(self) -> bool:
        return bool(self._transports) and all(transport.is_active() for transport in self._transports)

    def _transport(self) -> Transport:
        with self._lock:
            if self._fenced:
                raise self._fenced
            if self._is_alive():
                return self._transports[0]
            if self._failure and time.monotonic() - self._failed_at < FAILURE_LASTS:
                raise self._failure
            for transport in self._transports:
                transport.close()
            self._transports = ()
            try:
                self._transports = self._logged_in()
                self._greet()
            except Unavailable as failure:
                self._failure, self._failed_at = failure, time.monotonic()
                raise
            self._failure = None
            self._forwards.renew(self._transports[0])
            return self._transports[0]

    def begin_with(self, hello: Callable[[Callable[[str, float], Done]], None], guard: Callable[[], str]) -> None:
        """Call `hello(run)` on each new connection, before any other use of it. It may raise.

        `guard` returns the text that each program and script begins with.
        """
        self._hello, self._guard = hello, guard

    def fence(self, words: str) -> None:
        """End the connection for good: every later call raises `Fenced`. From any thread; returns at once."""
        self._fenced = self._fenced or Fenced(words)
        for transport in self._transports:
            transport.close()

    def _greet(self) -> None:
        """Call `hello` on a new connection. The caller holds the lock. Raises `Unavailable`."""
        if self._hello is None:
            return
        transport = self._transports[0]
        try:
            self._hello(lambda script, timeout: self._run_on(transport, script, timeout))
        except BaseException as error:
            for opened in self._transports:
                opened.close()
            self._transports = ()
            if isinstance(error, Fenced):
                self._fenced = error
            if isinstance(error, SSH_ERRORS):
                raise Unavailable(Reason.SSH_CLOSED, f"{self.host}: {str(error) or 'the connection ended'}") from error
            raise

    def _run_on(self, transport: Transport, script: str, timeout: float) -> Done:
        channel = self._open_session(transport)
        process = ChannelProcess(channel, lambda: None)
        try:
            self._begin(channel, process, "exec sh")
            return run_script(process, script, timeout)
        finally:
            process.close()

    def gives_sign(self) -> bool:
        """Ask the server for a sign of life, over a new connection if there is none; return whether one came."""
        asked_at = time.monotonic()
        try:
            transport = self._transport()
            transport.ping()
        except (Unavailable, *SSH_ERRORS):
            return False
        while (passed := time.monotonic() - asked_at) < SIGN_TIMEOUT:
            if transport.heard.quiet_for < passed:
                return True
            time.sleep(0.02)
        return False

    def interrupt(self) -> None:
        """End a login that is under way: its caller gets `Unavailable`. From any thread; returns at once."""
        login = self._login
        if login is not None:
            with contextlib.suppress(InvalidStateError):
                login.set_exception(Unavailable(Reason.SSH_UNREACHABLE, f"{self.host}: the login was interrupted"))

    def _logged_in(self) -> tuple[Transport, ...]:
        """Log in, in a thread of its own, which a silent server holds up for 10 s; `interrupt` ends the wait."""
        login: Future[tuple[Transport, ...]] = Future()
        self._login = login

        def work() -> None:
            try:
                transports = log_in(self._vm, accept_new_host_key=self._accept_new)
            except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
                with contextlib.suppress(InvalidStateError):
                    login.set_exception(error)
                return
            try:
                login.set_result(transports)
            except InvalidStateError:
                for transport in transports:
                    transport.close()

        threading.Thread(target=work, name="pccpipe-login", daemon=True).start()
        try:
            return login.result()
        finally:
            self._login = None

    def _with_transport(self, use: Callable[[Transport], T]) -> T:
        """Open something on the transport, and once more on a new one if that was dead: nothing had begun."""
        for last in (False, True):
            transport = self._transport()
            try:
                return use(transport)
            except (paramiko.ChannelException, TimeoutError):
                raise
            except SSH_ERRORS as error:
                if last or transport.is_active():
                    words = transport.parting_words or str(error) or "the connection ended"
                    raise Unavailable(Reason.SSH_CLOSED, f"{self.host}: {words}") from error
                transport.close()
        raise AssertionError("the last attempt returns or raises")

    def _open_session(self, transport: Transport) -> paramiko.Channel:
        deadline = time.monotonic() + OPEN_TIMEOUT
        pause = 0.02
        while True:
            try:
                return transport.open_session(timeout=OPEN_TIMEOUT)
            except paramiko.SSHException as error:
                # Over MaxSessions, perhaps only because a closed session still counts. Nothing has begun.
                # (If the server refuses two at a time, paramiko raises ChannelException for only one.)
                if not transport.is_active():
                    raise
                self._close_kept_shell()
                if time.monotonic() + pause > deadline:
                    words = f"{self.host}: cannot open a session: {error}"
                    hint = "set MaxSessions 10 in the VM's /etc/ssh/sshd_config: a run uses up to 9 sessions"
                    raise Unavailable(Reason.SSH_SESSION_REFUSED, words, hint) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 1.0)

    def _dial_otherwise(self, path: str, timeout: float, error: paramiko.ChannelException) -> ByteStream:
        """Find out why sshd refused, as its words never say, and connect by docker's client if that can."""
        where = f"connect to {path} on {self.host}"
        socket = shlex.quote(path)
        state = self.run(f"[ -S {socket} ] || exit 3; [ -w {socket} ] || exit 4", timeout).code
        if state == 3:
            raise Unavailable(Reason.ENGINE_MISSING, f"{where}: No such file or directory") from error
        if state == 4:
            words = f"{where}: Permission denied for user {self.facts.user}"
            hint = f"sudo usermod -aG docker {operands(self.facts.user)}, on the VM; it applies from the next login on"
            raise Unavailable(Reason.ENGINE_PERMISSION_DENIED, words, hint) from error
        # Either no engine listens, or sshd forbids forwarding to sockets; docker's own client can tell.
        ping = f"printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' | {_dial_stdio(path)} | head -c 4"
        answer = self.run(ping, timeout)
        if answer.stdout == b"HTTP":
            # An engine that was just starting takes it now; sshd would refuse again. Docker's client is the worse way:
            # each of its connections, also an idle one, takes one of the server's few sessions.
            with contextlib.suppress(paramiko.ChannelException, TimeoutError):
                return self._dial_directly(path, timeout)
            self._by_dial_stdio = True
            return self.popen(_dial_stdio(path))
        said = answer.stderr.decode(errors="replace").strip()
        if "not found" in said:
            said = (
                "Connection refused (or sshd there forbids AllowStreamLocalForwarding, and there is no docker command)"
            )
        raise Unavailable(Reason.ENGINE_STOPPED, f"{where}: {said or 'Connection refused'}") from error


def _dial_stdio(path: str) -> str:
    return f"docker -H unix://{shlex.quote(path)} system dial-stdio"
