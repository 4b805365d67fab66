"""Answers to the questions of a waiting run's agents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from pccpipe.errors import UsageError
from pccpipe.record.events import InputGiven
from pccpipe.record.fence import refuse_links
from pccpipe.record.journal import Journal, read_events
from pccpipe.record.lock import RunLock
from pccpipe.record.run_events import RunStarted
from pccpipe.record.run_file import Question
from pccpipe.record.state import WAITING, RunState, state_of
from pccpipe.record.state_file import StateFile
from pccpipe.session.kept import kept_project, same_project
from pccpipe.spec.project_model import Project
from pccpipe.spec.units import tokens

MOST = 1e15
"""Tokens, or USD."""


def give_answers(record: Path, values: Mapping[str, str], project: Project | None) -> RunState:
    """Record the answers, each for every step that asked for its key; return the state after that.

    Raises UsageError, as pccpipe.api.answer says.
    """
    run_id = record.name
    refuse_links(Path.cwd(), record)
    with RunLock(record):
        # Read under the lock: until then, another process may have changed the run.
        events = list(read_events(record))
        state = state_of(events)
        began = next((event.what for event in events if isinstance(event.what, RunStarted)), None)
        if began and (project or (began.project_path and Path(began.project_path).exists())):
            same_project(began, project or kept_project(began))
        if state.status == WAITING and not state.open_questions:
            raise UsageError(f"all questions of run {run_id} are answered", f"continue: pccpipe resume {run_id}")
        wanted = {key for question in state.open_questions for key in question.inputs}
        if not wanted or state.ended_at is not None:
            raise UsageError(f"run {run_id} has no question: its status is {state.status}")
        for key in values:
            if key not in wanted:
                known = ", ".join(sorted(wanted))
                raise UsageError(f"run {run_id} did not ask for {key!r}", f"it asked for: {known}")
        raises = {question.step: _raises(question, values) for question in state.open_questions}
        journal = Journal(record, [StateFile(record, state)])
        try:
            for question in state.open_questions:
                given = {key: value for key, value in values.items() if key in question.inputs}
                if given:
                    journal.append(InputGiven(question.step, given, raises[question.step]))
        finally:
            journal.close()
        return state


def _raises(question: Question, values: Mapping[str, str]) -> dict[str, float]:
    """Return the numbers that a step's budget is raised to. Raises UsageError for one that does not raise it."""
    raised: dict[str, float] = {}
    for key, least in question.above.items():
        if key in values:
            try:
                number = tokens(values[key]) if key == "budget" else float(values[key])
            except ValueError:
                number = math.nan
            if not least < number < MOST:
                example = "5M" if key == "budget" else "20"
                words = f"{key}={values[key]}: {question.step} needs a number above {least:,}"
                raise UsageError(words, f"such as {key}={example}")
            raised[key] = number
    return raised
