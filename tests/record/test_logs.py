from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from pccpipe.errors import RecordFull
from pccpipe.outcome import Stream
from pccpipe.record.events import Warned
from pccpipe.record.journal import Journal
from pccpipe.record.logs import LEAST_LOG, CommandLog, LogQuota, tail
from pccpipe.record.room import Room
from tests.disk import SmallDisk


def test_both_streams_are_kept_byte_for_byte_and_at_once(tmp_path: Path) -> None:
    with CommandLog.create(tmp_path, Path("logs"), "a-1", short=False) as log:
        log.write(Stream.STDOUT, b"\xff\x00out")
        log.write(Stream.STDERR, b"err")
        log.write(Stream.STDOUT, b"put")
        assert log.stdout_path.read_bytes() == b"\xff\x00output"
    assert (tmp_path / "logs/a-1.stderr.log").read_bytes() == b"err"
    assert (log.stdout_name, log.stderr_name) == ("logs/a-1.stdout.log", "logs/a-1.stderr.log")


def test_a_second_attempt_does_not_write_into_the_firsts_log(tmp_path: Path) -> None:
    first = CommandLog.create(tmp_path, Path("builder/iter-1"), "b-1", short=True)
    second = CommandLog.create(tmp_path, Path("builder/iter-1"), "b-2", short=True)
    assert (first.stdout_name, second.stdout_name) == ("builder/iter-1/stdout.log", "builder/iter-1/b-2.stdout.log")
    first.close()
    second.close()


def test_the_tail_begins_at_a_line_and_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("first line\nsecond line\nthird")
    assert tail(path, 1000) == "first line\nsecond line\nthird"
    assert tail(path, 16) == "third"
    assert tail(path, 3) == "ird"
    assert tail(tmp_path / "none", 10) == ""


def test_the_tail_of_binary_data_is_text(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"a\xff\n")
    assert tail(tmp_path / "x.log", 10) == "a�\n"


def flooded(folder: Path, limit: int, *, from_start: bool = False) -> CommandLog:
    return CommandLog(folder, "out.log", "err.log", limit=limit, from_start=from_start)


def test_a_flood_keeps_its_beginning_and_end_and_counts_the_middle(tmp_path: Path) -> None:
    with flooded(tmp_path, 1000) as log:
        for number in range(1000):
            log.write(Stream.STDOUT, f"line {number:04}\n".encode())
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1000
    lines = log.stdout_path.read_text().splitlines()
    assert lines[:50] == [f"line {number:04}" for number in range(50)]
    assert lines[50] == "... 9,000 bytes (900 lines) left out here by log_limit ..."
    assert lines[51:] == [f"line {number:04}" for number in range(950, 1000)]
    assert log.dropped == 9000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["err.log", "out.log"]


def test_a_log_exactly_at_its_limit_is_whole(tmp_path: Path) -> None:
    with flooded(tmp_path, 1000) as log:
        for number in range(10):
            log.write(Stream.STDOUT, bytes([65 + number]) * 100)
    assert log.stdout_path.read_bytes() == b"".join(bytes([65 + number]) * 100 for number in range(10))
    assert log.dropped == 0


def test_a_flood_on_stdout_leaves_the_last_words_on_stderr(tmp_path: Path) -> None:
    with flooded(tmp_path, 1000) as log:
        log.write(Stream.STDOUT, b"x" * 5000)
        log.write(Stream.STDERR, b"disk full\n")
        log.write(Stream.STDOUT, b"z" * 5000)
    assert log.stderr_path.read_text() == "disk full\n"
    assert log.stdout_path.read_bytes().count(b"z") == 490
    assert log.dropped == 10_000 - 500 - 490


def test_a_flood_on_both_shares_the_end(tmp_path: Path) -> None:
    with flooded(tmp_path, 1000) as log:
        for _ in range(50):
            log.write(Stream.STDOUT, b"o" * 100)
            log.write(Stream.STDERR, b"e" * 100)
    sizes = [path.read_bytes().count(word) for path, word in ((log.stdout_path, b"o"), (log.stderr_path, b"e"))]
    assert sum(sizes) - 8 <= 1000  # the words between have three `o` and five `e`
    assert log.dropped == 10_000 - 1000


def test_skipped_output_is_counted_before_the_end(tmp_path: Path) -> None:
    with flooded(tmp_path, 1000) as log:
        log.write(Stream.STDOUT, b"beginning")
        log.skip(Stream.STDOUT, 10**12)
        log.write(Stream.STDOUT, b"end\n")
    assert log.stdout_path.read_text() == "beginning\n... 1,000,000,000,000 bytes left out here by log_limit ...\nend\n"
    assert log.dropped == 10**12


def test_a_resumed_run_starts_a_log_again_that_a_kill_interrupted(tmp_path: Path) -> None:
    killed = flooded(tmp_path, 1000)
    killed.write(Stream.STDOUT, b"x" * 5000)
    with flooded(tmp_path, 1000, from_start=True) as log:
        log.write(Stream.STDOUT, b"whole\n")
    assert [file.read_text() for file in sorted(tmp_path.iterdir())] == ["", "whole\n"]
    killed.close()


def test_a_log_waits_for_space_and_loses_no_byte(small_disk: SmallDisk) -> None:
    room = Room(small_disk.folder, wait=20)
    log = CommandLog(small_disk.folder, "out.log", "err.log", limit=100_000, room=room)
    small_disk.fill()
    threading.Timer(1, small_disk.unfill).start()
    output = b"".join(b"line %d\n" % number for number in range(10_000))
    with log:
        for at in range(0, len(output), 7000):
            log.write(Stream.STDOUT, output[at : at + 7000])
    assert log.failure == ""
    assert log.stdout_path.read_bytes() == output
    assert room.pop_waited() > 0.5


def test_a_log_without_space_raises_and_stops_every_other_writer(small_disk: SmallDisk) -> None:
    room = Room(small_disk.folder, wait=0.3)
    log = CommandLog(small_disk.folder, "out.log", "err.log", room=room)
    journal = Journal(small_disk.folder, room=room)
    small_disk.fill()
    with pytest.raises(RecordFull, match="no space left"):
        log.write(Stream.STDOUT, b"x" * 10_000)
    small_disk.unfill()
    with pytest.raises(RecordFull):
        journal.append(Warned("w"))
    journal.close()
    with contextlib.suppress(RecordFull):
        log.close()


def test_the_logs_of_a_run_share_a_quota(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/before.log").write_bytes(b"x" * 1000)
    quota = LogQuota(10 << 20)
    first = quota.reserve(tmp_path, 8 << 20)
    second = quota.reserve(tmp_path, 8 << 20)
    assert (first, second) == (8 << 20, (2 << 20) - 1000)
    assert quota.reserve(tmp_path, 8 << 20) == LEAST_LOG
    assert quota.reserve(tmp_path, 100_000) == 100_000
    with CommandLog(tmp_path, "a.log", "b.log", limit=first) as log:
        log.write(Stream.STDOUT, b"little")
    quota.settle(log)
    assert quota.reserve(tmp_path, 8 << 20) > 6 << 20


def test_a_gap_of_unknown_length_is_reported_as_longer(tmp_path: Path) -> None:
    with flooded(tmp_path, 1000) as log:
        log.write(Stream.STDOUT, b"beginning\n")
        log.skip(Stream.STDOUT, 0, more=True)
        log.skip(Stream.STDOUT, 7)
        log.write(Stream.STDOUT, b"end\n")
    assert log.stdout_path.read_text() == "beginning\n... more than 7 bytes left out here by log_limit ...\nend\n"


def test_only_the_beginning_of_repeated_output_is_shown(tmp_path: Path) -> None:
    with flooded(tmp_path, 1000) as log:
        assert log.write(Stream.STDOUT, b"x" * 2000) == 1000
    with flooded(tmp_path, 1000, from_start=True) as log:
        assert log.write(Stream.STDOUT, b"x" * 2000) == 500
