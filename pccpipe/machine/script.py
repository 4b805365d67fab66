"""Runs pccpipe's own short sh scripts on a machine: they ask for facts, make folders, clean up."""

from __future__ import annotations

import functools
import re
import secrets
import shlex
import time
from pathlib import Path

from pccpipe import limits
from pccpipe.errors import Nonsense
from pccpipe.machine.answers import EXIT_CODES, IDS, number, number_or_none
from pccpipe.machine.base import Done, Facts, Process
from pccpipe.values import cut

READ_SIZE = 256 * 1024

# The system's engine comes first: only root can put something at its path. Next comes the login's own engine, from
# DOCKER_HOST or in the folders of Docker and Podman. `-w` weighs the socket's mode, its group, and the rights of root.
_ASK_FACTS = """
pcc_named=%s pcc_own=
case ${DOCKER_HOST-} in unix:///*) pcc_own=${DOCKER_HOST#unix://} ;; esac
pcc_runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
for pcc_socket in "$pcc_named" /var/run/docker.sock "$pcc_own" "$pcc_runtime/docker.sock" /run/podman/podman.sock \\
  "$pcc_runtime/podman/podman.sock"; do
  [ -S "$pcc_socket" ] && break
  pcc_socket=
done
[ -z "$pcc_named" ] || pcc_socket=$pcc_named
[ -n "$pcc_socket" ] || pcc_socket=${pcc_own:-/var/run/docker.sock}
[ -w "$pcc_socket" ]; echo $?
uname -s; id -u; id -g; id -un 2>/dev/null || id -u
printf '%%s\\n' "$HOME" "$pcc_socket"
"""


# In braces, so that the shell does nothing unless all of it has arrived.
_PROGRAM = b"""{
printf %%s %(begin)s; printf %%s %(begin)s >&2
(
%(script)s
) </dev/null
printf '%(end)s %%s\\n' $?; printf '%(end)s\\n' >&2
}
"""


class ShellGone(ConnectionError):
    """The shell had ended before it got the script."""


class ScriptShell:
    """An sh that reads its program from stdin, for one script after another. One thread uses it at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._is_new = True
        self.has_ended = False
        """True if it takes no further script."""

    def run(self, script: str, timeout: float) -> Done:
        """Run a script to its end, without waiting for processes that it leaves.

        The start-up files of a login shell may print; the result leaves out everything before the script's own output.
        Raises TimeoutError, ConnectionError; the caller then closes the shell.
        """
        deadline = time.monotonic() + timeout
        begin, end = secrets.token_hex(16).encode(), secrets.token_hex(16).encode()
        program = _PROGRAM % {b"begin": begin, b"script": script.encode(errors="surrogateescape"), b"end": end}
        try:
            self._process.settimeout(timeout)
            self._process.sendall(program)
        except ConnectionError as error:
            if not self._is_new:
                raise ShellGone(str(error)) from error
            # A login without a shell ends before it has read everything, and its words matter. Reading shows whether
            # the connection ended.
        stdout, stderr = read_to_end(self._process, deadline, end)
        output, is_whole, code = _after(stdout, begin).partition(end)
        errors = _after(stderr, begin).partition(end)[0][: limits.MACHINE_WORDS.most]
        if is_whole:
            self._is_new = False
            return Done(number("", "exit code", code.strip().partition(b"\n")[0], EXIT_CODES), output, errors)
        if not self._is_new and begin not in stdout:
            raise ShellGone("the shell had ended")
        # The shell ended by itself: the login has no shell, or the script is not one.
        self.has_ended = True
        return Done(self._process.wait(max(0.1, deadline - time.monotonic())), output, errors)

    def close(self) -> None:
        """End the shell."""
        self._process.close()


def run_script(process: Process, script: str, timeout: float) -> Done:
    """Run one script in `process`, an sh that reads its program from stdin, and close that. See `ScriptShell.run`."""
    shell = ScriptShell(process)
    try:
        return shell.run(script, timeout)
    finally:
        shell.close()


def read_to_end(process: Process, deadline: float, end: bytes = b"") -> tuple[bytes, bytes]:
    """Read stdout and stderr of a process to their ends, or to the end of the line with the word `end`.

    `deadline` is a time.monotonic(). Raises TimeoutError, ConnectionError, Nonsense for more than MACHINE_ANSWER.
    """
    gathered = (bytearray(), bytearray())
    receivers = (process.recv, process.recv_stderr)
    open_ = [True, True]
    while any(open_):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it did not end in time")
        for index, ready in enumerate(process.ready(left)):
            if ready and open_[index]:
                data = receivers[index](READ_SIZE)
                gathered[index].extend(data)
                open_[index] = bool(data) and not (end and _is_whole(gathered[index], end, len(data)))
        if sum(map(len, gathered)) > limits.MACHINE_ANSWER.most:
            raise Nonsense("", "answer to a script", limits.MACHINE_ANSWER.exceeded("it"))
    return bytes(gathered[0]), bytes(gathered[1])


def _is_whole(gathered: bytearray, end: bytes, new: int) -> bool:
    """Return whether the line with `end` is complete. The word is in the last `new` bytes, or shortly before."""
    at = gathered.find(end, max(0, len(gathered) - new - len(end) - 10))
    return at >= 0 and gathered.find(b"\n", at) >= 0


def _after(output: bytes, mark: bytes) -> bytes:
    _, found, after = output.partition(mark)
    return after if found else output


def ask_facts(engine_socket: str | None = None) -> str:
    """Write the script that asks for a machine's facts; `engine_socket` is the path of its engine, if it is known."""
    return _ASK_FACTS % shlex.quote(engine_socket or "")


def parse_facts(done: Done) -> Facts:
    """Read the answer to `ask_facts`. Raises ValueError if it is not the answer of a POSIX shell."""
    engine, system, uid, gid, user, home, socket = done.stdout.decode(errors="surrogateescape").split("\n")[:7]
    ids = number_or_none(uid, IDS), number_or_none(gid, IDS)
    if ids[0] is None or ids[1] is None:
        raise ValueError(f"its user's ids are {uid!r} and {gid!r}")
    if not all(len(word) <= limits.MACHINE_FACT.most and word.isprintable() for word in (system, user, home, socket)):
        raise ValueError(f"its system, user, home or engine is {cut(max(system, user, home, socket, key=len), 100)!r}")
    if not socket.startswith("/"):
        raise ValueError(f"its engine's socket is {socket!r}")
    return Facts(ids[0], ids[1], user, home, system, has_engine=engine == "0", engine_socket=socket)


@functools.cache
def shell_functions(*files: Path) -> str:
    """Return the functions that files of sh define. Comments are left out, because the text goes over the network."""
    text = "".join(file.read_text() for file in files)
    return re.sub(r"^\s*#.*\n|^\n|(?<=\(\) [{(]) #.*", "", text, flags=re.MULTILINE)


def sh_command(command: str) -> str:
    """Return a command line that means the same in every login shell."""
    return f"exec sh -c {shlex.quote(command)}"
