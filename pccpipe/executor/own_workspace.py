"""Give a step with `workspace: own` a copy of the workspace, and remove that at its end."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import nullcontext

from msgspec.structs import replace

from pccpipe.cancel import Cancel, Deadline, Halt
from pccpipe.errors import PccpipeError
from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.record.events import Warned
from pccpipe.record.step_path import file_name
from pccpipe.spec.model import Pipeline, Run, Step, with_inner
from pccpipe.spec.secret import Via
from pccpipe.workspace.base import OwnWorkspace

ENDING = 60.0
"""Seconds for the removal of a copy whose VM does not answer."""


def in_own_workspace(
    context: RunContext, step: Step, position: WalkPosition, take: Callable[[RunContext], StepOutcome]
) -> StepOutcome:
    """Take the turns of a step, in a copy of the workspace if it asks for one.

    A step whose agent waits for a person or a model keeps its copy, and so does one that a resumed run finishes.
    """
    if not step.own_workspace:
        return take(context)
    path = position.path_of(step.id)
    # A group that is retried gives its steps new copies, under other names.
    name = f"{file_name(path)}-{context.serials.next(f'{path} workspace')}"
    has_agent = any(_works(context.pipeline, inner) for inner in with_inner([step]))
    own = context.workspace.own(name, is_disposable=not has_agent)
    ended = take(replace(context, workspace=own))
    if ended.input is not InputState.WANTED and not context.targets.fenced:
        _end(context, own, path, has_agent=has_agent)
    return ended


def _works(pipeline: Pipeline, step: Step) -> bool:
    """Say whether an agent works in a step, so that its changes must not be lost."""
    body = step.body
    if not isinstance(body, Run):
        return False
    return body.agent is not None or any(pipeline.secrets[name].via is Via.PROXY for name in body.secrets)


def _end(context: RunContext, own: OwnWorkspace, path: str, *, has_agent: bool) -> None:
    cancel = context.cancel
    try:
        # As at the end of a run: after a cancel, only another one stops the look at an agent's work.
        with cancel.shield() if cancel.requested else nullcontext(cancel) as from_now_on:
            halt = Halt(from_now_on) if has_agent else Halt(Cancel(), Deadline.after(ENDING, "the removal"))
            ended = own.end(halt)
    except (PccpipeError, OSError) as error:
        context.room.leave_if_full(error)
        context.journal.append(Warned(f"the step's own workspace was not removed: {error}; later: pccpipe gc", path))
        return
    if ended.refused:
        words = f"some files of its own workspace were refused: {'; '.join(ended.refused)}"
        context.journal.append(Warned(words, path))
    if ended.kept:
        words = f"files that its agent changed exist only in {ended.kept}: no diff has all of them"
        fix = f"once you have what you need: rm -rf {shlex.quote(str(ended.kept))}"
        context.journal.append(Warned(f"{words}; {fix}", path))
