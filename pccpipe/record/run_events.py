"""The events of a run as a whole: its beginning, its waits and its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from pccpipe.outcome import Code, IsolationMode, Outcome, Reason
from pccpipe.record.kind import EventKind
from pccpipe.values import Json

FORMAT = 1
"""The version of the events' format. It counts up only if a reader of the one before could misread the next. New kinds,
and new fields with a default, do not count.
"""


class RunStarted(EventKind, frozen=True):
    run_id: str
    pipeline: str
    pipeline_path: str
    project: str | None
    isolation_mode: IsolationMode
    inputs: Mapping[str, Json]
    workspace: str
    steps: tuple[str, ...]
    """The ids of the top steps, `always:` included, in order: a view can show the steps to come."""
    version: str
    host: str
    pid: int
    project_path: str | None = None
    fallback_allowed: bool = True
    accepted_fallbacks: tuple[str, ...] = ()
    """The ids of steps that a person allowed to fall back even after an agent's code may have run."""
    project_identity: str | None = None
    """A digest of the project's id, isolation_mode and VM; None in records of version 0.1."""
    isolation_required: bool = False
    """Set by the project file."""
    local: bool = False
    """True if the operator runs all of it on this machine, with --local."""
    format: int = FORMAT
    policy: bool = False
    """It runs under an operator's policy: it is resumed under one as well."""
    stops_at_failure: bool = False
    """True if scripts stop at their first failing command by default; False in records without this field."""


class RunResumed(EventKind, frozen=True):
    """Another process resumes the run, where the events end."""

    version: str
    host: str
    pid: int
    accepted_fallbacks: tuple[str, ...] = ()
    """As in `RunStarted`; they add to the earlier ones."""


class RunWaiting(EventKind, frozen=True):
    """The run waits for a person or a model, and its process ends. `RunResumed` follows when it is resumed."""

    message: str
    due: float | None = None
    """Set if it waits for a model: `resume --due` continues it from then on. Seconds since the epoch."""


class RunStopped(EventKind, frozen=True):
    """The run cannot continue now: a place that it needs is unavailable, and a fallback would not be safe.

    Its workspace is kept, its `always:` steps have not run, and its process ends. `RunResumed` follows when it is
    resumed. With the reason `fenced`, another run took over the VM, and the local `always:` steps have run.
    """

    outcome: Outcome
    message: str
    hint: str = ""
    reason: Reason | None = None
    """The reason, where the outcome does not say it: `fenced`, `vm_busy`."""


class RunQueued(EventKind, frozen=True):
    """Another run has the VM: this one waits until it is free."""

    message: str


class Cancelling(EventKind, frozen=True):
    """A person or a program cancelled the run: `signal` INT/TERM/HUP, or `caller`."""

    by: str
    grace: float
    who: str = ""
    """The user and machine that asked with `pccpipe cancel`: `root@vm`."""


class AlwaysStarted(EventKind, frozen=True):
    """The steps are over, with this status; the `always:` steps begin."""

    outcome: Outcome
    status: str
    code: Code | None = None
    """As in `RunEnded`."""


class RunEnded(EventKind, frozen=True):
    outcome: Outcome
    status: str
    """The outcome's word, or the `fails_as` of the step that ended the run."""
    downgraded: bool = False
    seconds: float = 0.0
    message: str = ""
    code: Code | None = None
    """Set when the outcome is `failed` for a reason that programs branch on."""


RunEnding: TypeAlias = RunWaiting | RunStopped | RunEnded
"""The last event of a process's work on a run."""
