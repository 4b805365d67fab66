"""Events that a stranger can cause at will do not fill the journal."""

from __future__ import annotations

from pathlib import Path

from pccpipe import limits
from pccpipe.layout import EVENTS
from pccpipe.outcome import Outcome
from pccpipe.record.agent_events import ModelUsed
from pccpipe.record.events import CommandEnded, StepStarted, Warned
from pccpipe.record.journal import Journal, read_events
from pccpipe.record.run_events import RunEnded


def used(calls: int, step: str = "a") -> ModelUsed:
    return ModelUsed(step, calls, 0, 10 * calls, 0, 5 * calls, 0)


def test_twenty_thousand_calls_of_a_model_make_few_events_and_keep_the_last_account(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "r")
    for calls in range(1, 20_001):
        journal.append(used(calls))
    journal.append(used(7, "other"))
    journal.append(CommandEnded("a", 1, Outcome.SUCCEEDED))
    journal.close()
    happened = [event.what for event in read_events(tmp_path / "r")]
    of_step = [what for what in happened if isinstance(what, ModelUsed) and what.step == "a"]
    assert of_step[:1000] == [used(calls) for calls in range(1, 1001)]
    assert len(of_step) < 1100
    assert of_step[-1] == used(20_000)
    assert used(7, "other") in happened
    assert isinstance(happened[-1], CommandEnded)
    assert (tmp_path / "r" / EVENTS).stat().st_size < 450_000


def test_surplus_warnings_are_counted(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "r")
    journal.append(StepStarted("a", "run"))
    for number in range(5000):
        journal.append(Warned(f"warning {number}", "a"))
        journal.append(Warned(f"warning {number}"))
    journal.append(CommandEnded("a", 1, Outcome.FAILED))
    journal.append(RunEnded(Outcome.FAILED, "failed", downgraded=False, seconds=1.0))
    journal.close()
    events = list(read_events(tmp_path / "r"))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    warned = [event.what for event in events if isinstance(event.what, Warned)]
    assert len(warned) == 2 * limits.WARNINGS.most + 2
    assert Warned("4800 more warnings are left out: there were over 200", "a") in warned
    assert warned[-1] == Warned("4800 more warnings are left out: there were over 200")
