"""Execute a run: its steps, then its `always:` steps whatever happened; then close its targets."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.cancel import Deadline, Halt
from pccpipe.errors import PccpipeError
from pccpipe.executor.budget import limits_of
from pccpipe.executor.cause import name_failed_step
from pccpipe.executor.context import ALWAYS_LIMIT, LeftOpen, RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.executor.numbers import deadline_since, number_of
from pccpipe.executor.places import first_way
from pccpipe.executor.scope import ProjectView, RunView, Scope, StepView
from pccpipe.executor.stopping import run_stops
from pccpipe.executor.turn_end import PASSING, continues_after
from pccpipe.executor.walk import Walk
from pccpipe.outcome import STATUSES, Code, Outcome, Place, Reason
from pccpipe.record.events import Warned
from pccpipe.record.run_events import AlwaysStarted, RunEnded, RunEnding, RunStopped, RunWaiting
from pccpipe.spec.model import Run, Step
from pccpipe.values import Json

_NAMED = frozenset({Reason.FENCED, Reason.VM_BUSY})
"""Reasons that become the status of a run that stops for them."""


def execute(context: RunContext, inputs: Mapping[str, Json]) -> RunEnding:
    """Run the pipeline's steps, then its `always:` steps whatever happened; close the targets last.

    Return the run's last event, which the caller records. An error that is a bug of pccpipe's is raised after the
    `always:` steps; RecordFull is raised at once, and all targets stay as they are.
    """
    pipeline = context.pipeline
    scope = Scope(
        inputs=inputs,
        run=RunView(context.run_id, context.project.isolation_mode.value, str(context.run_dir)),
        project=ProjectView(context.project.id),
        steps={step.id: StepView() for step in pipeline.all_steps()},
    )
    start = WalkPosition(scope)
    ended = StepOutcome(Outcome.FAILED, message="pccpipe itself failed")
    stopped = False
    try:
        try:
            ended = _run_steps(context, start)
        except LeftOpen as open_:
            ended = _fenced(str(open_))
        except OSError as error:
            context.room.leave_if_full(error)
            raise
        finally:
            stopped = run_stops(context, ended)
            if context.room.is_missing:
                pass
            elif ended.input is InputState.WANTED:
                _fetch_workspace(context)
            elif not stopped or ended.reason is Reason.FENCED:
                ended = _run_always(context, start, ended)
                stopped = stopped or ended.reason is Reason.FENCED
    finally:
        if context.room.is_missing:
            context.targets.leave()
        else:
            _close_targets(context)
    if ended.input is InputState.WANTED:
        return RunWaiting(ended.message, ended.due)
    if stopped:
        reason = ended.reason if ended.reason in _NAMED else None
        return RunStopped(ended.outcome, ended.message, f"pccpipe resume {context.run_id}", reason)
    return RunEnded(ended.outcome, _status(ended), message=ended.message, code=_code(ended))


def _close_targets(context: RunContext) -> None:
    for place in context.replay.places:
        # `gc` cleans up a place that is unreachable now.
        with contextlib.suppress(PccpipeError):
            context.targets[place].take_over()
    stays = context.targets.close()
    # Things on a VM that was taken over belong to the other run or process.
    for left in () if context.targets.fenced else stays:
        context.journal.append(Warned(left))


def _fetch_workspace(context: RunContext) -> None:
    """Fetch the workspace from the VM: the run may wait for days, and the VM may be gone by then."""
    try:
        context.workspace.remove(Halt(context.cancel, Deadline.after(ALWAYS_LIMIT, "the transfer of the workspace")))
    except PccpipeError as error:
        context.journal.append(Warned(f"workspace not fetched from the VM while the run waits: {error}"))


def _run_steps(context: RunContext, start: WalkPosition) -> StepOutcome:
    deadline = None
    try:
        seconds = number_of(context.pipeline.timeout, start.scope.names, "timeout")
        context.replay.accounts.run.limits = limits_of(context.pipeline.budget, start.scope.names)
    except PccpipeError as error:
        return StepOutcome(Outcome.FAILED, message=str(error))
    if seconds is not None:
        deadline = deadline_since(context.replay.began_at, seconds, "the pipeline")
    return name_failed_step(Walk(context).sequence(context.pipeline.steps, replace(start, deadline=deadline)))


def _run_always(context: RunContext, start: WalkPosition, ended: StepOutcome) -> StepOutcome:
    """Run each `always:` step, whatever the earlier ones did; the first that fails fails a run that had succeeded.

    A fenced run runs only those on this machine; a resume runs the others.
    """
    if not context.pipeline.always:
        return ended
    if context.replay.always is None and ended.reason is not Reason.FENCED:
        context.journal.append(AlwaysStarted(ended.outcome, _status(ended), _code(ended)))
    position = replace(start, scope=start.scope.ended(ended.outcome, _status(ended)), always=True)
    for step in context.pipeline.always:
        if context.targets.fenced and not _is_local(context, step):
            ended = _fenced(context.targets.fenced)
            continue
        try:
            # A shield for each step: an earlier cancel must not end it, and another cancel ends only this one.
            with context.cancel.shield() as cancel:
                of_step = Walk(replace(context, cancel=cancel)).step(step, position)
                position.share_exports(step, of_step)
        except LeftOpen as left:
            ended = _fenced(str(left))
            continue
        failed = of_step.outcome not in PASSING and not continues_after(step, of_step)
        if failed and ended.outcome is Outcome.SUCCEEDED:
            ended = replace(of_step, message=f"{step.id} (always): {of_step.message}")
    return ended


def _fenced(words: str) -> StepOutcome:
    return StepOutcome(Outcome.UNAVAILABLE, reason=Reason.FENCED, message=words)


def _is_local(context: RunContext, step: Step) -> bool:
    """Say whether all commands of a step run on this machine."""
    if isinstance(step.body, Run):
        return first_way(context.project.isolation_mode, step.body)[0] is Place.LOCAL
    return bool(step.inner) and all(_is_local(context, inner) for inner in step.inner)


def _status(ended: StepOutcome) -> str:
    if ended.reason is Reason.FENCED:
        return ended.reason.value
    fails_as = ended.fails_as if ended.outcome in {Outcome.FAILED, Outcome.TIMED_OUT} else None
    return fails_as or (ended.code if ended.code in STATUSES else ended.outcome).value


def _code(ended: StepOutcome) -> Code | None:
    """Return the code of a run: the cause of its end. Lost output is a warning, and ends nothing."""
    return None if ended.code is Code.OUTPUT_LOST else ended.code
