"""Short sh scripts that pccpipe itself runs on a machine: asking for its facts, making folders, cleaning up."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import time

from pccpipe.targets.machine import Done, Facts, Process

READ_SIZE = 256 * 1024
OUTPUT_LIMIT = 64 << 20
"""Bytes that a housekeeping command may say: no machine is to fill the memory here."""

# Whether a user may use the engine: what the socket's mode, its group and root's rights come to.
ASK_FACTS = (
    '[ -w /var/run/docker.sock ]; echo $?; uname -s; id -u; id -g; id -un 2>/dev/null || id -u; printf "%s\\n" "$HOME"'
)


def run_script(process: Process, script: str, timeout: float) -> Done:
    """Give a script to `process`, an sh that reads its program from stdin, and wait for its end. Closes the process.

    A login shell's start-up files may print: what came before the script's own first word is left out.
    Raises TimeoutError, ConnectionError.
    """
    deadline = time.monotonic() + timeout
    mark = secrets.token_hex(16)
    program = f"printf %s {mark}; printf %s {mark} >&2\n(\n{script}\n) </dev/null\nexit $?\n"
    try:
        process.settimeout(timeout)
        with contextlib.suppress(ConnectionError):
            # A login without a shell ends before it has read all: what it says counts. Reading tells whether it was
            # the connection that ended.
            process.sendall(program.encode(errors="surrogateescape"))
            process.shutdown_write()
        stdout, stderr = read_to_end(process, deadline)
        code = process.wait(max(0.1, deadline - time.monotonic()))
    finally:
        process.close()
    return Done(code, _after(stdout, mark), _after(stderr, mark))


def read_to_end(process: Process, deadline: float) -> tuple[bytes, bytes]:
    """All of a process's stdout and stderr. `deadline` is a time.monotonic().

    Raises TimeoutError, ConnectionError, also for more than `OUTPUT_LIMIT`.
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
                open_[index] = bool(data)
        if sum(map(len, gathered)) > OUTPUT_LIMIT:
            raise ConnectionAbortedError(f"it says more than {OUTPUT_LIMIT >> 20} MiB, and is not heard any further")
    return bytes(gathered[0]), bytes(gathered[1])


def parse_facts(done: Done) -> Facts:
    """What `ASK_FACTS` found. Raises ValueError if it is not the answer of a POSIX shell."""
    engine, system, uid, gid, user, home = done.stdout.decode(errors="surrogateescape").split("\n")[:6]
    return Facts(int(uid), int(gid), user, home, system, has_engine=engine == "0")


def sh_command(command: str) -> str:
    """A command line that means the same whatever the login's shell is."""
    return f"exec sh -c {shlex.quote(command)}"


def _after(output: bytes, mark: str) -> bytes:
    _, found, after = output.partition(mark.encode())
    return after if found else output
