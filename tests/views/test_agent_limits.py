"""Every view says that an agent took over, that a command is stalled, and until when a run waits for its model."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.outcome import Outcome
from pccpipe.record.agent_events import AgentChanged, ModelLimited, Stalled, StepWaiting
from pccpipe.record.events import CommandEnded, CommandStarted, Happening, StepStarted
from pccpipe.record.run_events import RunWaiting
from pccpipe.record.state import RunState
from pccpipe.views.board import board
from pccpipe.views.plain import PlainView
from pccpipe.views.show import show_text
from tests.record.script import BOXED, START, events, started

DUE = START + 3600
RECORD = Path("runs/r1")
LIMITED = "the model's API answered 429"
BEFORE: list[Happening] = [
    started(),
    StepStarted("build", "agent"),
    CommandStarted("build", 1, "c1", BOXED, "out", "err", agent="codex"),
    ModelLimited("build", 1, "answered 429 (rate limit)", DUE),
    CommandEnded("build", 1, Outcome.FAILED, 1),
    AgentChanged("build", 2, "claude", "codex", LIMITED),
    CommandStarted("build", 2, "c2", BOXED, "out", "err", agent="claude"),
]
STALLED: list[Happening] = [*BEFORE, Stalled("build", 2, 720.0, "its CPU time cannot be read there")]
WAITING: list[Happening] = [
    *STALLED,
    CommandEnded("build", 2, Outcome.FAILED, 1),
    StepWaiting("build", LIMITED, DUE),
    RunWaiting(f"build waits for its model: {LIMITED}", DUE),
]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def state_after(happenings: list[Happening]) -> RunState:
    state = RunState()
    for event in events(happenings):
        state.apply(event)
    return state


def test_the_live_view_says_who_took_over_and_for_how_long_it_is_stalled() -> None:
    lines = board(state_after(STALLED), lambda _, __: [], START + 67, 250, 20)
    text = "\n".join("".join(piece for piece, _ in line) for line in lines)
    assert "claude after codex" in text
    assert "stalled for 13m00s" in text


def test_the_plain_view_has_a_line_for_each() -> None:
    written = io.StringIO()
    view = PlainView(written, RECORD)
    for event in events(WAITING):
        view(event)
    text = written.getvalue()
    assert "build the model's API answered 429 (rate limit) until 2023-11-14 23:13:20: the attempt ends" in text
    assert f"build AGENT CHANGED: claude takes over from codex: {LIMITED}" in text
    assert (
        "build stalled: no output, no call of a model and no CPU time for 12m00s (its CPU time cannot be read" in text
    )
    assert f"build waits for its model until 2023-11-14 23:13:20: {LIMITED}" in text
    assert f"handover: build: claude took over from codex: {LIMITED}" in text
    assert "to continue each run that is due: pccpipe resume --due --runs-dir runs" in text
    assert f"waiting_for_model: build waits for its model: {LIMITED}" in text


def test_the_record_as_text_and_as_json_has_them() -> None:
    state = state_after(WAITING)
    text = "\n".join(show_text(state, RECORD))
    assert f"AGENT CHANGED build: claude took over from codex: {LIMITED}" in text
    assert "The run waits for its model until 2023-11-14 23:13:20" in text
    assert "warning: build: stalled: no output" in text
    written = state.to_json()
    assert (written["status"], written["due"]) == ("waiting_for_model", "2023-11-14T23:13:20.000+00:00")
    assert written["agent_changes"] == [
        {"step": "build", "attempt": 2, "agent": "claude", "after": "codex", "message": LIMITED}
    ]
