"""Opens a port of a machine's loopback that leads to the proxy, for the run's commands outside containers.

A file beside the commands keeps its number, because their environment has it: a resumed run opens the same port.
"""

from __future__ import annotations

import shlex
import threading

from msgspec.structs import replace

from pccpipe.detached.programs import RunDir
from pccpipe.errors import Unavailable
from pccpipe.layout import PROXY_PORT
from pccpipe.machine.answers import PORTS, number
from pccpipe.machine.base import Listener, Machine, ProxyRoute
from pccpipe.machine.retry import DISCONNECTED
from pccpipe.outcome import Reason
from pccpipe.target import Command


class ProxyPort:
    """The port. It opens when a command first needs it. Thread-safe."""

    def __init__(self, machine: Machine, proxy: ProxyRoute, run_dir: RunDir) -> None:
        self._machine = machine
        self._proxy = proxy
        self._file = shlex.quote(f"{run_dir.state}/{PROXY_PORT}")
        self._folder = shlex.quote(run_dir.state)
        self._lock = threading.Lock()
        self._listener: Listener | None = None

    def with_proxy(self, command: Command) -> Command:
        """Add the address of the proxy to a command's environment. Raises `Unavailable`."""
        url = f"http://127.0.0.1:{self._open()}/v1"
        return replace(command, env={**command.env, "PCC_PROXY_URL": url})

    def reopen(self) -> None:
        """Open the port that an earlier process of the run had opened, if there is one. Raises `Unavailable`."""
        with self._lock:
            if self._listener is None and (port := self._recorded()):
                self._listener = self._proxy.machine.serve_port(port, self._proxy.accept)

    def close(self) -> None:
        """Close the port. Idempotent; never raises."""
        with self._lock:
            if self._listener is not None:
                self._listener.close()
                self._listener = None

    def _open(self) -> int:
        with self._lock:
            if self._listener is None:
                listener = self._proxy.machine.serve_port(self._recorded(), self._proxy.accept)
                self._run(f"mkdir -p {self._folder} && echo {listener.port} >{self._file}")
                self._listener = listener
            return self._listener.port

    def _recorded(self) -> int:
        """Return the number in the file, or 0 without one."""
        said = self._run(f"cat {self._file} 2>/dev/null; :").strip()
        return number(self._machine.host, "port of the proxy", said or 0, PORTS)

    def _run(self, script: str) -> bytes:
        try:
            done = self._machine.run(script)
        except DISCONNECTED as error:
            raise Unavailable(Reason.SSH_CLOSED, f"{self._machine.host}: {error}") from error
        if done.code:
            words = done.stderr.decode(errors="replace").strip()
            raise Unavailable(Reason.PROXY_REFUSED, f"{self._machine.host}: {words}")
        return done.stdout
