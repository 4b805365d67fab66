"""Runs AI coding agents as YAML pipelines: on a VM over SSH, in containers on it, or here, and says truthfully which.

import pccpipe

pipeline = pccpipe.load("pipelines/default-run.yaml")
result = pccpipe.run(pipeline, run_id="first", inputs={"work_order": "work-order.md"})
print(result.outcome, result.downgraded, result.record)
"""

from pccpipe.engine.cancel import Cancel
from pccpipe.errors import PccpipeError, SpecError, UsageError
from pccpipe.library import Fallback, RunResult, load, load_project, run
from pccpipe.outcome import Outcome, Place, Reason
from pccpipe.record.events import Event
from pccpipe.version import __version__

__all__ = [
    "Cancel",
    "Event",
    "Fallback",
    "Outcome",
    "PccpipeError",
    "Place",
    "Reason",
    "RunResult",
    "SpecError",
    "UsageError",
    "__version__",
    "load",
    "load_project",
    "run",
]
