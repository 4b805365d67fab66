"""A command that writes without an end stops in time, and pccpipe frees its disk of output that nobody reads."""

from __future__ import annotations

import shlex
import time

from pccpipe.outcome import Stream
from pccpipe.target import Exit, Running
from tests.targets.stand import Stand, until

MIB = 1 << 20


def test_a_flood_ends_when_it_is_stopped_and_its_spools_stay_small(stand: Stand) -> None:
    running = stand.start("echo first; exec yes 0123456789")
    began, stop_at = time.monotonic(), time.monotonic() + 4
    got, skipped, used, first = 0, 0, 0, b""
    while not isinstance(chunk := running.read(1.0), Exit):
        assert time.monotonic() < began + 20, "it did not end in time"
        if chunk and chunk.stream is Stream.STDOUT:
            got, skipped = got + len(chunk.data), skipped + chunk.skipped
            if not first:
                first = chunk.data
                running.may_skip(MIB, MIB)  # what was not read yet may go
        if time.monotonic() > stop_at:
            used = spools(stand)
            running.stop(0.5)
            stop_at += 60
    running.discard()
    assert chunk.code in {137, 143}
    assert first.startswith(b"first\n")
    assert skipped > 100 * MIB
    # Without the holes, all output would be on the disk.
    assert used < (got + skipped) / 2


def test_the_first_bytes_that_a_resumed_run_reads_again_are_never_skipped(stand: Stand) -> None:
    command = stand.command(f"seq 1000000; head -c {200 * MIB} /dev/zero; echo last; sleep {stand.nap}")
    running = stand.target.start(command)
    running.may_skip(8 * MIB, MIB)
    read_for(running, b"last\n")
    whole = 200 * MIB
    # The reader measures the spools once a second.
    until(lambda: not running.read(0.5) and spools(stand) < whole / 2)
    other = stand.again()
    other.open()
    resumed = other.attach(running.token)
    again = read_for(resumed, b"last\n")
    assert again[: 4 * MIB] == "".join(f"{number}\n" for number in range(1, 1000001)).encode()[: 4 * MIB]
    resumed.stop(0.0)
    while not isinstance(resumed.read(1.0), Exit):
        pass
    resumed.discard()
    other.close()


def spools(stand: Stand) -> int:
    """Return the bytes on the disk that the target's files take."""
    return int(stand.shell(f"du -sk {shlex.quote(stand.state)} | cut -f 1")) * 1024


def read_for(running: Running, wanted: bytes) -> bytes:
    """Read until `wanted` appears; return stdout so far."""
    got, deadline = bytearray(), time.monotonic() + 60
    while not got.endswith(wanted):
        assert time.monotonic() < deadline
        chunk = running.read(1.0)
        assert not isinstance(chunk, Exit)
        if chunk and chunk.stream is Stream.STDOUT:
            got += chunk.data
    return bytes(got)
