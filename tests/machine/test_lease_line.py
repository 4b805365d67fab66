"""Queues the runs of one process that wait for the lease of the same machine."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pccpipe.errors import VmBusy
from pccpipe.machine.base import Done
from pccpipe.machine.lease import Lease
from pccpipe.machine.local import LocalMachine
from tests.machine.test_lease import HOLDER, held, root, take, until

__all__ = ["root"]


class Counting(LocalMachine):
    """A machine that counts its scripts."""

    scripts = 0

    def run(self, script: str, timeout: float = 60.0) -> Done:
        self.scripts += 1
        return super().run(script, timeout)


def test_runs_of_one_process_get_the_lease_in_order_and_only_the_first_asks(root: str) -> None:
    machine = Counting()
    first, *others = (Lease(machine, root, f"run-{n}", holder=HOLDER, in_line_for=root) for n in range(6))
    order: list[int] = []

    def run(number: int, lease: Lease) -> None:
        lease.acquire(30, lambda: False, lambda words: None)
        order.append(number)
        lease.release()

    with held(first), ThreadPoolExecutor(len(others)) as pool:
        ran = []
        for number, lease in enumerate(others):
            ran.append(pool.submit(run, number, lease))
            while len(first._line._waiting) <= number:
                time.sleep(0.01)
            time.sleep(0.1)
        time.sleep(3)
        # The first one of them, about once a second.
        assert machine.scripts <= 2 + 6
        first.release()
        began = time.monotonic()
        for each in ran:
            each.result()
        assert time.monotonic() - began < 4
    assert order == [0, 1, 2, 3, 4]


def test_a_run_that_is_not_the_first_in_line_does_nothing_with_the_machine(root: str) -> None:
    machine = Counting()
    words_on_wait: list[str] = []
    first, second = (Lease(LocalMachine(), root, f"run-{n}", holder=HOLDER, in_line_for=root) for n in range(2))
    third = Lease(machine, root, "run-2", holder=HOLDER, in_line_for=root)
    with held(first), ThreadPoolExecutor(2) as pool:
        before = pool.submit(second.acquire, 30, lambda: False, lambda words: None)
        until(lambda: len(first._line._waiting) == 1)
        waiting = pool.submit(third.acquire, 30, lambda: False, words_on_wait.append)
        until(lambda: len(first._line._waiting) == 2)
        time.sleep(1.5)
        assert machine.scripts == 0
        assert words_on_wait == ["waiting for the VM localhost: other runs of this process come before this one"]
        first.release()
        before.result()
        until(lambda: len(words_on_wait) == 2)
        assert words_on_wait[1].startswith("waiting for the VM localhost: run run-1 ")
        second.release()
        waiting.result()
        third.release()


def test_a_run_that_waits_in_line_gives_up_in_time(root: str) -> None:
    first, second, third = (Lease(LocalMachine(), root, f"run-{n}", holder=HOLDER, in_line_for=root) for n in range(3))
    with held(first), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.acquire, 5, lambda: False, lambda words: None)
        until(lambda: third._line._waiting)
        began = time.monotonic()
        with pytest.raises(VmBusy, match="run run-0"):
            take(third, 1.5)
        with pytest.raises(VmBusy):
            third.acquire(60, lambda: time.monotonic() - began > 2.5, lambda words: None)
        assert time.monotonic() - began < 5
        first.release()
        waiting.result()
        second.release()
