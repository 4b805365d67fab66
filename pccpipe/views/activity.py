"""Says in a line what an agent did, and keeps what a view shows of an agent at work."""

from __future__ import annotations

from collections import deque

from msgspec import Struct, field

from pccpipe import limits
from pccpipe.outcome import ActionKind
from pccpipe.record.agent_events import Activity, ModelUsed
from pccpipe.record.agent_report import AgentReport
from pccpipe.views.text import harmless_line
from pccpipe.words import duration, money

_KEPT = 20
"""Actions kept of each agent for a view; the file beside its log has all of them."""
_SHOWN_LINE = 300
"""Characters of an action in a view."""
QUIET = 30.0
"""Seconds without a sign of an agent, after which a view says so."""


def activity_text(what: Activity) -> str:
    """Return an action as one line, harmless."""
    text = one_line(what.text)
    match what.kind:
        case ActionKind.COMMAND:
            return f"$ {text}"
        case ActionKind.COMMAND_END:
            return f"{end_text(what)}: $ {text}"
        case ActionKind.EDIT:
            return f"edits {text}{lines_text(what.added, what.removed)}"
        case ActionKind.MESSAGE:
            return "gives its result" if text[:1] in {"{", "["} else f"says: {text}"
        case ActionKind.RETRY:
            return f"calls the model again: {text}" if text else "calls the model again"
        case ActionKind.ERROR:
            return f"error: {text}"
        case ActionKind.SESSION | ActionKind.RESULT | ActionKind.USAGE | ActionKind.OUTPUT:
            return text


def end_text(what: Activity) -> str:
    """Say how a command ended: `exit 1 in 12s`."""
    text = "failed" if what.failed else "done"
    if what.exit_code is not None:
        text = f"exit {what.exit_code}"
    return f"{text} in {duration(what.seconds)}" if what.seconds is not None else text


def lines_text(added: int | None, removed: int | None) -> str:
    """Return ` +3 -1`; empty if the program does not say it."""
    return "" if added is None and removed is None else f" +{added or 0} -{removed or 0}"


def one_line(text: str, longest: int = _SHOWN_LINE) -> str:
    """Return a text of an agent as one harmless line, cut."""
    line = harmless_line(" ".join(text[: 2 * longest].split()))
    return line if len(line) <= longest else f"{line[:longest]}…"


def count_text(count: int) -> str:
    """Write a large number: `950`, `12.3k`, `1.2M`."""
    if count < 1000:
        return str(count)
    for unit in ("k", "M", "G"):
        shown = count / 1000
        if shown < 999.5 or unit == "G":
            return f"{shown:.1f}{unit}" if shown < 99.95 else f"{shown:.0f}{unit}"
        count = round(shown)
    return str(count)


def work_text(commands: int, failed: int, files: int, lines: str, messages: int = 0) -> str:
    """Say how much an agent did: `12 commands (1 failed), 3 files +40 -2`."""
    parts = []
    if commands:
        parts.append(f"{_count(commands, 'command')}{f' ({failed} failed)' if failed else ''}")
    if files:
        parts.append(f"{_count(files, 'file')}{lines}")
    if messages:
        parts.append(_count(messages, "message"))
    return ", ".join(parts)


def report_text(report: AgentReport) -> str:
    """Say in a line what an attempt's agent did, by its program's own account."""
    added = [file.added or 0 for file in report.files]
    removed = [file.removed or 0 for file in report.files]
    lines = f" +{sum(added)} -{sum(removed)}" if any(added) or any(removed) else ""
    work = work_text(
        report.commands, report.failed_commands, len(report.files) + report.more_files, lines, report.messages
    )
    retries = f", {_count(report.retries, 'call')} of the model made again" if report.retries else ""
    return (work or "nothing") + retries


def used_text(used: ModelUsed) -> str:
    """Say in a few words what a step used of its model, against its budget: `1.2M of 2.0M tokens`."""
    tokens = count_text(used.input_tokens + used.output_tokens + used.estimated_tokens)
    if used.budget_tokens is not None:
        tokens = f"{count_text(used.budget_used)} of {count_text(used.budget_tokens)}"
    elif used.max_tokens is not None:
        tokens = f"{tokens} of {count_text(used.max_tokens)}"
    text = f"{tokens} tokens"
    if used.budget_usd is not None:
        return f"{text} · about {money(used.budget_used_usd)} of {money(used.budget_usd)}"
    return f"{text} · about {money(used.usd)}" if used.usd else text


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class _Shown(Struct):
    text: str
    id: str = ""
    began: float = 0.0
    """The time at which a command began that runs; 0 for all else."""


class AgentWatch(Struct):
    """The work of one step's agent as a view knows it, from its live events."""

    commands: int = 0
    failed: int = 0
    files: set[str] = field(default_factory=set)
    added: int = 0
    removed: int = 0
    last: float = 0.0
    """The time of its last sign."""
    open: set[str] = field(default_factory=set)
    """The ids of the commands that run."""
    shown: deque[_Shown] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def feed(self, what: Activity, at: float) -> None:
        self.last = at
        match what.kind:
            case ActionKind.COMMAND:
                self.commands += 1
                if len(self.open) < limits.AGENT_COMMANDS.most:
                    self.open.add(what.id)
                self.shown.append(_Shown(activity_text(what), what.id, at))
                return
            case ActionKind.COMMAND_END:
                self.failed += what.failed
                # A program may report a command only when it is over.
                self.commands += what.id not in self.open
                self.open.discard(what.id)
                for one in self.shown:
                    if one.began and one.id == what.id:
                        one.text, one.began = activity_text(what), 0.0
                        return
            case ActionKind.EDIT:
                if len(self.files) < limits.AGENT_FILES.most:
                    self.files.add(what.text)
                self.added += what.added or 0
                self.removed += what.removed or 0
            case _:
                pass
        if text := activity_text(what):
            self.shown.append(_Shown(text))

    def work(self) -> str:
        lines = f" +{self.added} -{self.removed}" if self.added or self.removed else ""
        return work_text(self.commands, self.failed, len(self.files), lines)

    def tail(self, most: int, now: float | None = None) -> list[str]:
        """Return its last actions, with the time of a command that runs."""
        lines = []
        for one in list(self.shown)[max(0, len(self.shown) - most) :]:
            runs = one.began and now is not None
            lines.append(f"{duration(now - one.began)} {one.text}" if runs and now is not None else one.text)
        return lines
