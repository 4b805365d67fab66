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
    from pccpipe.api import (
        Fallback,
        RunResult,
        answer,
        ask_to_cancel,
        doctor,
        load,
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
    from pccpipe.errors import PccpipeError, RecordFull, SpecError, Unavailable, UsageError, VmBusy
    from pccpipe.outcome import Outcome, Place, Reason
    from pccpipe.record.events import Event

__all__ = [
    "Cancel",
    "DoctorReport",
    "EscapeReport",
    "Event",
    "Fallback",
    "Outcome",
    "PccpipeError",
    "Place",
    "Reason",
    "RecordFull",
    "RunResult",
    "SelfcheckReport",
    "SpecError",
    "Unavailable",
    "UsageError",
    "VmBusy",
    "__version__",
    "answer",
    "ask_to_cancel",
    "check_escape",
    "doctor",
    "load",
    "load_project",
    "local_project",
    "plan",
    "provision",
    "resume",
    "run",
    "selfcheck",
]

_HOMES = {
    "pccpipe.canary.check": ("selfcheck",),
    "pccpipe.canary.escape": ("check_escape",),
    "pccpipe.canary.ledger": ("SelfcheckReport",),
    "pccpipe.canary.routes": ("EscapeReport",),
    "pccpipe.cancel": ("Cancel",),
    "pccpipe.checkup.check": ("DoctorReport",),
    "pccpipe.errors": ("PccpipeError", "RecordFull", "SpecError", "Unavailable", "UsageError", "VmBusy"),
    "pccpipe.api": (
        *("Fallback", "RunResult", "answer", "ask_to_cancel", "doctor"),
        *("load", "load_project", "local_project", "plan", "provision", "resume", "run"),
    ),
    "pccpipe.outcome": ("Outcome", "Place", "Reason"),
    "pccpipe.record.events": ("Event",),
}


def __getattr__(name: str) -> object:
    # Loaded when first asked for (PEP 562): a command such as `pccpipe --version` needs none of it.
    for home, names in _HOMES.items():
        if name in names:
            if refused := refusal():
                raise ImportError(refused)
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'pccpipe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
