"""Say whether a run stops where it is, to wait for a place, instead of ending."""

from __future__ import annotations

from pccpipe.executor.context import RunContext, StepOutcome
from pccpipe.executor.waiting import is_away
from pccpipe.outcome import Outcome, Reason

_STOPPING = frozenset({Reason.AFTER_UNTRUSTED_CODE, Reason.VM_NOT_TRUSTED, Reason.PROCESSES_LEFT, Reason.VM_BUSY})
"""Reasons that stop a run, exposed or not: it waits for a person, or for the end of another run."""


def run_stops(context: RunContext, ended: StepOutcome) -> bool:
    """Say whether a run that ends so stops to wait: an agent's work must not be lost because a place is away."""
    if ended.reason is Reason.FENCED:
        return True
    if ended.outcome is not Outcome.UNAVAILABLE or context.cancel.requested or context.replay.always:
        return False
    if ended.reason is Reason.UNATTESTED:
        return False  # a resume would be refused in the same way
    return ended.reason in _STOPPING or context.exposure.is_exposed or is_away(context, ended.reason)


def stops_anyway(context: RunContext, ended: StepOutcome) -> bool:
    """Say whether the run stops even if its step may fail.

    A place of the run is unreachable, taken by another run, or has processes left.
    """
    return ended.outcome is Outcome.UNAVAILABLE and (
        ended.reason in {Reason.PROCESSES_LEFT, Reason.VM_BUSY} or is_away(context, ended.reason)
    )
