"""A command of an agent that does nothing is reported as stalled, and ended if the step says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pccpipe.executor import command_watch
from pccpipe.outcome import Code, Outcome, Stream
from pccpipe.record.agent_events import AgentChanged, RepairAsked, Stalled
from pccpipe.record.events import CommandEnded, Event, Output
from pccpipe.record.state import state_of
from pccpipe.secrets.proxy.provider_limits import ProviderLimit, ProviderLimits
from pccpipe.target import Chunk, Command
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Stage
from tests.executor.test_agent_limits import AGENTS, grant_of

QUIET = f"""{AGENTS}steps:
  - id: build
    on: container
    container: box
    agent: claude
    prompt: {{text: do it}}
    stalled_after: 1s
    on_stall: ON
    timeout: 30s
"""
ENDS, WARNS = QUIET.replace("ON", "end"), QUIET.replace("ON", "warn")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, secrets={"A": "sk-a-0123456789", "B": "sk-b-0123456789"})


def test_a_quiet_command_is_reported_once_and_goes_on(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=3, cpu=0.0)
    played = stage.play(WARNS)
    (stalled,) = played.notes.of(Stalled)
    assert (stalled.step, stalled.attempt, stalled.message) == ("build", 1, "")
    assert stalled.seconds >= 1
    assert played.end_of("build").outcome is Outcome.SUCCEEDED


def test_on_stall_end_ends_the_attempt_as_timed_out_and_a_retry_may_follow(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=20 if command.serial == 1 else 0, cpu=0.0)
    began = time.monotonic()
    played = stage.play(ENDS.replace("timeout:", "retry: {attempts: 2, backoff: 0, on: [timed_out]}\n    timeout:"))
    assert time.monotonic() - began < 15
    first, second = played.notes.of(CommandEnded)
    assert (first.outcome, second.outcome) == (Outcome.TIMED_OUT, Outcome.SUCCEEDED)
    assert first.message.startswith("stalled: it did nothing for 1")


def test_a_command_that_computes_is_not_stalled(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=3, cpu=0.5)
    played = stage.play(ENDS)
    assert played.notes.of(Stalled) == []
    assert played.end_of("build").outcome is Outcome.SUCCEEDED


def test_where_the_cpu_time_cannot_be_read_the_event_says_so(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=3)
    (stalled,) = stage.play(WARNS).notes.of(Stalled)
    assert stalled.message == "its CPU time cannot be read there"


def test_an_open_call_of_the_model_is_work(stage: Stage) -> None:
    def script(command: Command) -> Play:
        grant, _ = grant_of(stage, command)

        def call() -> None:
            with grant.open_calls:
                time.sleep(2.5)

        threading.Thread(target=call, daemon=True).start()
        return Play(lasts=3, cpu=0.0)

    stage.script = script
    assert stage.play(ENDS).notes.of(Stalled) == []


def test_output_ends_the_stall_in_the_views(stage: Stage) -> None:
    stalled, said = Stalled("build", 1, 60.0), Output("build", Stream.STDOUT, "x")
    state = state_of([Event(1, 100.0, stalled)])
    assert state.steps.get("build") is None or state.step("build").still_since == 40.0
    assert "stalled" in state.warnings[0]
    state.apply(Event(0, 101.0, said))
    assert state.step("build").still_since is None


def test_an_agent_that_hangs_on_at_its_limit_is_ended_and_handed_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_watch, "LIMIT_GRACE", 0.5)

    def script(command: Command) -> Play:
        grant, name = grant_of(stage, command)
        if name == "claude":
            return Play()
        grant.provider_limits.exceed("A", ProviderLimit("answered 429 (rate limit)"))
        return Play(output=(Chunk(Stream.STDOUT, b"I wait an hour\n"),), lasts=20)

    stage.script = script
    began = time.monotonic()
    played = stage.play(WARNS.replace("agent: claude", "agent: [codex, claude]"))
    assert time.monotonic() - began < 15
    assert [change.agent for change in played.notes.of(AgentChanged)] == ["claude"]
    first, second = played.notes.of(CommandEnded)
    assert (first.outcome, first.code, second.outcome) == (Outcome.FAILED, Code.MODEL_LIMITED, Outcome.SUCCEEDED)
    assert "stopped: its provider's limit lasts too long" in first.message


BOTH = WARNS.replace("agent: claude", "agent: [codex, claude]")
LIMIT = ProviderLimit("answered 429 (rate limit)")


def at_its_limit(stage: Stage, meet: Callable[[ProviderLimits], object], lasts: float = 3.0) -> None:
    """Let the first command of codex meet a provider's limit, as `meet` says; all its commands take some seconds."""

    def script(command: Command) -> Play:
        grant, name = grant_of(stage, command)
        if name == "claude":
            return Play()
        if command.serial == 1:
            grant.provider_limits.exceed("A", LIMIT)
            meet(grant.provider_limits)
        ticks = tuple(Chunk(Stream.STDOUT, b"tick\n") for _ in range(3))
        return Play(output=ticks, lasts=lasts, files={"result.json": b"{}"} if command.serial > 1 else {})

    stage.script = script


def test_an_agent_that_gets_a_good_answer_after_its_limit_is_not_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_watch, "LIMIT_GRACE", 0.5)
    under_way = []

    def meet(limits: ProviderLimits) -> None:
        under_way.append(limits.watched("A", iter([b"data: 1\n", b"data: 2\n"])))
        next(under_way[0])

    at_its_limit(stage, meet)
    played = stage.play(BOTH)
    assert played.notes.of(AgentChanged) == []
    assert played.end_of("build").outcome is Outcome.SUCCEEDED


def test_a_repair_is_not_ended_for_a_limit_that_the_first_command_got_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_watch, "LIMIT_GRACE", 0.5)
    (stage.folder / "any.json").write_text('{"type": "object"}')
    at_its_limit(stage, lambda limits: limits.passed("A"), lasts=2.0)
    played = stage.play(f"{BOTH}    result: {{path: result.json, schema: any.json}}\n")
    assert len(played.notes.of(RepairAsked)) == 1
    assert played.notes.of(AgentChanged) == []
    assert played.end_of("build").outcome is Outcome.SUCCEEDED


def test_an_agent_that_was_ended_at_its_limit_is_handed_over_even_if_its_last_call_went_well(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_watch, "LIMIT_GRACE", 0.5)
    met: list[ProviderLimits] = []
    check = command_watch.CommandWatch.check

    def late(watch: command_watch.CommandWatch) -> command_watch.WatchEnd | None:
        if end := check(watch):
            met[0].passed("A")
        return end

    monkeypatch.setattr(command_watch.CommandWatch, "check", late)
    at_its_limit(stage, met.append, lasts=20.0)
    played = stage.play(BOTH)
    assert [change.agent for change in played.notes.of(AgentChanged)] == ["claude"]
    assert played.notes.of(CommandEnded)[0].code is Code.MODEL_LIMITED
