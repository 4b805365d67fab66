"""Work in a process of its own: its result, and its limits."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe import limits
from pccpipe.apart import apart
from pccpipe.errors import LimitExceeded
from pccpipe.limits import Limit, Unit

SECOND = Limit("the time", 1, Unit.SECONDS, "a test")


def upper(data: bytes) -> bytes:
    return data.upper()


def refuses(data: bytes) -> bytes:
    raise ValueError(data.decode() * 10_000)


def computes(data: bytes) -> bytes:
    while True:
        pass


def sleeps(data: bytes) -> bytes:
    time.sleep(60)
    return b""


def hoards(data: bytes) -> bytes:
    return b"x" * (limits.APART_MEMORY.most + 1)


def recurses(data: bytes) -> bytes:
    return recurses(data)


def names_itself(data: bytes) -> bytes:
    return f"{os.getpid()} {Path.cwd()}".encode()


def children() -> list[str]:
    """Return the child processes of this thread."""
    task = Path("/proc/self/task")
    return [pid for thread in task.iterdir() for pid in (thread / "children").read_text().split()]


def test_the_work_gets_all_pieces_and_returns_its_result() -> None:
    pieces = [b"ab" * 500_000, b"", b"c"]
    assert b"".join(apart(upper, pieces, "it")) == b"AB" * 500_000 + b"C"
    pid, folder = b"".join(apart(names_itself, [], "it")).split()
    assert int(pid) != os.getpid()
    assert folder == b"/"


def test_an_error_comes_back_in_a_bounded_number_of_words() -> None:
    with pytest.raises(ValueError, match=r"^nonono") as caught:
        apart(refuses, [b"no"], "it")
    assert len(str(caught.value)) == 4000


def test_endless_work_is_ended_by_its_processor_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(LimitExceeded, match="the time for reading it exceeds the limit of 1 s"):
        apart(computes, [], "it", SECOND)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 2 * SECOND.most + 1, "ended by the kernel, before the watchdog"


def test_waiting_work_is_ended_too() -> None:
    began = time.monotonic()
    with pytest.raises(LimitExceeded, match="the time for reading it"):
        apart(sleeps, [], "it", SECOND)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("work", [hoards, recurses])
def test_work_that_takes_too_much_memory_is_ended(work: object) -> None:
    with pytest.raises(LimitExceeded, match="the memory for reading it exceeds the limit of 1 GiB"):
        apart(work, [], "it")  # type: ignore[arg-type]


def test_no_process_stays_when_the_data_cannot_be_read() -> None:
    def cut() -> Iterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    before = set(children())
    with pytest.raises(ConnectionResetError):
        apart(sleeps, cut(), "it")
    assert set(children()) <= before


def test_it_ignores_settings_of_python_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "sitecustomize.py").write_text(f"open({str(trace)!r}, 'w')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert apart(upper, [b"a"], "it") == [b"A"]
    assert not trace.exists()
