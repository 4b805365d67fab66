"""Run the rounds of a `repeat:`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from pccpipe.executor.attestation import unattested_condition
from pccpipe.executor.cause import name_failed_step, rounds_exhausted
from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.executor.numbers import number_of
from pccpipe.executor.probe import expected_levels
from pccpipe.executor.replay import Turn
from pccpipe.outcome import Outcome
from pccpipe.record.events import RoundStarted
from pccpipe.spec.model import Repeat, Step


def run_rounds(
    context: RunContext,
    body: Repeat,
    position: WalkPosition,
    path: str,
    turn: Turn,
    fails_as: str | None,
    sequence: Callable[[Sequence[Step], WalkPosition], StepOutcome],
) -> StepOutcome:
    """Run the steps of a `repeat:` in rounds; `sequence` runs them once."""
    most = number_of(body.max, position.scope.names, "max")
    assert most is not None
    expected_levels(context, body.steps, position)
    number, rounds = 0, int(most)
    while number < rounds:
        number += 1
        if position.over and not turn.peek(RoundStarted):
            return position.over
        context.record_once(turn, RoundStarted(path, number, rounds))
        inside = replace(position.inside(f"{path}[{number}]", position.scope.in_round(number)), in_round=True)
        ended = sequence(body.steps, inside)
        if ended.input is InputState.WANTED:
            return ended
        if ended.input is InputState.GIVEN:
            # The round finished no work that others could judge, so it does not count: one more round follows.
            rounds += 1
            continue
        if ended.outcome is not Outcome.SUCCEEDED:
            return name_failed_step(ended, f" in round {number}")
        if body.until is not None and body.until.evaluate(inside.scope.names):
            position.scope.forged.extend(unattested_condition(inside.scope, body.until))
            return ended
    if body.until is None:
        return StepOutcome(Outcome.SUCCEEDED)
    return rounds_exhausted(body, fails_as, rounds, position.scope.steps)
