"""A flood whose pccpipe is gone waits for a reader, instead of filling the disk; a reader gets all of it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from pccpipe.limits import UNREAD_OUTPUT
from pccpipe.outcome import Stream
from pccpipe.supervisor.spool import PIECE
from pccpipe.target import Chunk, Exit
from tests.supervisor.test_killed import killed
from tests.targets.stand import Stand, local_shell, read_all, read_into, until

MOST = UNREAD_OUTPUT.most
NUMBERS = 12_000_000
"""`seq` up to it writes 97 MiB."""


def spool(stand: Stand, stream: Stream, command: str = "a-1") -> Path:
    return Path(stand.state, "commands", f"{command}.{stream}")


def waits_for_its_reader(path: Path) -> None:
    """See the spool grow to the limit, and no further."""
    until(lambda: path.stat().st_size >= MOST, limit=60)
    size = path.stat().st_size
    time.sleep(0.5)
    assert path.stat().st_size == size < MOST + PIECE


@pytest.mark.parametrize("stream", list(Stream))
def test_a_flood_of_a_killed_pccpipe_waits_and_the_next_reader_gets_every_byte(stand: Stand, stream: Stream) -> None:
    flood = f"seq {NUMBERS}" + " >&2" * (stream is Stream.STDERR)
    token = json.loads(killed(stand, f"echo one; {flood}; echo two; exit 8"))
    waits_for_its_reader(spool(stand, stream))
    resumed = stand.again()
    attached = resumed.attach(token)
    digests = {each: hashlib.sha256() for each in Stream}
    assert read_into(attached, lambda chunk: digests[chunk.stream].update(chunk.data)) == Exit(8)
    around = ("echo one", "echo two") if stream is Stream.STDOUT else ("true", "true")
    whole = local_shell(f"{{ {around[0]}; seq {NUMBERS}; {around[1]}; }} | sha256sum").split()[0]
    assert digests[stream].hexdigest() == whole
    attached.discard()
    resumed.leave()


def test_a_resumed_reader_that_may_skip_counts_what_it_skips(stand: Stand) -> None:
    token = json.loads(killed(stand, f"echo one; head -c {3 * MOST} /dev/zero; echo two"))
    waits_for_its_reader(spool(stand, Stream.STDOUT))
    resumed = stand.again()
    attached = resumed.attach(token)
    attached.may_skip(100, 1000)
    size, skipped, last = 0, 0, b""

    def take(chunk: Chunk) -> None:
        nonlocal size, skipped, last
        size, skipped, last = size + len(chunk.data), skipped + chunk.skipped, chunk.data or last

    assert read_into(attached, take) == Exit(0)
    assert size + skipped == 3 * MOST + len("one\ntwo\n")
    assert skipped > MOST // 2
    assert last.endswith(b"\0two\n")
    attached.discard()
    resumed.leave()


def test_a_flood_of_a_paused_pccpipe_waits_too(stand: Stand) -> None:
    running = stand.start(f"head -c {2 * MOST} /dev/zero; echo end")
    waits_for_its_reader(spool(stand, Stream.STDOUT, "step-1"))
    assert len(read_all(running)[0]) == 2 * MOST + len("end\n")
    running.discard()


def test_a_command_that_ends_with_a_full_pipe_needs_no_reader_for_its_end(stand: Stand) -> None:
    # The supervisor reads no further; the rest is in the pipe, and its writer has ended.
    running = stand.start(f"head -c {MOST + PIECE // 2} /dev/zero; exit 3")
    until(lambda: Path(stand.state, "commands", "step-1.sup").read_text().endswith("3 -\n"), limit=60)
    stdout, _, exit_ = read_all(running)
    assert (len(stdout), exit_) == (MOST + PIECE // 2, Exit(3))
    running.discard()


def test_a_flood_without_a_reader_ends_at_its_time_limit(stand: Stand) -> None:
    running = stand.start("exec yes", limit=3.0)
    waits_for_its_reader(spool(stand, Stream.STDOUT, "step-1"))
    until(lambda: "124 t" in Path(stand.state, "commands", "step-1.sup").read_text())
    assert spool(stand, Stream.STDOUT, "step-1").stat().st_size < MOST + (4 << 20)
    assert read_all(running)[2] == Exit(124, timed_out=True)
    running.discard()


def test_a_background_process_that_floods_without_a_reader_is_bounded_too(stand: Stand) -> None:
    running = stand.start("setsid yes & exit 0")
    until(lambda: Path(stand.state, "commands", "step-1.sup").read_text().endswith(" b\n"), limit=30)
    assert spool(stand, Stream.STDOUT, "step-1").stat().st_size < MOST + (4 << 20)
    assert read_all(running)[2].left_processes
    running.discard()
