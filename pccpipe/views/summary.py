"""Says how a run ended: failures with their last lines, downgrades, questions, and the record's folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from pccpipe.outcome import Outcome, Reason
from pccpipe.record.events import StepDowngraded
from pccpipe.record.state import QUEUED, WAITING, WAITING_FOR_MODEL, RunState
from pccpipe.record.step_state import StepState
from pccpipe.views.ending import ending, next_step
from pccpipe.views.text import OUTCOME_WORDS, date, harmless, harmless_line, left_out, words_of
from pccpipe.views.words import (
    FINE,
    cancelled_text,
    due_command,
    failed_step_with_log,
    failed_steps,
    next_command,
    reason_text,
    took_text,
)

MOST_STEPS = 10
"""Failed steps that are reported in full; a matrix may have hundreds."""


def summary(state: RunState, record: Path, tail: Callable[[str], Sequence[str]]) -> list[str]:
    """Return the lines at the end of a run. `tail` gives the last lines of a step's output, already harmless."""
    lines: list[str] = []
    failures = failed_steps(state)
    for step in failures[:MOST_STEPS]:
        lines += ["", *failure(step, record, tail(step.path))]
    if len(failures) > MOST_STEPS:
        lines += ["", f"and {len(failures) - MOST_STEPS} more failed steps"]
    if state.downgrades:
        lines += ["", *downgrades(state)]
    if state.warnings:
        lines += ["", *(f"warning: {harmless_line(warning)}" for warning in state.warnings)]
    if state.status == WAITING:
        lines += questions(state, record)
    if state.status == WAITING_FOR_MODEL:
        lines += waits_for_model(state, record)
    if state.stopped:
        lines += stopped(state)
    if did := ending(state, record):
        lines += ["", *did]
    lines += ["", headline(state, record), *see_why(state, record), f"record: {record}", *next_step(state, record)]
    return [harmless(line) for line in lines]


def see_why(state: RunState, record: Path) -> list[str]:
    """Name the command that prints the failed step's log; return nothing if all logs are empty."""
    step = failed_step_with_log(state, record)
    verb = "logs --agent" if step and step.agent else "logs"
    return [f"to see why: {next_command(state, record, verb, step.path)}"] if step else []


def questions(state: RunState, record: Path) -> list[str]:
    """Say what a person has to answer, and how."""
    if not state.open_questions:
        return []
    lines: list[str] = []
    for question in state.open_questions:
        lines += ["", f"{question.step} needs a person: {harmless_line(question.needed)}"]
        if question.tried:
            lines.append(f"  it tried: {harmless_line(question.tried)}")
        lines += [f"  {key}: {harmless_line(str(question.inputs[key]))}" for key in question.missing]
    keys = dict.fromkeys(key for question in state.open_questions for key in question.missing)
    words = " ".join(f"{shlex.quote(key)}=..." for key in keys)
    answering, going_on = (next_command(state, record, verb) for verb in ("answer", "resume"))
    lines += ["", f"to answer: {answering} {words}", f"then: {going_on}"]
    return [harmless(line) for line in lines]


def agent_changes(state: RunState) -> list[str]:
    """Return a line for each agent that took over from another one."""
    return [
        harmless_line(f"AGENT CHANGED {one.step}: {one.agent} took over from {one.after}: {one.message}")
        for one in state.agent_changes
    ]


def waits_for_model(state: RunState, record: Path) -> list[str]:
    """Say when a run that waits for a model is due, and how it continues."""
    return [
        "",
        f"The run waits for its model until {date(state.due)}; no process and no VM is held.",
        f"to continue each run that is due: {due_command(record)}",
        f"to continue this one now: {next_command(state, record, 'resume')}",
    ]


def stopped(state: RunState) -> list[str]:
    """Say that a stopped run can be resumed, and how."""
    always = (
        "of its steps under `always:`, those on this machine have run"
        if state.status == Reason.FENCED
        else "its steps under `always:` have not run"
    )
    return [
        "",
        f"The run is stopped, not ended: its workspace is kept, and {always}.",
        *([f"fix: {harmless_line(state.hint)}"] if state.hint else []),
    ]


def headline(state: RunState, record: Path) -> str:
    """Say in one line how the run ended."""
    if state.status == WAITING and not state.open_questions:
        return answered(state, record)
    if state.status in {WAITING, WAITING_FOR_MODEL, QUEUED}:
        return f"run {state.run_id} {state.status}: {harmless_line(state.message)}"
    outcome = OUTCOME_WORDS[state.outcome] if state.outcome else "running"
    if state.stopped:
        outcome = f"stopped: {outcome}"
    status = f" ({state.status})" if state.outcome and state.status != state.outcome.value else ""
    downgraded = ", downgraded: some step ran with less isolation than it asked for" if state.downgraded else ""
    adds_nothing = state.outcome in FINE or state.message == outcome
    message = f": {harmless_line(state.message)}" if state.message and not adds_nothing else ""
    code = f" ({state.code})" if state.code and state.code.value != state.status else ""
    return f"run {state.run_id} {outcome}{status}{took_text(state)}{cancelled_text(state)}{downgraded}{message}{code}"


def answered(state: RunState, record: Path) -> str:
    """Say that all questions of a run are answered, and how to continue."""
    return f"All questions of {state.run_id} are answered. Continue: {next_command(state, record, 'resume')}"


def failure(step: StepState, record: Path, tail: Sequence[str]) -> list[str]:
    """Return a step's failure as lines: its reason, its last lines, its logs."""
    assert step.outcome is not None
    title = f" ({step.name})" if step.name else ""
    lines = [harmless_line(f"{step.path}{title} {OUTCOME_WORDS[step.outcome]}: {why(step)}")]
    refusal = step.refusal
    if refusal:
        lines += [f"  {line}" for line in words_of(refusal.words)]
        lines.append(f"  fix: {harmless_line(refusal.hint)}" if refusal.hint else "  next: pccpipe doctor")
    lines += [f"  | {line}" for line in tail]
    last = step.attempts[-1] if step.attempts else None
    if last and last.started:
        dropped = last.ended.log_dropped if last.ended else 0
        lines.append(f"  logs: {record / last.started.stdout}")
        lines.append(f"        {record / last.started.stderr}{left_out(dropped)}")
    return lines


def why(step: StepState) -> str:
    """Return the short reason of a failure: the words and code of an unavailable place, else the message."""
    if step.reason:
        return reason_text(step.reason)
    tries = len(step.attempts)
    times = (
        f", in {tries} attempts" if tries > 1 and all(each.outcome is step.outcome for each in step.attempts) else ""
    )
    return (step.message.partition("\n")[0] or "no message") + times


def downgrades(state: RunState) -> list[str]:
    """Return each downgrade as lines: what the step asked for, what it had, the reason, and the target's own words."""
    lines: list[str] = []
    for one in state.downgrades:
        lines.append(f"DOWNGRADED {one.step}: asked for {one.asked}, {_got(state, one)}: {reason_text(one.reason)}")
        lines += [f"  {line}" for line in words_of(one.words)]
        hint = hint_of(state, one)
        if hint:
            lines.append(f"  fix: {harmless_line(hint)}")
    return lines


def _got(state: RunState, down: StepDowngraded) -> str:
    """Say what a step had instead of what it asked for; a fallback may have been unavailable as well."""
    step = state.steps.get(down.step)
    if step and step.outcome is Outcome.UNAVAILABLE and not any(each.had for each in step.attempts):
        return f"fell back to {down.had} and began nowhere"
    return f"had {down.had}"


def hint_of(state: RunState, down: StepDowngraded) -> str:
    """Return the fix for the place that was unavailable, if it is known."""
    step = state.steps.get(down.step)
    refusals = [each.unavailable for each in reversed(step.attempts if step else []) if each.unavailable]
    return next((each.hint for each in refusals if each.hint and each.reason is down.reason), "")
