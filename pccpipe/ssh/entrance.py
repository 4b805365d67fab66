"""Begins programs behind the start-up files of a login's shell, which may print, read stdin, take long or never end.

The shell runs them before the program. So the program prints a word on stdout and stderr when its turn comes.
pccpipe discards all output before the word. Only then does pccpipe send the input, so that no start-up file can
swallow a part of it. The same word precedes the input, and the program skips what comes before.

This costs no round trip: sshd confirms the start of the shell before the shell has read its files.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from pccpipe import limits
from pccpipe.errors import Unavailable
from pccpipe.machine.base import Process
from pccpipe.machine.script import sh_command
from pccpipe.outcome import Reason

LIMIT = 30.0
"""Seconds for the start-up files to end."""
NUDGE = 2.0
"""Seconds after which a start-up file gets an empty line, as it may wait for a person to press Enter."""
LAG = 5.0
"""Seconds between the words on the two streams."""
NUDGES = 5
"""The most empty lines. Then the line is quiet, and the connection asks the server for a sign of life."""
SILENCE = 12.0
"""Seconds without that sign, at the end of `LIMIT`, after which the network is to blame, not a start-up file."""
EXIT_TIMEOUT = 5.0
READ_SIZE = 64 * 1024
_HINT = "let start-up files end at once without a terminal: case $- in *i*) ;; *) return ;; esac, as first line"


def new_word() -> str:
    """Return a word that nobody can guess."""
    return secrets.token_hex(16)


def behind(word: str, command: str) -> str:
    """Return the command line that runs `command` once the word came back; `pcc_ready` is the uptime until then."""
    wait = f'until [ "$pcc_word" = {word} ]; do read -r pcc_word || exit 1; done'
    return sh_command(f"read -r pcc_ready pcc_idle </proc/uptime; echo {word}; echo {word} >&2; {wait}; {command}")


def enter(process: Process, word: str, host: str, user: str, quiet_for: Callable[[], float]) -> None:
    """Wait until the program's turn comes, and let it begin.

    Raises `Unavailable`, ConnectionError.

    Args:
        quiet_for: returns the seconds since the last sign of life of the server.
    """
    streams = (_Prelude(word), _Prelude(word))
    receivers = (process.recv, process.recv_stderr)
    deadline = time.monotonic() + LIMIT
    nudges = 0
    while not all(stream.is_over for stream in streams):
        left = deadline - time.monotonic()
        if left <= 0 and quiet_for() > SILENCE:
            raise ConnectionResetError(f"{host} did not answer for {quiet_for():.0f} s")
        if left <= 0:
            raise _stuck(streams, host, user)
        ready = process.ready(min(left, NUDGE))
        if not any(ready) and nudges < NUDGES:
            nudges += 1
            _send(process, b"\n")
        for stream, receive, is_ready in zip(streams, receivers, ready, strict=True):
            if is_ready and not stream.is_over:
                stream.feed(receive(READ_SIZE))
                if stream.has_come:
                    deadline = min(deadline, time.monotonic() + LAG)
        if any(stream.has_ended for stream in streams):
            # Now `ready` does not wait.
            time.sleep(0.01)
    if not all(stream.has_come for stream in streams):
        raise _refused(process, streams, host, user)
    process.sendall(f"{word}\n".encode())


class _Prelude:
    """The output on one stream before the program's turn."""

    def __init__(self, word: str) -> None:
        self._end = f"{word}\n".encode()
        self._tail = b""
        self.output = b""
        self.has_come = self.has_ended = False

    @property
    def is_over(self) -> bool:
        return self.has_come or self.has_ended

    def feed(self, data: bytes) -> None:
        self.has_ended = not data
        self.output = (self.output + data)[: limits.STARTUP_WORDS.most]
        self._tail += data
        # The program still waits, so none of its output can follow the word.
        self.has_come = self._end in self._tail
        self._tail = self._tail[-len(self._end) :]


def _send(process: Process, data: bytes) -> None:
    try:
        process.sendall(data)
    except ConnectionError:
        # The program or the connection ended, and reading reports which.
        return


def _words(streams: tuple[_Prelude, _Prelude]) -> str:
    return "; ".join(" ".join(stream.output.decode(errors="replace").split()) for stream in streams if stream.output)


def _refused(process: Process, streams: tuple[_Prelude, _Prelude], host: str, user: str) -> Unavailable:
    try:
        ended = f"exit code {process.wait(EXIT_TIMEOUT)}"
    except TimeoutError:
        ended = "its output ended"
    words = f"{host} gave no shell: {_words(streams) or ended}"
    hint = f"{user} has a login shell that runs no commands, such as nologin (usermod -s /bin/bash), or sshd or"
    hint += " authorized_keys forces another command (ForceCommand, command=), or a start-up file (~/.bashrc) ends it"
    return Unavailable(Reason.SSH_SESSION_REFUSED, words, hint)


def _stuck(streams: tuple[_Prelude, _Prelude], host: str, user: str) -> Unavailable:
    if any(stream.has_come for stream in streams):
        words = f"{host}: a start-up file of {user} (~/.bashrc) redirects stdout or stderr"
        return Unavailable(Reason.SSH_SESSION_REFUSED, words, _HINT)
    said = _words(streams)
    words = f"{host} ran no command in {LIMIT:g} s: a start-up file of {user} (~/.bashrc) waits for something"
    words = f"{words}, or sshd forces another command{f'. It said: {said}' if said else ''}"
    return Unavailable(Reason.SSH_SESSION_REFUSED, words, _HINT)
