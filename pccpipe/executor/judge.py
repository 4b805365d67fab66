"""Judge an attempt whose command began: its outcome, and its result."""

from __future__ import annotations

import time

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import Halted, Lost, ResultError, Unavailable
from pccpipe.executor.agent_output import AgentOutput
from pccpipe.executor.background import NOT_READY, WITH_GROUP
from pccpipe.executor.context import StepOutcome
from pccpipe.executor.follow import FollowedResult
from pccpipe.executor.result import masked_result, parse_result, result_target, shorten
from pccpipe.executor.run_step import RunStep
from pccpipe.outcome import Code, Outcome, Place
from pccpipe.record.events import CommandEnded, CommandStarted, Warned
from pccpipe.record.files import write_atomically
from pccpipe.record.logs import CommandLog
from pccpipe.secrets.mask import MASK
from pccpipe.shells import dialect_of, program_of
from pccpipe.spec.agent_task import Agent
from pccpipe.spec.model import Host, ResultSpec
from pccpipe.target import Exit, Running
from pccpipe.values import Json

LOST_OUTPUT = "some of its output may be lost: the engine was restarted while it ran"

NOT_FOUND = 127
"""The exit code of a shell that does not find a program."""


def judge(
    step: RunStep,
    running: Running,
    followed: FollowedResult,
    place: Place,
    log: CommandLog,
    agent: AgentOutput | None = None,
) -> StepOutcome:
    """Return the outcome of an attempt whose command began. `agent` followed it, if it is one."""
    logs = (log.stdout_path, log.stderr_path)
    exit_ = followed.exit
    if followed.is_abandoned:
        return StepOutcome(Outcome.CANCELLED, message=followed.message, logs=logs)
    if exit_ is None:
        if place is not Place.LOCAL:
            step.context.absence.since(time.monotonic() - step.context.project.lost_after)
        return StepOutcome(Outcome.LOST, message=followed.message, logs=logs)
    if exit_.output_lost and place is Place.CONTAINER:
        step.context.journal.append(Warned(LOST_OUTPUT, step.path))
    elif exit_.output_lost:
        words = "the end of its output is lost: its machine could not store it (is the disk there full?)"
        step.context.journal.append(Warned(f"{words}; fix: pccpipe gc", step.path))
    if exit_.left_processes and not followed.cancelled:
        words = "its background processes were stopped: no process outlives its step"
        if place is not Place.CONTAINER and not step.body.background:
            words += "; fix: a step of its own with `background: true`"
        step.context.journal.append(Warned(words, step.path))
    code = Code.OUTPUT_LOST if exit_.output_lost else None
    ended = StepOutcome(Outcome.FAILED, exit_code=exit_.code, code=code, message=_describe_exit(exit_), logs=logs)
    if followed.cancelled and not (step.body.background and exit_.was_over):
        ended = _stopped(step, ended)
    elif followed.timed_out or exit_.timed_out:
        ended = replace(ended, outcome=Outcome.TIMED_OUT, message=followed.message or "its time limit has passed")
    elif followed.is_limited:
        # Also if its last call went well, while it was stopped.
        ended = replace(ended, code=Code.MODEL_LIMITED, message=followed.message)
    elif step.position.background and not step.position.background.is_ready:
        message = f"it ended before it was ready: {ended.message}"
        ended = replace(ended, code=Code.NOT_READY, message=message)
    elif exit_.code == 0:
        message = "it ended by itself, before its group" if step.body.background else ""
        ended = replace(ended, outcome=Outcome.SUCCEEDED, message=message)
    elif step.body.agent and exit_.code == NOT_FOUND:
        # A shell says the same of a program and of the step's folder.
        no_folder = "the workspace has no such folder as its `cwd:`, or " if step.body.where.cwd else ""
        missing = f"{no_folder}{_no_program(step.body.agent.agent, place)}"
        ended = replace(ended, code=None if no_folder else Code.AGENT_MISSING, message=missing)
    elif agent and (error := agent.report().error):
        ended = replace(ended, message=f"{ended.message}; its agent reports: {shorten(' '.join(error.split()))}")
    if step.body.result:
        return _with_result(step, ended, running, step.body.result, place, agent)
    return ended


def _stopped(step: RunStep, ended: StepOutcome) -> StepOutcome:
    """Return the outcome of a command that was stopped before its time limit."""
    background, cancel = step.position.background, step.context.cancel
    if background and cancel.by == NOT_READY:
        return replace(ended, code=Code.NOT_READY, message=background.words)
    if background and cancel.by == WITH_GROUP and not step.context.targets.fenced:
        background.ended_with_group = True
        return replace(ended, outcome=Outcome.SUCCEEDED, message="ended with its group")
    return replace(ended, outcome=Outcome.CANCELLED, message=cancel.message)


def replayed(step: RunStep, started: CommandStarted, over: CommandEnded, place: Place) -> StepOutcome:
    """Return the outcome of an attempt that ended in an earlier process, with the result that it left."""
    log = (step.context.run_dir / started.stdout, step.context.run_dir / started.stderr)
    ended = StepOutcome(
        over.outcome, over.exit_code, over.reason, over.code, over.message, exports=over.exports, logs=log
    )
    if step.body.result and over.outcome is Outcome.SUCCEEDED:
        path = step.result_path(step.body.result, place)
        target = result_target(path, step.context.run_dir)
        try:
            value = parse_result(target.read_bytes(), target.name, step.body.result.schema_json)
        except (OSError, ResultError) as error:
            return replace(ended, outcome=Outcome.FAILED, message=f"its result is missing from the record: {error}")
        ended = replace(ended, result=value, result_path=path, unattested=step.is_unattested(place))
    return ended


def _with_result(
    step: RunStep, ended: StepOutcome, running: Running, spec: ResultSpec, place: Place, agent: AgentOutput | None
) -> StepOutcome:
    """Add the result to the outcome; a missing or invalid result makes a succeeded attempt FAILED."""
    try:
        path, value = _fetch_result(step, running, spec, place, agent)
    except ResultError as error:
        failed = {Outcome.SUCCEEDED}
        if error.code is Code.SECRET_IN_OUTPUT:
            failed.add(Outcome.FAILED)
        if ended.outcome not in failed:
            return ended
        return replace(ended, outcome=Outcome.FAILED, code=error.code or ended.code, message=error.message)
    except (Unavailable, Lost, Halted) as error:
        if ended.outcome is not Outcome.SUCCEEDED:
            return ended
        return replace(ended, outcome=Outcome.LOST, message=f"its result could not be fetched: {error}")
    return replace(ended, result=value, result_path=path, unattested=step.is_unattested(place))


def _fetch_result(
    step: RunStep, running: Running, spec: ResultSpec, place: Place, agent: AgentOutput | None
) -> tuple[str, Json]:
    path = step.result_path(spec, place)
    target = result_target(path, step.context.run_dir)
    halt = Halt(step.context.cancel)
    try:
        fetched = unless_halted(halt, lambda: running.fetch(target.name, limits.RESULT.most))
    except ResultError as error:
        found = None if error.code else _in_its_output(step, agent)
        if found is None:
            raise ResultError(error.message, error.code or Code.NO_RESULT) from None
        fetched = found
    else:
        agent = None
    data, had_secret = masked_result(fetched, target.name, step.context.masker)
    # A result in the output was masked before it was read.
    had_secret = had_secret or bool(agent and agent.had_secret and MASK in data)
    # Written before it is checked, so that people can read an invalid result.
    step.context.room.made(lambda: write_atomically(target, data))
    if had_secret:
        raise ResultError(f"a secret's value appears in its result; it is masked in {path}", Code.SECRET_IN_OUTPUT)
    return path, parse_result(data, target.name, spec.schema_json)


def _in_its_output(step: RunStep, agent: AgentOutput | None) -> bytes | None:
    """Return the result in the output of an agent whose program writes no file. Raises ResultError."""
    if agent is None or step.body.agent is None or step.body.agent.agent.description.has_result_file:
        return None
    found = agent.reader.result()
    if found is None:
        raise ResultError("its agent gave no result: its last message is not JSON", Code.NO_RESULT)
    if len(found) > limits.RESULT.most:
        raise ResultError(limits.RESULT.exceeded("its agent's result"), Code.RESULT_TOO_LARGE)
    return found


def _no_program(agent: Agent, place: Place) -> str:
    program = agent.description.program
    if place is not Place.CONTAINER:
        return f"there is no program {program} for the agent {agent.name} (exit code {NOT_FOUND}): install it"
    words = f"its image has no program {program} for the agent {agent.name} (exit code {NOT_FOUND})"
    return f"{words}: use one that has it; `pccpipe provision` builds pcc-runner:latest with Codex and Claude Code"


def explain_interpreter(ended: StepOutcome, where: Host, place: Place) -> StepOutcome:
    """Return the outcome of a script whose interpreter its place probably does not have.

    An exit code of 127 says so. A script for another interpreter than a shell rarely ends with it by itself.
    """
    if ended.exit_code != NOT_FOUND or ended.outcome is not Outcome.FAILED or dialect_of(where.shell):
        return ended
    no_folder = "there is no such folder as its `cwd:`, or " if where.cwd else ""
    program = program_of(where.shell)
    thing, fix = f"no program {program} there", f"install {program}"
    if place is Place.CONTAINER:
        thing, fix = f"its image has no program {program}", "use an image that has it, or another `shell:`"
    message = f"exit code {NOT_FOUND}: {no_folder}{thing}, which `shell:` or `#!` names; fix: {fix}"
    return replace(ended, code=None if no_folder else Code.INTERPRETER_MISSING, message=message)


def _describe_exit(exit_: Exit) -> str:
    if exit_.out_of_memory:
        return f"killed: out of memory (exit code {exit_.code})"
    if exit_.signal:
        return f"ended by signal {exit_.signal} (exit code {exit_.code})"
    return f"exit code {exit_.code}"
