"""Shows the record of a run as text: its steps as a tree, with place, outcome, result and logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pccpipe.outcome import Outcome
from pccpipe.record.agent_report import AgentReport
from pccpipe.record.index import RunEntry
from pccpipe.record.state import WAITING, WAITING_FOR_MODEL, RunState
from pccpipe.record.step_state import AttemptState, StepState
from pccpipe.views.activity import one_line, report_text
from pccpipe.views.ending import ending, next_step
from pccpipe.views.isolation import isolation_lines, settings_lines, verdict
from pccpipe.views.services import service_lines
from pccpipe.views.summary import agent_changes, downgrades, headline, questions, see_why, stopped, waits_for_model
from pccpipe.views.text import (
    OUTCOME_WORDS,
    date,
    facts_text,
    harmless,
    harmless_line,
    isolation,
    left_out,
    model_text,
    project_text,
    repair_text,
    shorten,
    totals_text,
)
from pccpipe.views.tree import Node, tree
from pccpipe.views.words import interrupted_text, reason_text
from pccpipe.words import duration, money

LONGEST_RESULT = 300
"""Characters of a result that are shown; its file has the rest."""


def show_text(state: RunState, record: Path, *, interrupted: bool = False) -> list[str]:
    """Return a run as lines. `interrupted`: its process is gone, and recorded no end."""
    first = interrupted_text(state, record) if interrupted else headline(state, record)
    lines = [first, *_facts(state, record), "", "steps:"]
    for node in tree(state):
        lines += _node(node, 1)
    if state.downgrades:
        lines += ["", *downgrades(state)]
    if state.agent_changes:
        lines += ["", *agent_changes(state)]
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
    if then := [*see_why(state, record), *next_step(state, record)]:
        lines += ["", *then]
    return [harmless(line) for line in lines]


def _facts(state: RunState, record: Path) -> list[str]:
    project = project_text(state.project, state.project_path, state.isolation_mode, local=state.local)
    facts = {
        "pipeline": f"{state.pipeline} ({state.pipeline_path})",
        "project": project.removeprefix("project "),
        "ran": verdict(state),
        "workspace": state.workspace,
        "began": f"{date(state.started_at)} on {state.host}, process {state.pid}, pccpipe {state.version}",
        "ended": date(state.ended_at) if state.ended_at is not None else "",
        "accepted": f"fallback of {', '.join(state.accepted_fallbacks)}" if state.accepted_fallbacks else "",
        "inputs": ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in state.inputs.items()),
        "model": totals_text(state.model).removeprefix("model: ") if state.model else "",
        "record": str(record),
        "unread": f"{state.unread} events that this version can't read" if state.unread else "",
    }
    return [f"  {name + ':':<11}{harmless_line(text)}" for name, text in facts.items() if text]


def _node(node: Node, depth: int) -> list[str]:
    indent = "  " * depth
    lines = [f"{indent}{node.label}: {_ended(node)}".rstrip(" :")]
    if node.step:
        lines += [f"{indent}    {line}" for line in _details(node.step)]
    for child in node.children:
        lines += _node(child, depth + 1)
    return lines


def _ended(node: Node) -> str:
    step = node.step
    if step is None:
        return "" if node.children else "did not begin"
    if step.outcome is None:
        beside = " in the background" + ("" if step.ready else ", not ready yet") if step.background else ""
        return f"{step.kind}, running{beside} since {date(step.started_at)}"
    text = OUTCOME_WORDS[step.outcome]
    if step.outcome is Outcome.SKIPPED:
        return text + _because(step.message)
    text = f"{text} in {duration(step.seconds)}" + (", ignored" if step.ignored else "")
    return text + _because(step.message) + (f" ({step.code})" if step.code else "")


def _because(message: str) -> str:
    return f": {harmless_line(message)}" if message else ""


def _details(step: StepState) -> list[str]:
    lines: list[str] = []
    if step.name:
        lines.append(harmless_line(step.name))
    if step.asked and not (step.had and len(step.attempts) == 1 and step.had.place is step.asked):
        lines.append(f"asked for: {step.asked}")
    for attempt in step.attempts:
        lines += _attempt(attempt, several=len(step.attempts) > 1)
    lines += service_lines(step)
    if step.model:
        lines.append(model_text(step.model))
    if step.facts:
        lines.append(facts_text(step.kind or "", step.facts))
    if step.ended and step.ended.result_path:
        text = harmless_line(json.dumps(step.ended.result, ensure_ascii=False))
        lines.append(f"result: {step.ended.result_path}: {shorten(text, LONGEST_RESULT)}")
    if step.ended and step.ended.unattested:
        lines.append(
            "unattested: a command on the VM could have forged this result; `vm: {run_as: NAME}` prevents that"
        )
    return lines


def _attempt(attempt: AttemptState, *, several: bool) -> list[str]:
    number = f"attempt {attempt.number}: " if several else ""
    wanted = settings_lines(attempt.settings) if attempt.settings else []
    started, ended, refusal = attempt.started, attempt.ended, attempt.unavailable
    if started is None:
        words = " ".join(harmless(refusal.words).split()) if refusal else ""
        reason = reason_text(refusal.reason) if refusal else "unknown reason"
        lines = [*wanted, f"{number}unavailable: {reason}: {words}"]
        return [*lines, f"  fix: {harmless_line(refusal.hint)}"] if refusal and refusal.hint else lines
    lines = [*wanted, f"{number}had: {isolation(started.had)}"]
    lines += [f"  {line}" for line in isolation_lines(started.had)]
    lines += [f"  {harmless_line(repair_text(message))}" for message in attempt.repairs]
    if ended and ended.exports:
        lines.append(f"  exported: {harmless_line(', '.join(ended.exports.variables))}")
    if attempt.secrets:
        lines.append(f"  secrets: {', '.join(f'{name} {mode}' for name, mode in attempt.secrets.items())}")
    if started.agent:
        lines.append(f"  agent: {started.agent}{_work(attempt.work)}")
    if ended and several:
        lines.append(f"  {OUTCOME_WORDS[ended.outcome]} in {duration(ended.seconds)}{_because(ended.message)}")
    return [*lines, f"logs: {started.stdout} {started.stderr}{left_out(ended.log_dropped if ended else 0)}"]


def _work(report: AgentReport | None) -> str:
    """Say what an attempt's agent did, by its program's own account."""
    if report is None:
        return ""
    error = f"; error: {one_line(report.error)}" if report.error else ""
    usd = f"; by its own account {money(report.usd)}" if report.usd else ""
    return f": {report_text(report)}{usd}{error}"


def runs_text(entries: Sequence[RunEntry]) -> list[str]:
    """Return a line for each run."""
    id_width = max((len(entry.run_id) for entry in entries), default=0)
    status_width = max((len(entry.status) for entry in entries), default=0)
    lines = []
    for entry in entries:
        took = duration(entry.ended.seconds) if entry.ended else ""
        due = f"  due {date(entry.due)}" if entry.due is not None else ""
        downgraded = "  downgraded" if entry.ended and entry.ended.downgraded else ""
        pipeline = entry.started.pipeline if entry.started else ""
        line = (
            f"{entry.run_id:<{id_width}}  {date(entry.began_at)}  {entry.status:<{status_width}}  {took:>6}  "
            f"{pipeline}{downgraded}{due}"
        )
        lines.append(harmless_line(line.rstrip()))
    return lines
