"""Says what a run did, whatever its pipeline is: changes, reports of agents, verdicts, tests, use of models.

A report is known by its shape, that of the schemas builder-result and reviewer-result. All texts are an agent's.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pccpipe.outcome import Outcome
from pccpipe.record import step_path as paths
from pccpipe.record.agent_report import AgentReport, sum_of
from pccpipe.record.state import RunState
from pccpipe.record.step_state import StepState
from pccpipe.values import Json
from pccpipe.views.activity import one_line, report_text
from pccpipe.views.text import OUTCOME_WORDS, facts_text, harmless_line, totals_text
from pccpipe.words import duration
from pccpipe.workspace.patch import largest

_FILES = 10
_NOTES = 10
_REPORTS = 50
"""Steps whose reports are shown, the last ones: a matrix may have thousands."""
_TESTS = 6
_READ = 32 << 20
"""Bytes of a patch that is read for the list of its files; a larger one is only named."""
_TEST = re.compile(r"(?:^|[^a-z])tests?(?:$|[^a-z])")


def ending(state: RunState, record: Path) -> list[str]:
    """Return what the run did as lines; none for a run without a change, a report and an agent."""
    turns = _last_turns(state)
    reported = dict(list(turns.items())[-_REPORTS:])
    lines = [*_changes(turns, record), *_reports(reported), *_verdicts(state, reported), *_agents(state, reported)]
    if lines:
        lines += [*_tests(state, turns), *([totals_text(state.model)] if state.model else [])]
    return [harmless_line(line) for line in lines]


def next_step(state: RunState, record: Path) -> list[str]:
    """Name the command that brings the run's change into the workspace, if the run succeeded."""
    step = _diff(_last_turns(state))
    if state.outcome is not Outcome.SUCCEEDED or step is None or not step.facts.get("files"):
        return []
    return [f"next: {_apply(state.workspace, record / str(step.facts.get('path')))}"]


def _apply(workspace: str, patch: Path) -> str:
    """Return the command that applies a patch to the workspace, wherever a person calls it."""
    folder, words = Path(os.path.realpath(workspace)), ["git"]
    if not folder.is_dir():
        return shlex.join(["git", "apply", str(patch)])
    if folder != Path(os.path.realpath(".")):
        words, patch = [*words, "-C", str(folder)], patch.absolute()
    words.append("apply")
    if below := _below_top(folder):
        # Else git takes the names from the top of its repository, leaves out all files, and exits with 0.
        words.append(f"--directory={below}")
    return shlex.join([*words, str(patch)])


def _below_top(folder: Path) -> str:
    """Return a folder's path below the top of its repository; empty for the top, and without a repository."""
    ask = ["git", "-C", str(folder), "rev-parse", "--show-prefix"]
    try:
        asked = subprocess.run(ask, check=False, capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return os.fsdecode(asked.stdout.rstrip(b"\n")) if asked.returncode == 0 else ""


def _last_turns(state: RunState) -> dict[str, StepState]:
    """Return the last turn of each step, by its path without rounds."""
    turns: dict[str, StepState] = {}
    for step in state.steps.values():
        if step.outcome is not Outcome.SKIPPED:
            turns[paths.rounds_left_out(step.path)] = step
    return turns


def _diff(turns: Mapping[str, StepState]) -> StepState | None:
    found = [step for step in turns.values() if step.kind == "diff" and step.facts]
    return found[-1] if found else None


def _changes(turns: Mapping[str, StepState], record: Path) -> list[str]:
    step = _diff(turns)
    if step is None:
        return []
    if not step.facts.get("files"):
        return ["changes: none"]
    lines = [f"changes: {facts_text('diff', step.facts)}"]
    patch = record / str(step.facts.get("path"))
    try:
        files = largest(patch, _FILES + 1) if patch.stat().st_size <= _READ else []
    except OSError:
        files = []
    lines += [f"  {file.replace(chr(34), '')}" for file in files[:_FILES]]
    count = step.facts.get("files")
    if isinstance(count, int) and len(files) > _FILES:
        lines.append(f"  and {count - _FILES} more")
    return lines


def _reports(turns: Mapping[str, StepState]) -> list[str]:
    lines: list[str] = []
    for step in turns.values():
        report = _result(step)
        summary = report.get("summary") if isinstance(report, dict) else None
        if isinstance(report, dict) and isinstance(summary, str) and summary.strip():
            lines.append(f"{_name(step)}{_round(step)}{_unattested(step)}: {one_line(summary)}")
            lines += _listed("risk", report.get("risks"))
    return lines


def _verdicts(state: RunState, turns: Mapping[str, StepState]) -> list[str]:
    lines: list[str] = []
    for path, step in turns.items():
        match _result(step):
            case {"status": str(status), "notes": list(notes)}:
                said = one_line(status.replace("_", " "), 40)
                lines.append(f"{_name(step)}: {said}{_round(step, 'in ')}{_unattested(step)}")
                lines += _listed("note", list(notes))
                lines += _earlier(state, path, step)
            case _:
                pass
    return lines


def _earlier(state: RunState, path: str, last: StepState) -> list[str]:
    """Return the verdicts of the rounds before, a line each."""
    lines = []
    for step in state.steps.values():
        if step is last or paths.rounds_left_out(step.path) != path:
            continue
        match _result(step):
            case {"status": str(status), "notes": list(notes)}:
                first = next((one_line(note, 200) for note in notes if isinstance(note, str)), "")
                more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
                text = f": {first}{more}" if first else ""
                lines.append(f"  before{_round(step)}: {one_line(status.replace('_', ' '), 40)}{text}")
            case _:
                pass
    return lines[-_NOTES:]


def _agents(state: RunState, turns: Mapping[str, StepState]) -> list[str]:
    """Return the work of each agent of these steps, over all rounds and attempts."""
    work: dict[tuple[str, str], list[AgentReport]] = {}
    rounds: Counter[tuple[str, str]] = Counter()
    for step in state.steps.values():
        path = paths.rounds_left_out(step.path)
        for attempt in step.attempts if path in turns else ():
            if attempt.started and attempt.reports:
                work.setdefault((path, attempt.started.agent), []).extend(attempt.reports)
        rounds.update({(path, attempt.started.agent) for attempt in step.attempts if attempt.started})
    lines = []
    for (path, name), reports in work.items():
        report, count = sum_of(reports), rounds[path, name]
        times = f" in {count} rounds" if count > 1 else ""
        lines.append(f"{_name(turns[path])} by {name}{times}: {report_text(report) if report else ''}")
    lines += [
        f"handover: {change.step}: {change.agent} took over from {change.after}: {one_line(change.message)}"
        for change in state.agent_changes
    ]
    return lines


def _tests(state: RunState, turns: Mapping[str, StepState]) -> list[str]:
    """Return the outcomes of the steps that run tests, by their id or name."""
    tests = {path: step for path, step in turns.items() if _is_test(step)}
    lines = []
    for path, step in list(tests.items())[:_TESTS]:
        assert step.outcome is not None
        ended = f"{OUTCOME_WORDS[step.outcome]} in {duration(step.seconds)}"
        failed = [
            one
            for one in state.steps.values()
            if one is not step and paths.rounds_left_out(one.path) == path and one.outcome is Outcome.FAILED
        ]
        before = f"; failed in {len(failed)} round{'' if len(failed) == 1 else 's'} before" if failed else ""
        lines.append(f"tests: {_name(step)} {ended}{_round(step)}{before}")
    if len(tests) > _TESTS:
        lines.append(f"tests: and {len(tests) - _TESTS} more steps")
    return lines


def _is_test(step: StepState) -> bool:
    is_run = step.kind == "run" and not step.agent and _result(step) is None and step.outcome is not None
    return is_run and bool(_TEST.search(f"{paths.label(step.path)} {step.name}".lower()))


def _result(step: StepState) -> Json:
    return step.ended.result if step.ended else None


def _name(step: StepState) -> str:
    return paths.rounds_left_out(step.path).rpartition(".")[2]


def _unattested(step: StepState) -> str:
    return " (unattested)" if step.ended and step.ended.unattested else ""


def _round(step: StepState, before: str = "") -> str:
    """Return the step's round, ` (round 2)` or ` in round 2`; empty outside of a `repeat`."""
    rounds = [part[1:-1] for part in paths.split(step.path) if re.fullmatch(r"\[[0-9]+\]", part)]
    if not rounds:
        return ""
    return f" {before}round {'.'.join(rounds)}" if before else f" (round {'.'.join(rounds)})"


def _listed(word: str, texts: Json) -> list[str]:
    if not isinstance(texts, list):
        return []
    shown = [one_line(text) for text in texts[:_NOTES] if isinstance(text, str) and text.strip()]
    more = [f"  and {len(texts) - _NOTES} more {word}s"] if len(texts) > _NOTES else []
    return [*(f"  {word}: {text}" for text in shown), *more]
