"""A step whose budget is used up waits for a person with `at_end: ask`, who raises it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest

from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, Outcome
from pccpipe.record.events import CommandStarted, Event, Happening, InputAsked, InputGiven, ModelUsed, StepEnded
from pccpipe.record.run_events import RunResumed, RunWaiting
from pccpipe.record.state import RunState, state_of
from pccpipe.secrets.prices import Price, Prices
from pccpipe.secrets.proxy.meter import BudgetExceededError, WantedCall
from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Notes, Played, Stage

TEXT = """
secrets: {KEY: {from: env, via: proxy, upstream: "http://192.0.2.1:9/v1"}}
steps:
  - {id: build, on: %s, run: work, secrets: [KEY], budget: {%s, at_end: ask}, retry: {attempts: 3, backoff: 0}}
  - {id: after, run: "true"}
"""
TOKENS = TEXT % ("vm", "tokens: 10k")
PRICES = Prices("2026-11-30", {"m": Price(1, 10)})


class Agent:
    """An agent that makes calls of 4,000 tokens of output until it has 5, or the budget ends."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.done = 0
        stage.secrets, stage.script = {"KEY": "sk-1-0123456789"}, self.play

    def play(self, command: Command) -> Play:
        if command.step != "build":
            return Play()
        held = self.stage.proxy.holder(command.secrets["KEY"])
        assert held is not None
        meter = held[0].meter
        with contextlib.suppress(BudgetExceededError):
            while self.done < 5:
                reserved = meter.reserve(WantedCall(10, 2, 4000, model="m"), lambda: True)
                if (reserved.output or 0) < 4000:
                    meter.settle(reserved, Tokens(0, 0, 0))
                    meter.reserve(WantedCall(10**6, 10**6, model="m"), lambda: True)
                meter.settle(reserved, Tokens(0, 0, 4000))
                self.done += 1
        return Play(exit=Exit(0 if self.done == 5 else 1))


@pytest.fixture
def agent(stage: Stage) -> Agent:
    stage.prices = PRICES
    return Agent(stage)


def replay(happenings: Sequence[Happening]) -> Replay:
    return Replay(Event(number, float(number), what) for number, what in enumerate(happenings, 1))


def whole(played: Played) -> list[Happening]:
    return [*played.notes.happenings, played.ending]


def raised(played: Played, **raises: float) -> list[Happening]:
    values = {key: str(value) for key, value in raises.items()}
    return [*whole(played), InputGiven("build", values, raises), RunResumed("1", "h", 1)]


def state(happenings: Sequence[Happening]) -> RunState:
    return state_of(Event(number, float(number), what) for number, what in enumerate(happenings, 1))


def test_the_run_waits_and_a_raised_budget_lets_the_same_step_go_on(stage: Stage, agent: Agent) -> None:
    first = stage.play(TOKENS)
    assert isinstance(first.ending, RunWaiting)
    assert "build needs a higher budget of tokens" in first.ending.message
    (asked,) = first.notes.of(InputAsked)
    assert asked.above == {"budget": 10_000}
    assert "8,000 of the step's budget of 10,000 tokens are used" in asked.tried
    assert not first.notes.of(StepEnded)
    assert len(first.notes.of(CommandStarted)) == 1
    assert state(whole(first)).status == "waiting_for_input"
    second = stage.play(TOKENS, replay=replay(raised(first, budget=100_000)))
    assert [end[1] for end in second.ends] == ["succeeded", "succeeded"]
    assert agent.done == 5
    (started, _) = second.notes.of(CommandStarted)
    assert started.attempt == 1
    used = second.notes.of(ModelUsed)[-1]
    assert (used.budget_tokens, used.output_tokens, used.refused) == (100_000, 20_000, 0)


def test_money_is_asked_for_likewise(stage: Stage, agent: Agent) -> None:
    text = TEXT % ("local", "tokens: 10M, usd: 0.1")
    first = stage.play(text)
    (asked,) = first.notes.of(InputAsked)
    assert asked.above == {"usd": 0.1}
    assert "USD in all rounds, above 0.10 USD" in str(asked.inputs["usd"])
    second = stage.play(text, replay=replay(raised(first, usd=5)))
    assert second.ending.outcome is Outcome.SUCCEEDED  # type: ignore[union-attr]
    used = second.notes.of(ModelUsed)[-1]
    assert (used.usd, used.budget_usd) == (0.2, 5.0)


def test_a_raise_that_is_too_small_leads_to_another_question(stage: Stage, agent: Agent) -> None:
    first = stage.play(TOKENS)
    second = stage.play(TOKENS, replay=replay(raised(first, budget=10_001)))
    assert isinstance(second.ending, RunWaiting)
    (asked,) = second.notes.of(InputAsked)
    assert asked.above == {"budget": 10_001}
    past = [*raised(first, budget=10_001), *second.notes.happenings, second.ending]
    past += [InputGiven("build", {"budget": "90k"}, {"budget": 90_000}), RunResumed("1", "h", 1)]
    third = stage.play(TOKENS, replay=replay(past))
    assert third.ending.outcome is Outcome.SUCCEEDED  # type: ignore[union-attr]


@pytest.mark.parametrize("on", ["vm", "local"])
def test_a_kill_at_any_event_before_the_answer_ends_in_the_same_question(stage: Stage, agent: Agent, on: str) -> None:
    text = TEXT % (on, "tokens: 10k")
    first = whole(stage.play(text))
    over = next(number for number, what in enumerate(first) if type(what).__name__ == "CommandEnded")
    for kill in range(over + 1, len(first)):
        agent.done = 5
        targets = stage.targets()
        again = stage.play(text, Notes(), targets, replay(first[:kill]))
        assert isinstance(again.ending, RunWaiting), first[kill - 1]
        past = [*first[:kill], *again.notes.happenings]
        assert len([what for what in past if isinstance(what, InputAsked)]) == 1
        assert not again.notes.of(CommandStarted)


@pytest.mark.parametrize("on", ["vm", "local"])
def test_a_kill_at_any_event_after_the_answer_ends_in_success(stage: Stage, agent: Agent, on: str) -> None:
    text = TEXT % (on, "tokens: 10k")
    first = raised(stage.play(text), budget=100_000)
    done = agent.done
    targets = stage.targets()
    second = stage.play(text, Notes(), targets, replay(first))
    for kill in range(len(second.notes.happenings)):
        agent.done = done
        past = [*first, *second.notes.happenings[:kill], RunResumed("1", "h", 2)]
        again = stage.play(text, Notes(), targets, replay(past))
        assert again.ending.outcome is Outcome.SUCCEEDED, kill  # type: ignore[union-attr]
        assert not again.notes.of(InputAsked)


def test_a_cancelled_run_does_not_ask(stage: Stage, agent: Agent) -> None:
    first = whole(stage.play(TOKENS))
    stage.cancel.request("signal")
    again = stage.play(TOKENS, replay=replay(first))
    assert again.ending.outcome is Outcome.FAILED  # type: ignore[union-attr]
    assert again.end_of("build").code is Code.BUDGET_EXCEEDED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TOKENS.replace(", at_end: ask", ""), "raise `budget: tokens` of build"),
        (TOKENS.replace("budget:", "max_tokens: 5000, budget:"), "raise `max_tokens` of build"),
        (TOKENS.replace("steps:", "budget: {tokens: 5k}\nsteps:"), "raise `budget: tokens` of the pipeline"),
        (TOKENS.replace("steps:", "budget: {usd: 0.04001}\nsteps:"), "raise `budget: usd` of the pipeline"),
    ],
)
def test_other_limits_end_the_step_and_name_the_fix(stage: Stage, agent: Agent, text: str, words: str) -> None:
    played = stage.play(text.replace("attempts: 3", "attempts: 1"))
    end = played.end_of("build")
    assert (end.outcome, end.code) == (Outcome.FAILED, Code.BUDGET_EXCEEDED)
    assert words in end.message
    assert not played.notes.of(InputAsked)


def test_an_always_step_does_not_wait(stage: Stage, agent: Agent) -> None:
    text = TOKENS.replace("steps:\n", 'steps: [{id: one, run: "true"}]\nalways:\n').replace(
        "attempts: 3", "attempts: 1"
    )
    played = stage.play(text)
    assert played.ending.outcome is Outcome.FAILED  # type: ignore[union-attr]


def test_the_budget_of_a_run_holds_over_its_steps_and_after_a_resume(stage: Stage, agent: Agent) -> None:
    text = """
    secrets: {KEY: {from: env, via: proxy, upstream: "http://192.0.2.1:9/v1"}}
    inputs: {most: {type: string}}
    budget: {tokens: "${{ inputs.most }}"}
    steps:
      - {id: build, run: work, secrets: [KEY], continue_on_error: true}
    """
    before = ModelUsed("other", 1, 0, 0, 0, 3000, 0, None, 1000, usd=0.03)
    played = stage.play(text, replay=replay([before]), most="10k")
    used = played.notes.of(ModelUsed)[-1]
    assert used.run_budget_tokens == 10_000
    assert used.output_tokens == 4000
    assert used.refused_by == "run.tokens"


def test_the_state_adds_up_all_turns(stage: Stage, agent: Agent) -> None:
    text = TEXT % ("local", "tokens: 1M")
    happenings = whole(stage.play(text))
    other = ModelUsed("x[1].y", 2, 0, 70, 0, 7, 0, usd=0.5)
    happenings += [other, other, ModelUsed("x[2].y", 1, 0, 1, 0, 1, 0, usd=0.25)]
    totals = state(happenings).model
    assert totals
    assert (totals.calls, totals.tokens, totals.usd) == (5 + 3, 20_000 + 79, 0.2 + 0.75)
    happenings.append(ModelUsed("z", 1, 0, 1, 0, 1, 0))
    totals = state(happenings).model
    assert totals
    assert (totals.calls, totals.usd) == (9, None)


def test_a_forged_record_gives_no_more_than_a_new_run(stage: Stage, agent: Agent) -> None:
    forged = ModelUsed("build", -5, 0, -(10**9), -1, -1, -1, None, -7, usd=-1e300, reserved_usd=-1.0)
    text = TEXT % ("local", "tokens: 10k, usd: 100")
    played = stage.play(text.replace(", at_end: ask", ""), replay=replay([forged]))
    assert played.end_of("build").code is Code.BUDGET_EXCEEDED
    assert agent.done == 2
    huge = ModelUsed("build", 1, 0, 1, 0, 1, 0, usd=1e308, reserved_usd=1e308)
    assert stage.play(text, replay=replay([huge])).notes.of(InputAsked)[0].above == {"usd": 2e12}
