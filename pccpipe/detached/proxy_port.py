"""A port of a machine's own loopback that leads to the proxy, for the run's commands that are in no container there.

Its number is kept beside the commands: it is in their environment, and a resumed run is to be found behind it again.
"""

from __future__ import annotations

import shlex
import threading

from msgspec.structs import replace

from pccpipe.detached.programs import RunDir
from pccpipe.errors import Unavailable
from pccpipe.layout import PROXY_PORT
from pccpipe.machine.answers import PORTS, number
from pccpipe.machine.base import Listener, Machine, ProxyDoor
from pccpipe.machine.retry import DISCONNECTED
from pccpipe.outcome import Reason
from pccpipe.target import Command


class ProxyPort:
    """Opened when it is first needed. Safe from many threads."""

    def __init__(self, machine: Machine, door: ProxyDoor, place: RunDir) -> None:
        self._machine = machine
        self._door = door
        self._file = shlex.quote(f"{place.state}/{PROXY_PORT}")
        self._folder = shlex.quote(place.state)
        self._lock = threading.Lock()
        self._served: Listener | None = None

    def led(self, command: Command) -> Command:
        """The command with the way to the proxy in its environment. Raises `Unavailable`."""
        url = f"http://127.0.0.1:{self._opened()}/v1"
        return replace(command, env={**command.env, "PCC_PROXY_URL": url})

    def reopen(self) -> None:
        """Take up what an earlier process of the run had opened, if it had. Raises `Unavailable`."""
        with self._lock:
            if self._served is None and (port := self._kept()):
                self._served = self._door.serving.serve_port(port, self._door.accept)

    def close(self) -> None:
        """Idempotent; never raises."""
        with self._lock:
            if self._served is not None:
                self._served.close()
                self._served = None

    def _opened(self) -> int:
        with self._lock:
            if self._served is None:
                served = self._door.serving.serve_port(self._kept(), self._door.accept)
                self._run(f"mkdir -p {self._folder} && echo {served.port} >{self._file}")
                self._served = served
            return self._served.port

    def _kept(self) -> int:
        """0 if there is none."""
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
