"""One thread makes all later calls."""

from __future__ import annotations

import threading

import pytest

from pccpipe.record import ticker
from pccpipe.record.ticker import Ticker
from tests.targets.stand import until


def test_calls_come_in_order_from_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticker, "_IDLE", 0.2)
    own = Ticker()
    came: list[str] = []
    own.call_in(0.2, lambda: came.append("third"))
    own.call_in(0.1, lambda: came.append("second"))
    own.call_in(0.15, lambda: came.append("never")).cancel()
    own.call_in(0.0, lambda: came.append("first"))
    until(lambda: len(came) == 3)
    assert came == ["first", "second", "third"]
    until(lambda: not own._is_running)
    own.call_in(0.0, lambda: came.append("later"))
    until(lambda: came[-1] == "later")


def test_a_call_may_repeat_itself_and_any_thread_may_add_calls() -> None:
    own = Ticker()
    counts = [0] * 50

    def count(number: int) -> None:
        counts[number] += 1
        if counts[number] < 5:
            own.call_in(0.01, lambda: count(number))

    for number in range(50):
        threading.Thread(target=own.call_in, args=(0.01, lambda number=number: count(number))).start()
    until(lambda: counts == [5] * 50)
