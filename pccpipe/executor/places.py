"""Where a step leads in a project, and where it may go when that place is not to be had."""

from __future__ import annotations

from pccpipe.outcome import IsolationMode, Place
from pccpipe.spec.model import Host, Run


def leads_to(mode: IsolationMode, asked: Place) -> Place:
    """Where `on:` leads. What the project chose is no downgrade."""
    match mode:
        case IsolationMode.VM:
            return asked
        case IsolationMode.CONTAINER:
            return Place.LOCAL if asked is Place.VM else asked
        case IsolationMode.LOCAL:
            return Place.LOCAL


def first_way(mode: IsolationMode, body: Run) -> tuple[Place, Host]:
    """The place where a run step is tried first, and what it runs there."""
    place = leads_to(mode, body.where.on)
    led_here = place is Place.LOCAL and body.where.on is not Place.LOCAL
    if led_here and body.fallback and body.fallback.on is Place.LOCAL:
        # Where a project leads the step here, what it would do here as a fallback is what it is to do:
        # an agent's command for a container switches off the agent's own sandbox.
        return place, body.fallback
    return place, body.where


def refusal(mode: IsolationMode, body: Run) -> str | None:
    """Why a step may not run where the project leads it, or None: one that requires its container has one or none.

    It is no fallback that leads there, and what the project chose is no downgrade; but without a project file nobody
    chose, and `required` is the word of whoever wrote the step.
    """
    if not body.isolation_required or body.where.on is not Place.CONTAINER:
        return None
    if leads_to(mode, Place.CONTAINER) is Place.CONTAINER:
        return None
    return f"`isolation: required` asks for its container, and isolation_mode is {mode.value}: there is no engine"


def following_way(mode: IsolationMode, body: Run, place: Place, *, allowed: bool) -> tuple[Place, Host] | None:
    """Where the step may go when `place` is unavailable, and what it runs there."""
    if not allowed or body.isolation_required or body.fallback is None:
        return None
    following = leads_to(mode, body.fallback.on)
    return (following, body.fallback) if following is not place else None
