"""A reader of a run's view may be slow, stop, or go away: the run does not wait for it."""

from __future__ import annotations

import threading
import time

import pytest

from pccpipe.outcome import ActionKind, Outcome, Stream
from pccpipe.record.agent_events import Activity
from pccpipe.record.events import CommandEnded, Event, Output, Warned
from pccpipe.views.queued import PATIENCE, QueuedView

MOST = 1 << 20


class Reader:
    """Read events only while allowed."""

    def __init__(self) -> None:
        self.may_read = threading.Event()
        self.events: list[Event] = []
        self.closed = False

    def __call__(self, event: Event) -> None:
        self.may_read.wait()
        self.events.append(event)

    def close(self) -> None:
        self.closed = True

    def text(self, step: str) -> str:
        return "".join(one.what.text for one in self.events if isinstance(one.what, Output) and one.what.step == step)


def output(step: str, text: str) -> Event:
    return Event(0, 0.0, Output(step, Stream.STDOUT, text))


def test_a_reader_that_keeps_up_gets_everything() -> None:
    reader = Reader()
    reader.may_read.set()
    view = QueuedView(reader, most=MOST)
    for number in range(200):
        view(output("a", f"{number:06}\n" * 10_000))
    view.close()
    assert reader.text("a") == "".join(f"{number:06}\n" * 10_000 for number in range(200))
    assert reader.closed


def test_a_reader_that_stops_delays_nothing_and_missed_output_is_counted() -> None:
    reader = Reader()
    view = QueuedView(reader, most=MOST)
    began = time.monotonic()
    for number in range(2000):
        view(output("a", f"{number:06}\n" * 1_000))
        assert view._size < 2 * MOST
    view(Event(1, 0.0, Warned("kept")))
    view(output("a", "the end\n"))
    assert time.monotonic() - began < PATIENCE + 2
    reader.may_read.set()
    view.close()
    text = reader.text("a")
    words = [line for line in text.splitlines() if "not shown" in line]
    left_out = sum(int(line.split()[1].replace(",", "")) for line in words)
    assert words
    assert left_out + sum(len(line) + 1 for line in text.splitlines() if line.isdigit()) == 2000 * 7000
    assert text.endswith("the end\n")
    assert [event.what for event in reader.events if isinstance(event.what, Warned)] == [Warned("kept")]


def test_dropped_output_of_an_ended_command_is_counted_too() -> None:
    reader = Reader()
    view = QueuedView(reader, most=MOST)
    for _ in range(20):
        view(output("a", "x" * 10_000))
    view(Event(1, 0.0, CommandEnded("a", 1, Outcome.SUCCEEDED)))
    for _ in range(200):
        view(output("b", "x" * 10_000))
    reader.may_read.set()
    view.close()
    assert "not shown" in reader.text("a")
    assert "not shown" in reader.text("b")


def test_dropped_actions_of_an_agent_are_counted_as_an_action() -> None:
    reader = Reader()
    view = QueuedView(reader, most=MOST)
    for _ in range(200):
        view(Event(0, 0.0, Activity("a", ActionKind.MESSAGE, "x" * 10_000)))
    view(Event(1, 0.0, CommandEnded("a", 1, Outcome.SUCCEEDED)))
    reader.may_read.set()
    view.close()
    # The views of an agent's step show its actions, and nothing of its stdout.
    texts = [one.what.text for one in reader.events if isinstance(one.what, Activity)]
    [notice] = [text for text in texts if "not shown" in text]
    assert int(notice.split()[1].replace(",", "")) + 10_000 * (len(texts) - 1) == 200 * 10_000
    assert reader.text("a") == ""


def test_a_views_error_is_raised_once_and_the_view_gets_nothing_more() -> None:
    class Broken(Reader):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            raise BrokenPipeError

    reader = Broken()
    reader.may_read.set()
    view = QueuedView(reader, most=MOST)
    view(output("a", "x"))
    view._thread.join()
    with pytest.raises(BrokenPipeError):
        view(output("a", "x"))
    for _ in range(1000):
        view(output("a", "x" * 10_000))
    view.close()
    assert len(reader.events) == 1


def test_close_waits_for_the_reader_and_says_so() -> None:
    reader = Reader()
    waits: list[bool] = []

    def wait() -> None:
        waits.append(True)
        reader.may_read.set()

    view = QueuedView(reader, wait)
    view(output("a", "x"))
    view.close()
    assert waits == [True]
    assert reader.closed
