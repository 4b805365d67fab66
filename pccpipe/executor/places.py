"""Choose a step's place in a project, and the place that it may fall back to."""

from __future__ import annotations

from pccpipe.outcome import IsolationMode, Place
from pccpipe.spec.model import Host, Run


def leads_to(mode: IsolationMode, asked: Place) -> Place:
    """Return the place that `on:` leads to. The choice of a project does not count as a downgrade."""
    match mode:
        case IsolationMode.VM:
            return asked
        case IsolationMode.CONTAINER:
            return Place.LOCAL if asked is Place.VM else asked
        case IsolationMode.LOCAL:
            return Place.LOCAL


def first_way(mode: IsolationMode, body: Run) -> tuple[Place, Host]:
    """Return the place where a run step runs first, and its command there."""
    place = leads_to(mode, body.where.on)
    led_here = place is Place.LOCAL and body.where.on is not Place.LOCAL
    if led_here and body.fallback and body.fallback.on is Place.LOCAL:
        # A step that the project leads to this machine runs the command of its local fallback:
        # the one for a container switches off the agent's own sandbox.
        return place, body.fallback
    return place, body.where


def refusal(mode: IsolationMode, body: Run) -> str | None:
    """Say why a step that needs its container may not run where the project leads it; None: it may.

    The project's choice is neither a fallback nor a downgrade. But without a project file there was no choice, and
    the author of the step wrote `required`.
    """
    if body.where.on is not Place.CONTAINER or leads_to(mode, Place.CONTAINER) is Place.CONTAINER:
        return None
    if body.agent and not body.agent.agent.description.outside:
        return f"the agent {body.agent.agent.name} runs only in containers, and isolation_mode is {mode.value}"
    if not body.isolation_required:
        return None
    return f"`isolation: required` asks for its container, and isolation_mode is {mode.value}: there is no engine"


def following_way(mode: IsolationMode, body: Run, place: Place, *, allowed: bool) -> tuple[Place, Host] | None:
    """Return the place that a step may fall back to from `place`, and its command there; None if it may not."""
    if not allowed or body.isolation_required or body.fallback is None:
        return None
    following = leads_to(mode, body.fallback.on)
    return (following, body.fallback) if following is not place else None
