"""Trees over the connection to the VM with rsync, where both sides have it: only what changed goes over.

Nothing comes home by it: an rsync that receives does what the other side says, and the VM's is not trusted.

The rsync here runs the one there through the run's one SSH connection: in place of ssh it starts relay.py, whose bytes
come back to this process by a Unix socket, and go on to a channel.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from pccpipe.errors import ActionError, Unavailable
from pccpipe.targets.machine import Machine, Process
from pccpipe.workspace.exclude import Excluded, as_rsync_rules

LIMIT = 3600.0
"""Seconds for one transfer."""
SILENCE = 120
"""Seconds that the other side may be silent; rsync's own --timeout."""
PIECE = 256 * 1024
SAID_LIMIT = 16 * 1024


def is_on_both_sides(machine: Machine) -> bool:
    """Whether rsync is here and there. Raises what `Machine.run` does."""
    return shutil.which("rsync") is not None and machine.run("command -v rsync").code == 0


def send(machine: Machine, source: Path, remote: str, excluded: Excluded) -> None:
    """Make the folder `remote` there as `source` is here; what is excluded stays as it is there.

    Raises ActionError with rsync's words, ConnectionError when the connection ended, Unavailable when it can't be had.
    """
    rules = as_rsync_rules(excluded.patterns)
    _rsync(machine, ["--delete", "--delete-delay", *rules, f"{source}/", f"there:{remote}/"])


def _rsync(machine: Machine, arguments: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="pccpipe-") as folder, _Relay(machine, Path(folder) / "link") as relay:
        words = [sys.executable, "-S", "-E", str(Path(__file__).with_name("relay.py")), str(relay.path)]
        # Times to the nanosecond: an edit of the same length within the same second is a change as well.
        command = ["rsync", "-rlpt", "--modify-window=-1", "-e", shlex.join(words), f"--timeout={SILENCE}", *arguments]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            raise ActionError(f"rsync took over {LIMIT:g} s") from None
        if relay.broken:
            raise relay.broken
        if done.returncode and done.returncode != 24:  # 24: files that vanished meanwhile
            told = (relay.said + done.stderr).decode("utf-8", "replace").strip()
            raise ActionError(f"rsync: {told or f'exit code {done.returncode}'}")


class _Relay:
    """Takes the one connection of a relay.py, and joins it to a process on the machine. Two threads, gone with
    `close`.
    """

    def __init__(self, machine: Machine, path: Path) -> None:
        self.path = path
        self.broken: ConnectionError | TimeoutError | Unavailable | None = None
        self.said = b""
        """What the process there wrote to stderr: its words for the rsync here are lost if it ends too soon."""
        self._machine = machine
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, name="pccpipe-rsync", daemon=True)

    def __enter__(self) -> _Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # If rsync could not even start its relay, somebody must end the wait for one.
        self._listener.close()
        if self._thread.is_alive():
            with socket.socket(socket.AF_UNIX) as end:
                end.connect_ex(str(self.path))
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        try:
            link, _ = self._listener.accept()
        except OSError:
            return
        with link:
            command = _first_line(link)
            if not command:
                return
            try:
                process = self._machine.popen(shlex.join(json.loads(command)))
            except (ConnectionError, TimeoutError, Unavailable) as error:
                self.broken = error
                return
            sender = threading.Thread(target=self._send, args=(link, process), name="pccpipe-rsync-send", daemon=True)
            sender.start()
            try:
                self._receive(link, process)
            except (ConnectionError, TimeoutError) as error:
                self.broken = error
            except OSError:
                pass  # rsync here has ended: it says why
            finally:
                process.close()
                # Closing alone would not wake the other thread, nor tell the relay.
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def _receive(self, link: socket.socket, process: Process) -> None:
        open_ = [True, True]
        while any(open_):
            stdout, stderr = process.ready(30.0)
            if stdout and open_[0]:
                data = process.recv(PIECE)
                open_[0] = bool(data)
                link.sendall(data)
            if stderr and open_[1]:
                said = process.recv_stderr(PIECE)
                open_[1] = bool(said)
                self.said = (self.said + said)[:SAID_LIMIT]

    def _send(self, link: socket.socket, process: Process) -> None:
        try:
            while data := link.recv(PIECE):
                process.sendall(data)
            process.shutdown_write()
        except OSError:
            # Either side may have ended. Whether it was the connection, receiving tells.
            return


def _first_line(link: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = link.recv(1)
        if not byte:
            return b""
        line += byte
    return line
