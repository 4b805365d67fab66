"""What a project spends in a day is counted over all runs and processes on this machine."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pccpipe.secrets.proxy import day as day_module
from pccpipe.secrets.proxy.accounts import Money, SpendLimits
from pccpipe.secrets.proxy.day import DayAccount

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def account(folder: Path, clock: Clock, tokens: int = 1000) -> DayAccount:
    return DayAccount(folder / "p", SpendLimits(tokens), "r", clock)


def left(of: DayAccount) -> int:
    with of.held():
        return of.left_tokens


def reserve(of: DayAccount, tokens: int) -> str:
    with of.held():
        return of.reserve(Money(tokens, 10 * tokens))


def test_two_runs_see_what_the_other_reserves_and_settles(tmp_path: Path, clock: Clock) -> None:
    one, other = account(tmp_path, clock), account(tmp_path, clock)
    day = reserve(one, 700)
    assert left(other) == 300
    one.settle(Money(700, 7000), Money(200, 2000), day)
    assert left(other) == 800
    assert other.used == Money(200, 2000)
    assert left(account(tmp_path, clock)) == 800
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "p" / day.split()[0]).stat().st_mode & 0o777 == 0o600


KILLED = """
import os, signal, sys
from pathlib import Path
from pccpipe.secrets.proxy.accounts import Money, SpendLimits
from pccpipe.secrets.proxy.day import DayAccount
of = DayAccount(Path(sys.argv[1]), SpendLimits(1000), "r", lambda: float(sys.argv[2]))
with of.held():
    of.reserve(Money(600, 1))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_its_reservation_and_no_lock(tmp_path: Path, clock: Clock) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "p"), str(NOON)], check=False, timeout=60)
    assert left(account(tmp_path, clock)) == 400


def test_a_call_of_another_run_is_under_way_until_its_end_or_that_of_its_process(tmp_path: Path, clock: Clock) -> None:
    one, other = account(tmp_path, clock), account(tmp_path, clock)
    day = reserve(one, 700)
    assert (left(one), left(other)) == (300, 300)
    assert (one.has_others, other.has_others) == (False, True)
    one.settle(Money(700, 7000), Money(700, 7000), day)
    assert left(other) == 300
    assert not other.has_others
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "p"), str(NOON)], check=False, timeout=60)
    assert left(other) == 0
    assert not other.has_others


def test_many_processes_lose_no_line(tmp_path: Path, clock: Clock) -> None:
    code = KILLED.replace("    os.kill(os.getpid(), signal.SIGKILL)\n", "").replace("Money(600, 1)", "Money(1, 1)")
    code = code.replace("with of.held():\n    of", "for _ in range(100):\n  with of.held():\n    of")
    command = [sys.executable, "-c", code, str(tmp_path / "p"), str(NOON)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert left(account(tmp_path, clock)) == 600


@pytest.mark.parametrize("torn", [b'{"run": "r", "tok', b"\xff\xfe", b'{"tokens": 5}', b"[" * 5000, b'{"tokens": "x"}'])
def test_a_torn_or_strange_line_counts_nothing_and_spoils_no_other(tmp_path: Path, clock: Clock, torn: bytes) -> None:
    one = account(tmp_path, clock)
    day = reserve(one, 100)
    with (tmp_path / "p" / day.split()[0]).open("ab") as file:
        file.write(torn)
    two = account(tmp_path, clock)
    reserve(two, 50)
    reserve(one, 30)
    assert left(account(tmp_path, clock)) == left(one) == left(two) == 820


def test_a_line_that_a_full_disk_cut_refuses_its_call(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = account(tmp_path, clock)
    reserve(one, 100)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:9]))
    with pytest.raises(OSError, match="space"):
        reserve(one, 200)
    monkeypatch.undo()
    reserve(one, 50)
    assert left(account(tmp_path, clock)) == left(one) == 850


def test_a_settlement_that_a_full_disk_refuses_leaves_the_reservation(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = account(tmp_path, clock)
    day = reserve(one, 300)

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "write", full)
    one.settle(Money(300, 3000), Money(1, 1), day)
    monkeypatch.undo()
    assert left(one) == 700


def test_a_call_over_midnight_belongs_to_the_day_when_it_began(tmp_path: Path, clock: Clock) -> None:
    one = account(tmp_path, clock)
    clock.now = NOON + DAY / 2 - 1
    day = reserve(one, 700)
    clock.now += 2
    assert left(one) == 1000
    reserve(one, 10)
    one.settle(Money(700, 7000), Money(500, 5000), day)
    assert left(one) == 990
    clock.now = NOON
    later = DayAccount(tmp_path / "p", SpendLimits(1000), "r", lambda: NOON - DAY)
    assert left(later) == 500


def test_a_clock_that_is_set_back_over_midnight_gives_no_second_account(tmp_path: Path, clock: Clock) -> None:
    one = account(tmp_path, clock)
    clock.now = NOON + DAY
    reserve(one, 900)
    clock.now = NOON
    assert left(one) == 100


def test_a_process_that_holds_the_lock_for_long_refuses_a_call(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_module, "LOCK_LIMIT", 0.1)
    one = account(tmp_path, clock)
    day = reserve(one, 1)
    with (tmp_path / "p" / day.split()[0]).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"\w"):
            reserve(one, 1)


def test_old_days_go_and_a_link_is_not_followed(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "2026-10-01").write_text("")
    (folder / "2026-11-29").write_text("")
    reserve(account(tmp_path, clock), 1)
    assert sorted(path.name for path in folder.iterdir()) == ["2026-11-29", "2026-11-30"]
    (folder / "2026-11-30").unlink()
    (folder / "2026-11-30").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"\w"):
        reserve(account(tmp_path, clock), 1)
    assert not (tmp_path / "elsewhere").exists()
