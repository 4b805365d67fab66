"""Continues the runs that wait for a model and are due. A timer calls this; no process of pccpipe waits for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from pccpipe.cancel import Cancel
from pccpipe.errors import PccpipeError, RunHeld, UsageError
from pccpipe.policy.policy import Policy
from pccpipe.record.due import due_runs, refuse_strange
from pccpipe.record.events import Event
from pccpipe.records import runs_folder
from pccpipe.session import session
from pccpipe.session.job import Caller
from pccpipe.session.result import RunResult


class DueRun(Struct, frozen=True):
    """A run that was due, with its result, or the error that kept it from being continued.

    It has neither if another process continued it at the same time.
    """

    run_id: str
    result: RunResult | None = None
    error: PccpipeError | None = None


def resume_due(
    *,
    runs_dir: str | Path | None = None,
    on_event: Callable[[str, Event], None] | None = None,
    cancel: Cancel | None = None,
    accept_new_host_key: bool = False,
    wait: float = 0.0,
    environ: Mapping[str, str] = os.environ,
    secrets: Mapping[str, str] | None = None,
    policy: Policy | None = None,
) -> list[DueRun]:
    """Continue each run of a folder that waits for a model and is due, one after another; return them.

    Two callers at once continue each run once. A run that cannot continue keeps no other one from it.

    Args:
        runs_dir, accept_new_host_key, wait, environ, secrets, policy: as for `resume`.
        on_event: called with the run's id and each event once it is on disk.
        cancel: ends the run under way; the runs after it stay as they are.
    """
    folder = runs_folder(runs_dir)
    cancel = cancel or Cancel()
    resumed: list[DueRun] = []
    for entry in due_runs(folder, time.time()):
        if cancel.requested:
            break
        heard = (lambda event, run_id=entry.run_id: on_event(run_id, event)) if on_event else None
        caller = Caller(heard, cancel, accept_new_host_key, wait, environ, secrets or {}, {}, policy)
        resumed.append(continue_if_due(folder / entry.run_id, caller))
    return resumed


def continue_if_due(record: Path, caller: Caller) -> DueRun:
    """Continue a run if it still waits for a model and is due."""
    try:
        refuse_strange(record)
        return DueRun(record.name, session.resume(record, None, (), caller, if_due=True))
    except RunHeld:
        return DueRun(record.name)
    except (PccpipeError, OSError) as error:
        return DueRun(record.name, error=as_error(record, error))


def as_error(record: Path, error: PccpipeError | OSError) -> PccpipeError:
    """Return the error that kept a run from being continued."""
    return error if isinstance(error, PccpipeError) else UsageError(f"run {record.name} cannot continue: {error}")


def worst_status(runs: list[DueRun]) -> int:
    """Return the exit status of `resume --due`: the highest of its runs; 1 for a run that could not continue."""
    statuses = [run.result.exit_status if run.result else 1 for run in runs if run.result or run.error]
    return max(statuses, default=0)
