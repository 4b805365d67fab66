"""The state of a run, as a fold over its events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias, assert_never

from msgspec import Struct, field

from pccpipe.outcome import Code, IsolationMode, Outcome
from pccpipe.record.agent_events import (
    Activity,
    AgentChanged,
    ModelLimited,
    ModelUsed,
    RepairAsked,
    Stalled,
    StepWaiting,
)
from pccpipe.record.begun import Begun
from pccpipe.record.codec import to_json
from pccpipe.record.events import (
    ActionDone,
    BackgroundReady,
    CommandEnded,
    CommandStarted,
    Event,
    GroupAlwaysStarted,
    InputAsked,
    InputGiven,
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
from pccpipe.record.journal import read_events
from pccpipe.record.model_totals import ModelTotals
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
from pccpipe.record.run_file import Question, RunFile
from pccpipe.record.step_path import parent
from pccpipe.record.step_state import StepState, iso, stalled_text
from pccpipe.values import Json

_OfStep: TypeAlias = (
    StepStarted
    | SecretsGiven
    | ModelUsed
    | CommandStarted
    | CommandEnded
    | BackgroundReady
    | ServiceStarted
    | ServiceReady
    | ServiceEnded
    | RepairAsked
    | TargetUnavailable
    | StepDowngraded
    | Stalled
    | RoundStarted
    | ActionDone
    | StepEnded
)

WAITING = "waiting_for_input"
WAITING_FOR_MODEL = "waiting_for_model"
"""Its steps' agents met limits of their providers; it continues when it is resumed, from its `due` time on."""
QUEUED = "queued"
RUNNING = "running"
STOPPED = "stopped"
"""The status in a list of runs; the run's own status is then `unavailable`."""


class RunState(Struct):
    """The state of a run. `apply` each of its events, in order."""

    run_id: str = ""
    pipeline: str = ""
    pipeline_path: str = ""
    project: str | None = None
    project_path: str | None = None
    isolation_mode: IsolationMode = IsolationMode.LOCAL
    local: bool = False
    """True if the operator ran all of it on this machine, with --local."""
    status: str = RUNNING
    """`running`, `queued` (another run has the VM), `waiting_for_input`, `waiting_for_model`; finally the outcome or a
    `fails_as`.
    """
    outcome: Outcome | None = None
    message: str = ""
    code: Code | None = None
    """The cause of its failure, where programs must know it."""
    stopped: bool = False
    """It cannot continue now, and keeps its workspace: `resume` continues it."""
    hint: str = ""
    """The fix for a stopped run."""
    exposed: bool = False
    """An agent may have begun in it."""
    accepted_fallbacks: tuple[str, ...] = ()
    """Steps that a person allowed to fall back even so."""
    downgraded: bool = False
    downgrades: list[StepDowngraded] = field(default_factory=list)
    agent_changes: list[AgentChanged] = field(default_factory=list)
    due: float | None = None
    """The time from which `resume --due` continues a run that waits for a model, in seconds since the epoch."""
    warnings: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    cancelled_by: str | None = None
    cancelled_who: str = ""
    inputs: dict[str, Json] = field(default_factory=dict)
    workspace: str = ""
    planned: tuple[str, ...] = ()
    version: str = ""
    host: str = ""
    pid: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    seconds: float | None = None
    steps: dict[str, StepState] = field(default_factory=dict)
    """By path, in the order of their turns."""
    model: ModelTotals | None = None
    """The use of models by all steps together."""
    _begun: Begun = field(default_factory=Begun)
    _going_down: dict[str, StepDowngraded] = field(default_factory=dict)
    """By path, downgrades whose step has not begun yet: after a stop, it may still run where it asks to."""
    last_seq: int = 0
    unread: int = 0
    """The number of unreadable events of the journal: torn, or a newer version's."""

    def step(self, path: str) -> StepState:
        """Return the step of that path, made if need be."""
        return self.steps.setdefault(path, StepState(path))

    @property
    def open_questions(self) -> list[Question]:
        """The questions that a person has not answered yet."""
        return [question for question in self.questions if question.missing]

    def apply(self, event: Event) -> None:
        """Add one more event."""
        what = event.what
        if event.seq:
            self.unread += max(0, event.seq - self.last_seq - 1)
            self.last_seq = event.seq
        self._begun.apply(what)
        self.exposed = self._begun.is_exposed
        match what:
            case RunStarted():
                self._run_started(event.time, what)
            case RunResumed():
                self.version, self.host, self.pid = what.version, what.host, what.pid
                self.status, self.due = RUNNING, None
                self.accepted_fallbacks += what.accepted_fallbacks
                self._reopen()
            case InputAsked():
                above = dict(what.above)
                self.questions.append(Question(what.step, what.tried, what.needed, dict(what.inputs), above=above))
            case InputGiven():
                for question in self.questions:
                    if question.step == what.step:
                        question.given |= what.values
            case RunWaiting():
                self.status = WAITING if what.due is None else WAITING_FOR_MODEL
                self.message, self.due = what.message, what.due
            case RunStopped():
                self.stopped, self.outcome = True, what.outcome
                self.status = (what.reason or what.outcome).value
                self.message, self.hint = what.message, what.hint
            case RunQueued():
                self.status, self.message = QUEUED, what.message
            case Cancelling():
                self.cancelled_by, self.cancelled_who = what.by, what.who or self.cancelled_who
            case AlwaysStarted():
                self.outcome, self.status, self.code = what.outcome, what.status, what.code
            case Warned():
                self.warnings.append(f"{what.step}: {what.message}" if what.step else what.message)
                if what.step in self.steps:
                    self.steps[what.step].warning = what.message
            case RunEnded():
                self.outcome, self.status, self.message = what.outcome, what.status, what.message
                self.code = what.code
                self.downgraded, self.seconds, self.ended_at = what.downgraded, what.seconds, event.time
            case AgentChanged():
                self.agent_changes.append(what)
            case Output() | Activity():
                if what.step in self.steps:
                    self.steps[what.step].still_since = None
            case MayHaveBegun() | StepRetrying() | ModelLimited() | StepWaiting():
                pass
            case WorkspaceCopied() | GroupAlwaysStarted():
                pass
            case _:
                self._apply_to_step(event.time, what)

    def _apply_to_step(self, at: float, what: _OfStep) -> None:
        match what:
            case StepStarted():
                self.status = RUNNING
                # A group that is retried runs the same steps again, and the latest counts.
                self.steps[what.step] = StepState(
                    what.step, what.kind, what.name, what.always, what.asked, started_at=at, timeout=what.timeout
                )
                self.steps[what.step].background = what.background
            case SecretsGiven():
                self.step(what.step).attempt(what.attempt).secrets = dict(what.modes)
            case ModelUsed():
                self.model = self.model or ModelTotals()
                self.model.add(what, self.step(what.step).model)
                self.step(what.step).model = what
            case CommandStarted():
                self._going_down.pop(what.step, None)
                step = self.step(what.step)
                step.attempt(what.attempt).begin(what)
                if step.background:
                    step.ended, step.ready = None, False
            case CommandEnded():
                self.step(what.step).attempt(what.attempt).end(what)
                self.step(what.step).still_since = None
            case BackgroundReady():
                self.step(what.step).ready = True
            case ServiceStarted() | ServiceReady() | ServiceEnded():
                self.step(what.step).apply_service(what)
            case Stalled():
                self.step(what.step).still_since = at - what.seconds
                self.warnings.append(f"{what.step}: {stalled_text(what)}")
            case RepairAsked():
                attempt = self.step(what.step).attempt(what.attempt)
                attempt.repairs.append(what.message)
                attempt.ended = None
            case TargetUnavailable():
                self.step(what.step).attempt(what.attempt or 1).unavailable = what
            case StepDowngraded():
                self.downgraded = True
                self.downgrades.append(what)
                self._going_down[what.step] = what
            case RoundStarted():
                step = self.step(what.step)
                step.round, step.rounds = what.round, what.of
            case ActionDone():
                self.step(what.step).facts = dict(what.facts)
            case StepEnded():
                self.step(what.step).ended = what
            case _:
                assert_never(what)

    def _run_started(self, at: float, what: RunStarted) -> None:
        self.run_id, self.pipeline, self.pipeline_path = what.run_id, what.pipeline, what.pipeline_path
        self.project, self.project_path = what.project, what.project_path
        self.isolation_mode, self.local = what.isolation_mode, what.local
        self.inputs, self.workspace, self.planned = dict(what.inputs), what.workspace, tuple(what.steps)
        self.version, self.host, self.pid = what.version, what.host, what.pid
        self.started_at, self.accepted_fallbacks = at, what.accepted_fallbacks

    def _reopen(self) -> None:
        """Reopen a stopped run: its unavailable steps are retried."""
        if not self.stopped:
            return
        self.stopped, self.outcome, self.message, self.hint = False, None, "", ""
        for path, step in self.steps.items():
            if step.outcome is Outcome.UNAVAILABLE and not step.ignored and not self._is_over_around(path):
                step.ended = None
                if (down := self._going_down.pop(path, None)) is not None:
                    self.downgrades = [other for other in self.downgrades if other is not down]
        self.downgraded = bool(self.downgrades)

    def _is_over_around(self, path: str) -> bool:
        """Say whether a group around a step has ended, and the run continued without it."""
        around = self.steps.get(path)
        while (above := parent(path)) is not None:
            path, around = above, self.steps.get(above)
            if around and around.outcome and (around.ignored or around.outcome is not Outcome.UNAVAILABLE):
                return True
        return False

    def to_json(self) -> dict[str, Json]:
        """Return the state as run.json has it; see docs/run-record.md."""
        values = to_json(self._file())
        assert isinstance(values, dict)
        return values

    def _file(self) -> RunFile:
        return RunFile(
            run_id=self.run_id,
            pipeline=self.pipeline,
            pipeline_path=self.pipeline_path,
            project=self.project,
            project_path=self.project_path,
            isolation_mode=self.isolation_mode,
            local=self.local,
            status=self.status,
            outcome=self.outcome,
            message=self.message,
            code=self.code,
            stopped=self.stopped,
            hint=self.hint,
            exposed=self.exposed,
            accepted_fallbacks=self.accepted_fallbacks,
            downgraded=self.downgraded,
            downgrades=self.downgrades,
            agent_changes=self.agent_changes,
            due=iso(self.due),
            warnings=self.warnings,
            questions=self.questions,
            cancelled_by=self.cancelled_by,
            cancelled_who=self.cancelled_who,
            started_at=iso(self.started_at),
            ended_at=iso(self.ended_at),
            seconds=self.seconds,
            inputs=self.inputs,
            workspace=self.workspace,
            host=self.host,
            pid=self.pid,
            version=self.version,
            last_seq=self.last_seq,
            unread=self.unread,
            model=self.model,
            artifacts=[
                {"step": step.path, "action": step.kind, **step.facts}
                for step in self.steps.values()
                if step.facts and step.kind in {"download", "diff"}
            ],
            steps=[step.entry() for step in self.steps.values()],
        )


def state_of(events: Iterable[Event]) -> RunState:
    """Fold a run's events into its state."""
    state = RunState()
    for event in events:
        state.apply(event)
    return state


def state_text(state: RunState) -> str:
    """Return the text of run.json: a value a line, and a step a line. Python's own `indent` is 20 times as slow.

    It replaces half characters and infinities, which a result in a record of an older version may have.
    """
    values = state.to_json()
    steps = values.pop("steps")
    assert isinstance(steps, list)
    head = "".join(f" {_line(name)}: {_line(value)},\n" for name, value in values.items())
    lines = ",".join(f"\n  {_line(step)}" for step in steps)
    return f'{{\n{head} "steps": [{lines}\n ]\n}}\n'


def _line(value: Json) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(to_json(value), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def load_state(run_dir: Path) -> RunState:
    """Read the state of a run from its events, which are the truth; run.json may be a moment behind."""
    return state_of(read_events(run_dir))
