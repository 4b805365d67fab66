"""Runs AI coding agents as YAML pipelines: on a VM over SSH, in containers on it, or here, and says truthfully which.

In short:

    import pccpipe

    pipeline = pccpipe.load("pipelines/default-run.yaml")
    project = pccpipe.load_project("pccpipe.yaml")
    result = pccpipe.run(pipeline, run_id="first", project=project, inputs={"work_order": "work-order.md"})
    print(result.outcome, result.downgraded, result.record)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pccpipe.systems import refusal
from pccpipe.version import __version__

if TYPE_CHECKING:
    from pccpipe import aio
    from pccpipe.aio import Gap, RunHandle
    from pccpipe.api import (
        Fallback,
        answer,
        ask_to_cancel,
        doctor,
        load,
        load_policy,
        load_project,
        local_project,
        plan,
        provision,
        resume,
        run,
    )
    from pccpipe.canary.check import selfcheck
    from pccpipe.canary.escape import check_escape
    from pccpipe.canary.ledger import SelfcheckReport
    from pccpipe.canary.routes import EscapeReport
    from pccpipe.cancel import Cancel
    from pccpipe.checkup.check import DoctorReport
    from pccpipe.due import DueRun, resume_due
    from pccpipe.errors import PccpipeError, PolicyRefused, RecordFull, SpecError, Unavailable, UsageError, VmBusy
    from pccpipe.executor.planned import Plan
    from pccpipe.gc.delete import OnlyCopies, RemovedRun
    from pccpipe.gc.prune import PrunedRun
    from pccpipe.gc.report import RemovalStatus
    from pccpipe.outcome import Code, IsolationMode, Outcome, Place, Reason, Stream
    from pccpipe.policy.policy import Ceilings, Origin, Policy, SecretRule
    from pccpipe.record.agent_events import (
        Activity,
        AgentChanged,
        ModelLimited,
        ModelUsed,
        RepairAsked,
        SessionKept,
        Stalled,
        StepWaiting,
    )
    from pccpipe.record.events import (
        ActionDone,
        BackgroundReady,
        CommandEnded,
        CommandStarted,
        Event,
        Happening,
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
    from pccpipe.record.index import RunEntry
    from pccpipe.record.reading import LogPiece
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
    from pccpipe.record.state import RunState
    from pccpipe.record.step_state import StepState
    from pccpipe.records import delete_run, follow, get_run, list_runs, prune, read_events, read_log
    from pccpipe.session.result import RunResult
    from pccpipe.spec.model import Pipeline
    from pccpipe.spec.problem import Problem
    from pccpipe.spec.project_model import Keep, Project, Vm

__all__ = [
    "ActionDone",
    "Activity",
    "AgentChanged",
    "AlwaysStarted",
    "BackgroundReady",
    "Cancel",
    "Cancelling",
    "Ceilings",
    "Code",
    "CommandEnded",
    "CommandStarted",
    "DoctorReport",
    "DueRun",
    "EscapeReport",
    "Event",
    "Fallback",
    "Gap",
    "Happening",
    "InputAsked",
    "InputGiven",
    "IsolationMode",
    "Keep",
    "LogPiece",
    "MayHaveBegun",
    "ModelLimited",
    "ModelUsed",
    "OnlyCopies",
    "Origin",
    "Outcome",
    "Output",
    "PccpipeError",
    "Pipeline",
    "Place",
    "Plan",
    "Policy",
    "PolicyRefused",
    "Problem",
    "Project",
    "PrunedRun",
    "Reason",
    "RecordFull",
    "RemovalStatus",
    "RemovedRun",
    "RepairAsked",
    "RoundStarted",
    "RunEnded",
    "RunEntry",
    "RunHandle",
    "RunQueued",
    "RunResult",
    "RunResumed",
    "RunStarted",
    "RunState",
    "RunStopped",
    "RunWaiting",
    "SecretRule",
    "SecretsGiven",
    "SelfcheckReport",
    "ServiceEnded",
    "ServiceReady",
    "ServiceStarted",
    "SessionKept",
    "SpecError",
    "Stalled",
    "StepDowngraded",
    "StepEnded",
    "StepRetrying",
    "StepStarted",
    "StepState",
    "StepWaiting",
    "Stream",
    "TargetUnavailable",
    "Unavailable",
    "UsageError",
    "Vm",
    "VmBusy",
    "Warned",
    "WorkspaceCopied",
    "__version__",
    "aio",
    "answer",
    "ask_to_cancel",
    "check_escape",
    "delete_run",
    "doctor",
    "follow",
    "get_run",
    "list_runs",
    "load",
    "load_policy",
    "load_project",
    "local_project",
    "plan",
    "provision",
    "prune",
    "read_events",
    "read_log",
    "resume",
    "resume_due",
    "run",
    "selfcheck",
]

_MODULES = {
    "pccpipe.aio": (
        "Gap",
        "RunHandle",
    ),
    "pccpipe.api": (
        "Fallback",
        "answer",
        "ask_to_cancel",
        "doctor",
        "load",
        "load_policy",
        "load_project",
        "local_project",
        "plan",
        "provision",
        "resume",
        "run",
    ),
    "pccpipe.canary.check": ("selfcheck",),
    "pccpipe.canary.escape": ("check_escape",),
    "pccpipe.canary.ledger": ("SelfcheckReport",),
    "pccpipe.canary.routes": ("EscapeReport",),
    "pccpipe.cancel": ("Cancel",),
    "pccpipe.checkup.check": ("DoctorReport",),
    "pccpipe.errors": (
        "PccpipeError",
        "PolicyRefused",
        "RecordFull",
        "SpecError",
        "Unavailable",
        "UsageError",
        "VmBusy",
    ),
    "pccpipe.executor.planned": ("Plan",),
    "pccpipe.gc.delete": ("OnlyCopies", "RemovedRun"),
    "pccpipe.gc.prune": ("PrunedRun",),
    "pccpipe.gc.report": ("RemovalStatus",),
    "pccpipe.outcome": (
        "Code",
        "IsolationMode",
        "Outcome",
        "Place",
        "Reason",
        "Stream",
    ),
    "pccpipe.policy.policy": (
        "Ceilings",
        "Origin",
        "Policy",
        "SecretRule",
    ),
    "pccpipe.due": ("DueRun", "resume_due"),
    "pccpipe.record.agent_events": (
        "Activity",
        "AgentChanged",
        "ModelLimited",
        "ModelUsed",
        "RepairAsked",
        "SessionKept",
        "Stalled",
        "StepWaiting",
    ),
    "pccpipe.record.events": (
        "ActionDone",
        "BackgroundReady",
        "AlwaysStarted",
        "Cancelling",
        "CommandEnded",
        "CommandStarted",
        "Event",
        "Happening",
        "InputAsked",
        "InputGiven",
        "MayHaveBegun",
        "Output",
        "RoundStarted",
        "RunEnded",
        "RunQueued",
        "RunResumed",
        "RunStarted",
        "RunStopped",
        "RunWaiting",
        "SecretsGiven",
        "ServiceEnded",
        "ServiceReady",
        "ServiceStarted",
        "StepDowngraded",
        "StepEnded",
        "StepRetrying",
        "StepStarted",
        "TargetUnavailable",
        "Warned",
        "WorkspaceCopied",
    ),
    "pccpipe.record.index": ("RunEntry",),
    "pccpipe.record.reading": ("LogPiece",),
    "pccpipe.record.state": ("RunState",),
    "pccpipe.record.step_state": ("StepState",),
    "pccpipe.records": ("delete_run", "follow", "get_run", "list_runs", "prune", "read_events", "read_log"),
    "pccpipe.session.result": ("RunResult",),
    "pccpipe.spec.model": ("Pipeline",),
    "pccpipe.spec.problem": ("Problem",),
    "pccpipe.spec.project_model": ("Keep", "Project", "Vm"),
}
"""The module that has each public name."""


if not TYPE_CHECKING:  # a type checker knows the names above, and no others

    def __getattr__(name: str) -> object:
        # Loaded when first asked for (PEP 562): a command such as `pccpipe --version` needs none of it.
        module = next((module for module, names in _MODULES.items() if name in names), None)
        if module is None and name != "aio":
            raise AttributeError(f"module 'pccpipe' has no attribute {name!r}")
        if refused := refusal():
            raise ImportError(refused)
        return getattr(importlib.import_module(module), name) if module else importlib.import_module("pccpipe.aio")


def __dir__() -> list[str]:
    return __all__
