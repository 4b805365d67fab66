"""End a step's turn: record it, show it to expressions, and see whether its agent asks a person for input."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.executor.context import LeftOpen, LegEnd, RunContext, StepOutcome, WalkPosition, not_named_by
from pccpipe.executor.input_request import InputState, requested_input, unmarked_request
from pccpipe.executor.replay import Turn
from pccpipe.executor.scope import StepView
from pccpipe.executor.stopping import run_stops, stops_anyway
from pccpipe.outcome import Outcome
from pccpipe.record.events import CommandEnded, CommandStarted, InputAsked, StepEnded, Warned
from pccpipe.record.logs import tail
from pccpipe.spec.absent import NoResult, Result, lenient
from pccpipe.spec.model import Run, Step

PASSING = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED})


def goes_on(context: RunContext, step: Step, ended: StepOutcome) -> bool:
    """Say whether the steps after one that ended have their turns."""
    if ended.outcome in PASSING or ended.ignored:
        return True
    return continues_after(step, ended) and not stops_anyway(context, ended) and ended.outcome is not Outcome.CANCELLED


def continues_after(step: Step, ended: StepOutcome) -> bool:
    """Say whether `continue_on_error` of the step holds for this end of it."""
    codes = step.continue_exit_codes
    return step.continue_on_error and (not codes or ended.failed_with(codes))


def stops_run(context: RunContext, step: Step, position: WalkPosition, ended: StepOutcome) -> bool:
    """Say whether the run stops with this end of a step, so that a resume continues the step."""
    if position.always or not run_stops(context, ended) or goes_on(context, step, ended):
        return False
    return stops_anyway(context, ended) or not position.tolerated


def end_turn(
    context: RunContext, step: Step, position: WalkPosition, turn: Turn, ended: StepOutcome, began: float
) -> StepOutcome:
    """Record the end of a step's turn, and put it into the scope; `began` is a time.monotonic()."""
    if ended.input is InputState.WANTED:
        return ended  # the group around it has not ended
    fenced = context.targets.fenced
    # Of a fenced run, the process that resumes it begins a background command again with the steps beside it.
    left = ended.outcome in {Outcome.UNAVAILABLE, Outcome.LOST} or position.background is not None
    if fenced and not turn.ended and left:
        raise LeftOpen(fenced)
    ignored = ended.outcome not in PASSING and goes_on(context, step, ended)
    if ended.outcome is Outcome.FAILED and not ignored and step.continue_exit_codes and not (step.matrix or turn.ended):
        ended = replace(ended, message=f"{ended.message} ({not_named_by('continue_on_error', ended)})")
    seconds = time.time() - turn.began_at if turn.began_at else time.monotonic() - began
    event = StepEnded(
        position.path_of(step.id),
        ended.outcome,
        seconds,
        ended.exit_code,
        ended.reason,
        ended.message,
        ended.result,
        ended.result_path,
        ignored,
        ended.code,
        ended.unattested,
    )
    if not turn.ended:
        context.journal.append(event)
    if step.id in position.scope.steps:
        position.scope.steps[step.id] = _view(event, ended, position.scope.steps[step.id])
    if isinstance(step.body, Run) and not step.matrix and not position.always:
        return _with_input_request(context, step, position, turn, ended)
    return ended


def _with_input_request(
    context: RunContext, step: Step, position: WalkPosition, turn: Turn, ended: StepOutcome
) -> StepOutcome:
    """Return the end of a step whose agent may have asked a person for input."""
    path = position.path_of(step.id)
    if ended.outcome is not Outcome.SUCCEEDED or context.cancel.requested:
        return ended
    request = unmarked_request(ended.result)
    if request and not turn.ended:
        context.journal.append(Warned(f"its agent asks for input without the marks of a request: {request}", path))
    wanted = requested_input(ended.result)
    if wanted is None:
        return ended
    if not turn.is_input_requested:
        context.journal.append(InputAsked(path, wanted.tried, wanted.needed, wanted.inputs))
    if any(key not in turn.answers for key in wanted.inputs):
        return replace(ended, input=InputState.WANTED, message=f"{path} needs {wanted.needed}")
    # Expressions know a leg of a matrix, such as `unit[node=20]`, as `unit`.
    name = step.id.partition("[")[0]
    view = position.scope.steps[name]
    position.scope.steps[name] = replace(view, answers=view.answers.with_more(turn.answers))
    return replace(ended, input=InputState.GIVEN)


def replayed_end(context: RunContext, step: Step, turn: Turn, ended: StepEnded) -> StepOutcome:
    """Return the outcome of a step that ended in an earlier process."""
    if isinstance(step.body, Run):
        context.serials.skip(step.id, turn.attempts)
    logs = None
    for started in turn.all_of(CommandStarted):
        logs = (context.run_dir / started.stdout, context.run_dir / started.stderr)
    fails_as = step.fails_as if ended.outcome not in PASSING else None
    return StepOutcome(
        ended.outcome,
        ended.exit_code,
        ended.reason,
        ended.code,
        ended.message,
        ended.result,
        ended.result_path,
        ended.unattested,
        ignored=ended.ignored,
        fails_as=fails_as,
        exports=next(
            (over.exports for over in reversed(turn.all_of(CommandEnded)) if over.outcome is ended.outcome), None
        ),
        logs=logs,
    )


def _view(event: StepEnded, ended: StepOutcome, before: StepView) -> StepView:
    result, logs = _result(ended), ended.logs
    return StepView(
        event,
        result,
        before.last_result if isinstance(result, NoResult) else result,
        [_leg_view(leg) for leg in ended.legs],
        before.answers,
        ended.unattested or (before.unattested and isinstance(result, NoResult)),
        (lambda which: _log_end(logs, which)) if logs else None,
    )


def _result(ended: StepOutcome) -> object:
    """Return a result as expressions see it: only if its step succeeded. People find others in the run's folder."""
    return lenient(ended.result) if ended.outcome is Outcome.SUCCEEDED and ended.result_path else NoResult()


def _leg_view(leg: LegEnd) -> Result:
    ended = leg.ended
    return Result(
        matrix=Result(leg.values),
        outcome=ended.outcome.value if ended else "not_run",
        exit_code=ended.exit_code if ended else None,
        result=_result(ended) if ended else NoResult(),
    )


def running_view(stdout: Path, stderr: Path, before: StepView) -> StepView:
    """Return the view of a background command that runs, which expressions of the next steps see."""
    return replace(before, _ended=None, is_running=True, read_log=lambda which: _log_end((stdout, stderr), which))


def _log_end(logs: tuple[Path, Path], which: str) -> str:
    stdout, stderr = logs
    match which:
        case "stdout":
            return tail(stdout, limits.STEP_OUTPUT.most)
        case "stderr":
            return tail(stderr, limits.STEP_OUTPUT.most)
        case _:
            return "\n".join(
                part for part in (tail(stdout, limits.STEP_OUTPUT.most), tail(stderr, limits.STEP_OUTPUT.most)) if part
            )
