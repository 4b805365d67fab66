"""Writes a line for each event that a person reads in a log: time, step, event. For files, pipes and CI."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO, assert_never

from pccpipe.outcome import Outcome
from pccpipe.record.agent_events import (
    Activity,
    AgentChanged,
    ModelLimited,
    ModelUsed,
    RepairAsked,
    Stalled,
    StepWaiting,
)
from pccpipe.record.events import (
    ActionDone,
    BackgroundReady,
    CommandEnded,
    CommandStarted,
    Event,
    GroupAlwaysStarted,
    Happening,
    InputAsked,
    InputGiven,
    LiveEvent,
    MayHaveBegun,
    Output,
    RoundStarted,
    SecretsGiven,
    ServiceEnded,
    ServiceReady,
    ServiceStarted,
    StepDowngraded,
    StepEnded,
    StepRetrying,
    StepStarted,
    TargetUnavailable,
    Warned,
    WorkspaceCopied,
)
from pccpipe.record.run_events import (
    AlwaysStarted,
    Cancelling,
    RunEnded,
    RunQueued,
    RunResumed,
    RunStarted,
    RunStopped,
    RunWaiting,
)
from pccpipe.record.step_state import stalled_text
from pccpipe.views.services import service_text
from pccpipe.views.summary import summary
from pccpipe.views.text import (
    OUTCOME_WORDS,
    clock,
    date,
    facts_text,
    harmless_line,
    harmless_lines,
    isolation,
    project_text,
    repair_text,
    words_of,
)
from pccpipe.views.watch import Watch
from pccpipe.views.words import reason_text
from pccpipe.words import duration


class PlainView:
    """Write a run's events as lines. `record` is the run's folder, named at the end; `earlier` as for `Watch`."""

    def __init__(self, stream: TextIO, record: Path, earlier: Iterable[Event] = ()) -> None:
        self._stream = stream
        self._record = record
        self._watch = Watch(earlier)

    def __call__(self, event: Event) -> None:
        lines = harmless_lines(self._watch.feed(event))
        stamp = clock(event.time)
        begin = f"{stamp} {self._step_of(event.what)} | "
        if lines:
            self._stream.write(begin)
            self._stream.write(lines[:-1].replace("\n", f"\n{begin}"))
            self._stream.write("\n")
        text = "".join(f"{stamp} {line}\n" for line in _lines(event))
        if isinstance(event.what, RunEnded | RunStopped | RunWaiting):
            text += "".join(f"{line}\n" for line in summary(self._watch.state, self._record, self._watch.tail))
        if lines or text:
            self._stream.write(text)
            self._stream.flush()

    @staticmethod
    def _step_of(what: Happening) -> str:
        return what.step if isinstance(what, LiveEvent | CommandEnded) else ""

    def close(self) -> None:
        """Do nothing: other views have something to close."""


def _lines(event: Event) -> list[str]:
    if isinstance(event.what, TargetUnavailable):
        return _unavailable(event.what)
    # One line: a line break of an agent must not begin a line that looks like pccpipe's own.
    text = _text(event.what, event.time)
    return [harmless_line(text)] if text else []


def _text(what: Happening, at: float) -> str:
    match what:
        case RunStarted():
            project = project_text(what.project, what.project_path, what.isolation_mode, local=what.local)
            return f"run {what.run_id} of {what.pipeline} begins on {date(at)}, {project}"
        case RunResumed():
            return f"run resumed by process {what.pid} on {what.host}"
        case StepStarted():
            asked = f", on {what.asked}" if what.asked else ""
            title = f" ({what.name})" if what.name else ""
            return f"{what.step}{title} begins: {what.kind}{asked}{' in the background' * what.background}"
        case CommandStarted():
            again = f"attempt {what.attempt} " if what.attempt > 1 else ""
            by = f" {what.agent}" if what.agent else ""
            return f"{what.step} {again}runs{by}: {isolation(what.had)}"
        case SecretsGiven() | ModelUsed() | MayHaveBegun():
            return ""
        case ServiceStarted() | ServiceReady() | ServiceEnded():
            return service_text(what)
        case BackgroundReady():
            return _background_ready(what)
        case CommandEnded():
            # The step's end reports the last attempt.
            return ""
        case StepDowngraded():
            return (
                f"{what.step} DOWNGRADED: asked for {what.asked}, goes on with {what.had}: {reason_text(what.reason)}"
            )
        case StepRetrying():
            wait = f" after {duration(what.wait)}" if what.wait else ""
            after = OUTCOME_WORDS[what.after] if what.exit_code is None else f"failed with exit code {what.exit_code}"
            return f"{what.step} {after}; attempt {what.attempt} of {what.attempts} follows{wait}"
        case RepairAsked() | ModelLimited() | AgentChanged() | StepWaiting() | Stalled():
            return _agent_text(what)
        case RoundStarted():
            return f"{what.step} round {what.round} of at most {what.of}"
        case ActionDone():
            facts = facts_text(what.action, what.facts)
            return f"{what.step} {facts}" if facts else ""
        case StepEnded():
            return _step_ended(what)
        case InputAsked():
            return f"{what.step} needs a person: {what.needed}"
        case InputGiven():
            return f"{what.step} has answers: {', '.join(what.values)}"
        case RunQueued():
            return what.message
        case Cancelling():
            by = f"{what.who} with `pccpipe cancel`" if what.who else what.by
            return f"cancelled by {by}; running commands have {duration(what.grace)} to end"
        case AlwaysStarted() | GroupAlwaysStarted():
            return _always_text(what)
        case WorkspaceCopied():
            return f"{what.step} has its own copy of the workspace, after {duration(what.seconds)}"
        case Warned():
            return f"{what.step + ' ' if what.step else ''}warning: {what.message}"
        case RunEnded() | RunStopped() | RunWaiting() | Output() | Activity() | TargetUnavailable():
            return ""
        case _:
            assert_never(what)


def _background_ready(what: BackgroundReady) -> str:
    how = f"is ready after {duration(what.seconds)}" if what.seconds else "runs on"
    return f"{what.step} {how}: the next step begins"


def _always_text(what: AlwaysStarted | GroupAlwaysStarted) -> str:
    if isinstance(what, AlwaysStarted):
        return f"steps ended ({what.status}); the steps under `always:` begin"
    return f"{what.step} steps ended ({what.outcome}); those under its `always:` begin"


def _agent_text(what: RepairAsked | ModelLimited | AgentChanged | StepWaiting | Stalled) -> str:
    match what:
        case RepairAsked():
            return f"{what.step} {repair_text(what.message)} (repair {what.repair} of {what.of})"
        case ModelLimited():
            passes = f" until {date(what.until)}" if what.until is not None else ""
            return f"{what.step} the model's API {what.message}{passes}: the attempt ends"
        case AgentChanged():
            return f"{what.step} AGENT CHANGED: {what.agent} takes over from {what.after}: {what.message}"
        case StepWaiting():
            return f"{what.step} waits for its model until {date(what.due)}: {what.message}"
        case Stalled():
            return f"{what.step} {stalled_text(what)}"
        case _:
            assert_never(what)


def _unavailable(what: TargetUnavailable) -> list[str]:
    lines = [f"  {line}" for line in words_of(what.words)]
    if what.hint:
        lines.append(f"  fix: {harmless_line(what.hint)}")
    return [harmless_line(f"{what.step} {what.asked} unavailable: {reason_text(what.reason)}"), *lines]


def _step_ended(what: StepEnded) -> str:
    text = f"{what.step} {OUTCOME_WORDS[what.outcome]}"
    if what.outcome is Outcome.SKIPPED:
        return f"{text}: {what.message}" if what.message else text
    text += f" in {duration(what.seconds)}"
    if what.outcome is not Outcome.SUCCEEDED or what.message:
        text += f": {reason_text(what.reason) if what.reason else what.message.partition(chr(10))[0]}"
    if what.result_path:
        text += f", {'unattested ' if what.unattested else ''}result in {what.result_path}"
    text += f" ({what.code})" if what.code else ""
    return f"{text} (ignored)" if what.ignored else text
