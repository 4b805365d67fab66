"""Run one step: at its place, then at its fallback, with the attempts of `retry:` at each.

A step falls back only if `Target.start`, or a call before it, raised `Unavailable`: the command certainly never began.
The reason must be the state of the place itself, and no agent's code may have been able to cause it. No text, exit code
or log decides that.
"""

from __future__ import annotations

import contextlib

from msgspec.structs import replace

from pccpipe.errors import PccpipeError
from pccpipe.executor.agents import provider_limits, with_agents
from pccpipe.executor.attempt import Attempt
from pccpipe.executor.budget import StepBudget, budget_of, wants_budget
from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.judge import replayed
from pccpipe.executor.repair import Repair, with_repairs
from pccpipe.executor.replay import Turn
from pccpipe.executor.retry import with_retries
from pccpipe.executor.run_step import RunStep
from pccpipe.executor.secrets import StepSecrets, step_secrets
from pccpipe.executor.turn_end import running_view
from pccpipe.outcome import MAY_FALL_BACK, Code, Outcome, Place
from pccpipe.record.events import (
    BackgroundReady,
    CommandEnded,
    CommandStarted,
    InputAsked,
    InputGiven,
    MayHaveBegun,
    StepDowngraded,
    StepRetrying,
    TargetUnavailable,
)
from pccpipe.spec.model import Host, Run, Step


def run_step(context: RunContext, position: WalkPosition, spec: Step, body: Run, turn: Turn) -> StepOutcome:
    """Run a step's command where its `on:` leads in the project, or at its fallback if that place is unavailable."""
    step = RunStep(context, position, spec, body, turn, is_replay=turn.began_at is not None)
    return with_agents(step, lambda: _at_its_places(step))


def _at_its_places(step: RunStep) -> StepOutcome:
    context, spec, body, turn = step.context, step.spec, step.body, step.turn
    place, where = step.first
    ended = _try_at(step, place, where)
    fallback = step.fallback_from(place)
    if ended.outcome is not Outcome.UNAVAILABLE or fallback is None or context.cancel.requested:
        return ended
    assert ended.reason is not None
    place, where = fallback
    # A person may have accepted by now a fallback that was refused before.
    was_refused = turn.consume(TargetUnavailable) is not None
    if turn.peek(StepDowngraded) is None:
        if ended.reason not in MAY_FALL_BACK:
            return replace(ended, message=f"{ended.message} (no reason to fall back)")
        if refused := step.refuse_fallback(place):
            context.serials.next(spec.id)
            if not was_refused:
                step.record_unavailable(step.attempts + 1, place, refused)
            return replace(ended, reason=refused.reason, message=f"{ended.message} ({ended.reason}); {refused.words}")
    context.record_once(turn, StepDowngraded(step.path, body.where.on, place, ended.reason, ended.message))
    return _try_at(step, place, where)


def _try_at(step: RunStep, place: Place, where: Host) -> StepOutcome:
    first = step.attempts + 1
    return with_retries(
        step.context,
        step.position,
        step.path,
        step.spec.retry,
        lambda number: _attempt(step, number, place, where),
        step.turn,
        first,
    )


def _attempt(step: RunStep, number: int, place: Place, where: Host) -> StepOutcome:
    """Make an attempt: a command, and one more for each repair of its result."""
    return with_repairs(step, number, lambda repair: _command(step, number, place, where, repair))


def _command(step: RunStep, number: int, place: Place, where: Host, repair: Repair | None) -> StepOutcome:
    context, turn = step.context, step.turn
    step.attempts = number
    serial = context.serials.next(step.spec.id)
    may_have_begun = turn.consume(MayHaveBegun) is not None
    # If the record has the end of this attempt without a command, a later attempt was under way at the kill.
    if unavailable := turn.consume(TargetUnavailable):
        return StepOutcome(Outcome.UNAVAILABLE, reason=unavailable.reason, message=unavailable.words)
    if retrying := turn.peek(StepRetrying):
        return StepOutcome(retrying.after)
    started = turn.consume(CommandStarted)
    was_ready = turn.consume(BackgroundReady) is not None
    in_doubt, step.is_replay = step.is_replay and started is None, False
    if started and (over := turn.consume(CommandEnded)):
        step.is_replay = True
        question = turn.consume(InputAsked)
        if _has_another_command(step, over):
            return _command(step, number, place, where, repair)
        ended = replayed(step, started, over, place)
        if question and not context.cancel.requested:
            return wants_budget(ended, question)
        return _asking(step, ended)
    if started and was_ready and step.position.background:
        views, logs = step.position.scope.steps, (context.run_dir / started.stdout, context.run_dir / started.stderr)
        views[step.spec.id] = running_view(*logs, views[step.spec.id])
        step.position.background.ready()
    in_doubt = in_doubt and place is not Place.LOCAL and (may_have_begun or not _is_recorded_before(step, place))
    try:
        step.budget = budget = step.budget or _budget_of(step)
        secrets = _secrets_of(step, number, place, where, budget)
    except PccpipeError as error:
        return StepOutcome(Outcome.FAILED, message=str(error))
    attempt = Attempt(step, number, place, where, serial, secrets, in_doubt, may_have_begun, repair)
    counted: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if step.body.background:
        counted = context.backgrounds.one(step.path, place, is_running=started is not None)
    try:
        with contextlib.closing(secrets), counted:
            ended = attempt.run(started)
            if ended.code is not Code.MODEL_LIMITED:
                # Its agent got over it: the attempt's next command has not met it.
                turn.limits.pop(number, None)
            return _asking(step, ended)
    finally:
        context.exposure.settle(step.path)


def _is_recorded_before(step: RunStep, place: Place) -> bool:
    """Say whether the record names its command at `place` before that begins."""
    return step.context.replay.tells_agents and (place is Place.CONTAINER or step.is_agent)


def _has_another_command(step: RunStep, over: CommandEnded) -> bool:
    """Say whether an attempt whose command is over has another one, since its place became unusable."""
    turn = step.turn
    if step.body.background and over.outcome is Outcome.CANCELLED and not step.context.cancel.requested:
        # Another run took over the VM, so the group around it goes on.
        step.is_replay = bool(turn.recorded)
        return True
    if turn.consume(InputGiven):
        step.is_replay = bool(turn.recorded)
        return True
    if turn.is_reopened and not turn.recorded:
        turn.is_reopened = step.is_replay = False
        return True
    return turn.peek(MayHaveBegun) is not None or turn.peek(CommandStarted) is not None


def _asking(step: RunStep, ended: StepOutcome) -> StepOutcome:
    """Return the end of an attempt; if it stopped at its budget, the run may wait for a person."""
    if ended.code is not Code.BUDGET_EXCEEDED or step.position.always:
        return ended
    return (step.budget or _budget_of(step)).ask(ended)


def _budget_of(step: RunStep) -> StepBudget:
    return budget_of(step.context, step.position, step.path, step.body, step.turn)


def _secrets_of(step: RunStep, number: int, place: Place, where: Host, budget: StepBudget) -> StepSecrets:
    """Return the attempt's secrets, with the tokens that an earlier process issued for its command."""
    upstreams = step.context.upstreams_of(step.path, number)
    limits = provider_limits(step, number)
    secrets = step_secrets(step.context, step.position, step.body, where, place, budget, upstreams, limits)
    for given in step.turn.given:
        if given.attempt == number:
            secrets.restore(given)
    return secrets
