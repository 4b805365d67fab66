"""A provider's limit passes a step to its next agent; after the last one the run waits, without a process."""

from __future__ import annotations

import time

import pytest

from pccpipe.executor import agents
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, Outcome
from pccpipe.record.agent_events import AgentChanged, ModelLimited, StepWaiting
from pccpipe.record.events import CommandEnded, CommandStarted, Event, Happening, StepEnded
from pccpipe.record.run_events import RunResumed, RunWaiting
from pccpipe.secrets.proxy.grant import Grant
from pccpipe.secrets.proxy.provider_limits import ProviderLimit
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Notes, Played, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began
from tests.record.script import events as stamped

AGENTS = """
secrets:
  A: {from: env, via: proxy, api: openai}
  B: {from: env, via: proxy, api: anthropic}
containers: {box: {image: i, network: none}}
agents:
  codex: {use: codex, model: m, secret: A}
  claude: {use: claude-code, model: m, secret: B}
"""
STEP = """
  - id: build
    on: container
    container: box
    agent: [codex, claude]
    prompt: {text: do it}
"""
TWO = f"{AGENTS}steps:{STEP}  - {{id: after, run: x}}\n"
MODELS = {"A": "codex", "B": "claude"}


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("limits"), secrets={"A": "sk-a-0123456789", "B": "sk-b-0123456789"})


def grant_of(stage: Stage, command: Command) -> tuple[Grant, str]:
    """Return the grant of a command, and the name of its agent."""
    for value in command.secrets.values():
        held = stage.proxy.holder(value)
        if held and held[1]:
            return held[0], MODELS[held[1].secret]
    raise AssertionError("it has no token")


def limited(stage: Stage, *names: str, until: float | None = None, code: int = 1, times: int = 99) -> list[str]:
    """Let the named agents meet a provider's limit; return the agents that begin, as they do."""
    begun: list[str] = []

    def script(command: Command) -> Play:
        if command.step != "build":
            return Play()
        grant, name = grant_of(stage, command)
        if command.id not in [each.split()[0] for each in begun]:
            begun.append(f"{command.id} {name}")
        if name in names and sum(each.endswith(name) for each in begun) <= times:
            grant.provider_limits.exceed("K", ProviderLimit("answered 429 (rate limit)", until))
            return Play(exit=Exit(code))
        return Play()

    stage.script = script
    return begun


def past_of(played: Played, *more: Happening) -> Replay:
    return Replay(stamped([began(), *played.notes.happenings, *more], time.time() - 1000))


def test_the_next_agent_takes_over_in_the_same_step(stage: Stage) -> None:
    begun = limited(stage, "codex")
    played = stage.play(TWO)
    assert begun == ["build-1 codex", "build-2 claude"]
    assert played.state.outcome is Outcome.SUCCEEDED
    (changed,) = played.notes.of(AgentChanged)
    assert (changed.step, changed.attempt, changed.agent, changed.after) == ("build", 2, "claude", "codex")
    assert changed.message.startswith("the model's API answered 429 (rate limit)")
    assert [each.code for each in played.notes.of(CommandEnded) if each.step == "build"] == [Code.MODEL_LIMITED, None]


def test_after_the_last_agent_the_run_waits_until_the_first_limit_passes(stage: Stage) -> None:
    due = time.time() + 900
    limited(stage, "codex", "claude", until=due)
    played = stage.play(TWO)
    ending = played.ending
    assert isinstance(ending, RunWaiting)
    assert played.state.status == "waiting_for_model"
    assert ending.due == pytest.approx(due)
    assert "build waits for its model: the model's API answered 429" in ending.message
    assert played.notes.of(StepEnded) == []
    assert all(target.closed for target in played.targets.values())
    assert "remove" in played.workspace.calls


@pytest.mark.parametrize(("waits", "seconds"), [(0, 300), (1, 600), (3, 2400), (4, 3600), (500, 3600)])
def test_without_a_time_each_wait_is_twice_as_long_up_to_an_hour(waits: int, seconds: float) -> None:
    assert agents._due([ModelLimited("a", 1, "x"), None], waits) == pytest.approx(time.time() + seconds, abs=5)


def test_the_due_time_is_that_of_the_first_limit_and_never_at_once() -> None:
    soon, late = time.time() + 100, time.time() + 5000
    assert agents._due([ModelLimited("a", 1, "x", late), ModelLimited("a", 2, "x", soon)], 0) == pytest.approx(soon)
    past = ModelLimited("a", 1, "x", time.time() - 50)
    assert agents._due([past], 0) == pytest.approx(time.time() + agents.SHORTEST_WAIT, abs=5)


def test_a_resumed_run_begins_with_the_first_agent_again_and_waiting_took_none_of_its_time(stage: Stage) -> None:
    limited(stage, "codex", "claude", until=time.time() + 900)
    text = TWO.replace("prompt:", "timeout: 100s\n    prompt:")
    first = stage.play(text)
    begun = limited(stage)
    assert isinstance(first.ending, RunWaiting)
    again = stage.play(text, Notes(), None, past_of(first, first.ending, RunResumed("1", "h", 1)))
    assert begun == ["build-3 codex"]
    assert again.state.outcome is Outcome.SUCCEEDED
    assert again.notes.of(AgentChanged) == []


def test_the_backoff_grows_over_resumes(stage: Stage) -> None:
    limited(stage, "codex", "claude")
    first = stage.play(TWO)
    assert isinstance(first.ending, RunWaiting)
    second = stage.play(TWO, Notes(), None, past_of(first, first.ending, RunResumed("1", "h", 1)))
    assert isinstance(second.ending, RunWaiting)
    assert second.ending.due == pytest.approx(time.time() + 600, abs=20)


@pytest.mark.parametrize("life", range(3, 16))
def test_a_run_killed_at_any_event_ends_the_same_way(stage: Stage, life: int) -> None:
    begun = limited(stage, "codex", times=1)
    notes, targets = MortalNotes(life), stage.targets()
    try:
        stage.play(TWO, notes, targets)
    except KilledError:
        pass
    else:
        return
    replay = Replay(stamped([began(), *notes.happenings], time.time() - 100))
    resumed = stage.play(TWO, Notes(), targets, replay)
    assert resumed.state.outcome is Outcome.SUCCEEDED
    assert begun == ["build-1 codex", "build-2 claude"]
    changes = [each for each in (*notes.happenings, *resumed.notes.happenings) if isinstance(each, AgentChanged)]
    assert len(changes) == 1


@pytest.mark.parametrize("life", range(3, 20))
def test_a_run_killed_on_its_way_to_wait_waits_after_a_resume(stage: Stage, life: int) -> None:
    limited(stage, "codex", "claude", times=1)
    notes, targets = MortalNotes(life), stage.targets()
    try:
        stage.play(TWO, notes, targets)
    except KilledError:
        pass
    else:
        return
    replay = Replay(stamped([began(), *notes.happenings], time.time() - 100))
    resumed = stage.play(TWO, Notes(), targets, replay)
    waited = any(isinstance(each, StepWaiting) for each in notes.happenings)
    assert resumed.state.status == ("succeeded" if waited else "waiting_for_model")


def test_the_result_of_an_agent_that_coped_counts(stage: Stage) -> None:
    begun = limited(stage, "codex", code=0)
    assert stage.play(TWO).state.outcome is Outcome.SUCCEEDED
    assert begun == ["build-1 codex"]


def test_an_agent_that_gives_up_before_its_limit_passes_is_handed_over(stage: Stage) -> None:
    soon = time.time() + 5

    def script(command: Command) -> Play:
        if command.step != "build":
            return Play()
        grant, name = grant_of(stage, command)
        if name == "claude":
            return Play()
        assert grant.provider_limits.wait("K", ProviderLimit("answered 503 (overloaded)", soon))
        return Play(exit=Exit(1))

    stage.script = script
    played = stage.play(TWO)
    assert [change.agent for change in played.notes.of(AgentChanged)] == ["claude"]
    (limit,) = played.notes.of(ModelLimited)
    assert limit.until == pytest.approx(soon)


def test_another_failure_is_not_handed_over(stage: Stage) -> None:
    begun = limited(stage)
    inner = stage.script

    def script(command: Command) -> Play:
        inner(command)
        return Play(exit=Exit(1))

    stage.script = script
    played = stage.play(TWO)
    assert (played.end_of("build").outcome, begun) == (Outcome.FAILED, ["build-1 codex"])


def test_a_retry_does_not_repeat_an_agent_at_its_limit(stage: Stage) -> None:
    begun = limited(stage, "codex")
    stage.play(TWO.replace("prompt:", "retry: {attempts: 3, backoff: 0}\n    prompt:"))
    assert begun == ["build-1 codex", "build-2 claude"]


def test_a_step_beside_a_waiting_one_runs_to_its_end_and_is_not_repeated(stage: Stage) -> None:
    inner = STEP.replace("\n  ", "\n      ")
    text = f"{AGENTS}steps:\n  - id: both\n    parallel:{inner}      - {{id: other, run: x}}\n"
    limited(stage, "codex", "claude", until=time.time() + 900)
    stage_script = stage.script
    first = stage.play(text)
    assert first.state.status == "waiting_for_model"
    assert [end.step for end in first.notes.of(StepEnded)] == ["both.other"]
    limited(stage)
    assert stage_script is not stage.script
    assert isinstance(first.ending, RunWaiting)
    second = stage.play(text, Notes(), None, past_of(first, first.ending, RunResumed("1", "h", 1)))
    assert second.state.outcome is Outcome.SUCCEEDED
    assert [each.step for each in second.notes.of(CommandStarted)] == ["both.build"]


def test_a_cancelled_run_does_not_wait_for_a_model(stage: Stage) -> None:
    limited(stage, "codex", "claude", until=time.time() + 900)
    first = stage.play(TWO)
    assert isinstance(first.ending, RunWaiting)
    stage.cancel.request("cancel")
    resumed = stage.play(TWO, Notes(), None, past_of(first, first.ending, RunResumed("1", "h", 1)))
    assert resumed.state.outcome is Outcome.CANCELLED


def test_a_step_under_always_fails_instead_of_waiting(stage: Stage) -> None:
    limited(stage, "codex", "claude")
    played = stage.play(f"{AGENTS}steps: [{{id: first, run: x}}]\nalways:{STEP}")
    assert played.end_of("build").code is Code.MODEL_LIMITED
    assert not isinstance(played.ending, RunWaiting)


def test_the_events_that_an_older_version_wrote_are_read(stage: Stage) -> None:
    replay = Replay([Event(1, 0.0, RunWaiting("x"))])
    assert replay.was_paused
