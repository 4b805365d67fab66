"""A command gets a secret's value, or a token that is revoked when the command ends."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, Outcome, Reason, Stream
from pccpipe.record.agent_events import ModelUsed
from pccpipe.record.events import (
    CommandEnded,
    CommandStarted,
    Event,
    Happening,
    Output,
    RoundStarted,
    SecretsGiven,
    StepStarted,
    Warned,
)
from pccpipe.secrets.proxy.accounts import SpendLimits
from pccpipe.secrets.proxy.meter import BudgetExceededError, WantedCall
from pccpipe.secrets.proxy.proxy import EGRESS, digest
from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.target import Chunk, Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Stage

KEY, OTHER = "sk-a-key-0123456789", "another-secret-value"
TEXT = """
secrets:
  KEY: {from: env, via: proxy, upstream: "http://192.0.2.1:9/v1"}
  OTHER: {from: env}
containers: {box: {image: i, network: none, egress: [example.org]}}
steps:
  - id: agent
    on: container
    container: box
    secrets: [KEY, OTHER]
    max_tokens: 1000
    run: work
    retry: {attempts: 2, backoff: 0}
    fallback: {on: local}
  - {id: plain, on: vm, run: test}
"""


@pytest.fixture
def commands() -> list[Command]:
    return []


@pytest.fixture
def stage(tmp_path: Path, commands: list[Command]) -> Stage:
    def play(command: Command) -> Play:
        commands.append(command)
        said = Chunk(Stream.STDOUT, " ".join(command.secrets.values()).encode())
        return Play(output=(said,), exit=Exit(1 if command.serial == 1 and command.step == "agent" else 0))

    return Stage(tmp_path, play, secrets={"KEY": KEY, "OTHER": OTHER})


def test_a_proxied_secret_reaches_no_command_and_each_attempt_has_a_new_token(
    stage: Stage, commands: list[Command]
) -> None:
    played = stage.play(TEXT)
    assert played.state.outcome is Outcome.SUCCEEDED
    first, second, plain = commands
    for command in (first, second):
        assert command.secrets["OTHER"] == OTHER
        assert command.secrets["KEY"].startswith("pcct-")
        assert command.is_proxied
        assert command.way_out
        assert KEY not in repr(command)
    assert len({first.secrets["KEY"], second.secrets["KEY"], first.way_out, second.way_out}) == 4
    assert not plain.is_proxied
    given = played.notes.of(SecretsGiven)
    assert [(each.attempt, each.modes) for each in given] == [
        (number, {"KEY": "proxy", "OTHER": "direct"}) for number in (1, 2)
    ]
    assert given[0].tokens == {"KEY": digest(first.secrets["KEY"]), EGRESS: digest(first.way_out)}
    assert "".join(output.text for output in played.notes.of(Output)) == "*** ***" * 2


def test_a_step_that_falls_back_has_no_egress_token(stage: Stage, commands: list[Command]) -> None:
    script = stage.script
    gone = Unavailable(Reason.ENGINE_MISSING, "no engine")
    stage.script = lambda command: Play(unavailable=gone) if command.container else script(command)
    stage.play(TEXT)
    assert (commands[0].is_proxied, commands[0].way_out) == (True, "")


def test_a_resumed_turn_keeps_its_count_and_its_tokens(stage: Stage, commands: list[Command]) -> None:

    before = ModelUsed("agent", 3, 1, 900, 100, 200, 0, 1000)
    happenings: list[Happening] = [
        StepStarted("agent", "run"),
        SecretsGiven("agent", 1, {"KEY": "proxy"}, {"KEY": "ab"}),
        before,
    ]
    replay = Replay(Event(number, 0.0, what) for number, what in enumerate(happenings, 1))
    played = stage.play(TEXT.replace("retry: {attempts: 2, backoff: 0}", ""), replay=replay)
    (ended,) = [each for each in played.notes.of(CommandEnded) if each.step == "agent"]
    assert "1,100 of this turn's max_tokens of 1,000 are used" in ended.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("http://192.0.2.1:9/v1", "${{ inputs.url }}"), "invalid `upstream:` 'nowhere'"),
        (("max_tokens: 1000", "max_tokens: ${{ inputs.url }}"), "max_tokens: ${{ inputs.url }} must be a whole number"),
    ],
)
def test_an_error_found_only_in_a_steps_turn_fails_the_step(stage: Stage, change: tuple[str, str], words: str) -> None:
    played = stage.play("inputs: {url: {type: string}}" + TEXT.replace(*change), url="nowhere")
    end = played.end_of("agent")
    assert end.outcome is Outcome.FAILED
    assert words in end.message
    assert not played.notes.of(CommandStarted)


ROUNDS = """
    inputs: {url: {type: string}}
    secrets: {KEY: {from: env, via: proxy, upstream: "${{ inputs.url }}/v1"}}
    steps:
      - id: rounds
        repeat: {max: 4, until: iteration > 9}
        steps:
          - {id: agent, run: "true", secrets: [KEY], budget: {tokens: 10k}, continue_on_error: true}
"""


def spend(stage: Stage, command: Command, tokens: int) -> None:
    """Use tokens as the call of an agent does."""
    held = stage.proxy.holder(command.secrets["KEY"])
    assert held is not None
    meter = held[0].meter
    with contextlib.suppress(BudgetExceededError):
        reserved = meter.reserve(WantedCall(10, 2, tokens), lambda: True)
        meter.settle(reserved, Tokens(0, 0, reserved.output or 0))


def test_a_budget_counts_over_all_rounds_and_the_record_shows_its_end(stage: Stage) -> None:
    def play(command: Command) -> Play:
        spend(stage, command, 4000)
        return Play(exit=Exit(1))

    stage.secrets = {"KEY": KEY}
    stage.script = play
    played = stage.play(ROUNDS, url="http://192.0.2.1:9")
    used = played.notes.of(ModelUsed)
    assert used[-1].budget_tokens == 10_000
    assert 9_980 <= used[-1].budget_used <= 10_000
    ends = [played.end_of(f"rounds[{number}].agent") for number in (1, 2, 3, 4)]
    assert [end.code for end in ends] == [None, None, None, Code.BUDGET_EXCEEDED]
    assert "of the step's budget of 10,000 tokens are used" in ends[-1].message
    assert any("budget_exceeded" in warned.message for warned in played.notes.of(Warned))


def test_a_resumed_run_counts_the_tokens_of_earlier_rounds_and_of_calls_under_way(stage: Stage) -> None:
    before = ModelUsed("rounds[1].agent", 1, 0, 100, 0, 2900, 0, None, 3000, 10_000, 6000)
    happenings: list[Happening] = [
        *(StepStarted("rounds", "repeat"), RoundStarted("rounds", 1, 4), StepStarted("rounds[1].agent", "run")),
        before,
    ]
    replay = Replay(Event(number, 0.0, what) for number, what in enumerate(happenings, 1))
    none = SpendLimits()
    assert replay.accounts.of_step("rounds[2].agent", none, none).used.tokens == 6000
    assert replay.accounts.of_step("other.agent", none, none).used.tokens == 0
    assert replay.accounts.run.used.tokens == 6000
