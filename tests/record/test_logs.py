from __future__ import annotations

from pathlib import Path

from pccpipe.outcome import Stream
from pccpipe.record.logs import CommandLog, tail


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


def test_the_tail_of_what_is_no_text_is_text(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"a\xff\n")
    assert tail(tmp_path / "x.log", 10) == "a�\n"
