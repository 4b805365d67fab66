"""The end of a run, in words: how it ended, what failed with its last lines, every downgrade, where the record is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from pccpipe.outcome import Outcome, Reason
from pccpipe.record.state import QUEUED, WAITING, Downgrade, RunState, StepState
from pccpipe.views.text import OUTCOME_WORDS, duration, harmless, harmless_line, left_out

_FINE = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED})
MOST_STEPS = 10
"""Failed steps that are told of in full; a matrix may have hundreds."""


def summary(state: RunState, record: Path, tail: Callable[[str], Sequence[str]]) -> list[str]:
    """The lines at the end of a run. `tail` gives the last lines of a step's output, harmless already."""
    lines: list[str] = []
    failures = failed_steps(state)
    for step in failures[:MOST_STEPS]:
        lines += ["", *failure(step, record, tail(step.path))]
    if len(failures) > MOST_STEPS:
        lines += ["", f"and {len(failures) - MOST_STEPS} more steps that failed"]
    if state.downgrades:
        lines += ["", *downgrades(state)]
    if state.warnings:
        lines += ["", *(f"warning: {harmless_line(warning)}" for warning in state.warnings)]
    if state.status == WAITING:
        lines += questions(state)
    if state.stopped:
        lines += stopped(state)
    return [harmless(line) for line in (*lines, "", headline(state), f"record: {record}")]


def questions(state: RunState) -> list[str]:
    """What a person has still to give, and how."""
    lines: list[str] = []
    for question in state.open_questions:
        lines += ["", f"{question.step} needs a person: {harmless_line(question.needed)}"]
        if question.tried:
            lines.append(f"  it tried: {harmless_line(question.tried)}")
        lines += [f"  {key}: {harmless_line(str(question.inputs[key]))}" for key in question.missing]
    keys = dict.fromkeys(key for question in state.open_questions for key in question.missing)
    words = " ".join(f"{shlex.quote(key)}=..." for key in keys)
    lines += ["", f"to answer: pccpipe answer {state.run_id} {words}", f"then: pccpipe resume {state.run_id}"]
    return [harmless(line) for line in lines]


def stopped(state: RunState) -> list[str]:
    """That a run that was stopped is not over, and what a person can do."""
    always = (
        "of its `always:` steps, those on this machine have run"
        if state.status == Reason.FENCED
        else ("its `always:` steps have not run")
    )
    return [
        "",
        f"The run is stopped, not ended: its workspace is kept, {always}.",
        *([f"to go on: {harmless_line(state.hint)}"] if state.hint else []),
    ]


def headline(state: RunState) -> str:
    """How the run ended, in a line."""
    if state.status in {WAITING, QUEUED}:
        return f"run {state.run_id} {state.status}: {harmless_line(state.message)}"
    outcome = OUTCOME_WORDS[state.outcome] if state.outcome else "running"
    if state.stopped:
        outcome = f"stopped: {outcome}"
    status = f" ({state.status})" if state.outcome and state.status != state.outcome.value else ""
    downgraded = ", downgraded: not every step ran where it was to run" if state.downgraded else ""
    took = f" in {duration(state.seconds)}" if state.seconds is not None else ""
    message = f": {harmless_line(state.message)}" if state.message and state.outcome not in _FINE else ""
    by = f" by {harmless_line(state.cancelled_by)}" if state.cancelled_by and state.outcome is Outcome.CANCELLED else ""
    return f"run {state.run_id} {outcome}{by}{status}{took}{downgraded}{message}"


def failed_steps(state: RunState) -> list[StepState]:
    """The steps that did not pass and were not to be ignored; of a group, those inside that failed in its stead."""
    failed = [step for step in state.steps.values() if step.outcome and step.outcome not in _FINE and not step.ignored]
    return [
        step
        for step in failed
        if not any(other.path.startswith((f"{step.path}.", f"{step.path}[")) for other in failed)
    ]


def failure(step: StepState, record: Path, tail: Sequence[str]) -> list[str]:
    """One step's failure: what, why, its last lines, its logs."""
    assert step.outcome is not None
    lines = [f"{step.path} {OUTCOME_WORDS[step.outcome]}: {harmless_line(why(step))}"]
    refusal = step.refusal
    if refusal:
        lines += [f"  {line}" for line in harmless(refusal.words).splitlines()]
        if refusal.hint:
            lines.append(f"  to mend it: {harmless_line(refusal.hint)}")
    lines += [f"  | {line}" for line in tail]
    last = step.attempts[-1] if step.attempts else None
    if last and last.stdout:
        lines.append(f"  logs: {record / last.stdout}")
        lines.append(f"        {record / (last.stderr or '')}{left_out(last.log_dropped)}")
    return lines


def why(step: StepState) -> str:
    """The reason of a failure, short: the code of an unavailable place, else the message."""
    if step.reason:
        return step.reason.value
    return step.message.partition("\n")[0] or "it says no more"


def downgrades(state: RunState) -> list[str]:
    """Each downgrade: what was asked for, what was had, the reason's code and the target's own words."""
    lines: list[str] = []
    for one in state.downgrades:
        lines.append(f"DOWNGRADED {one.step}: asked for {one.asked}, had {one.had}: {one.reason}")
        lines += [f"  {line}" for line in harmless(one.words).splitlines()]
        hint = hint_of(state, one)
        if hint:
            lines.append(f"  to mend it: {harmless_line(hint)}")
    return lines


def hint_of(state: RunState, down: Downgrade) -> str:
    """Give what fixes the place that the step did without, if that is known."""
    step = state.steps.get(down.step)
    attempts = reversed(step.attempts if step else [])
    return next((each.hint for each in attempts if each.hint and each.reason is down.reason), "")
