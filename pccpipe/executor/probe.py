"""Find out where the agents of a group will run, before the group begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import PccpipeError, Unavailable
from pccpipe.executor.command import container_settings
from pccpipe.executor.context import RunContext, WalkPosition
from pccpipe.executor.exposure import Level, is_agent, level_of
from pccpipe.executor.places import first_way, following_way
from pccpipe.outcome import Place
from pccpipe.spec.model import Host, Run, Step


def expected_levels(context: RunContext, steps: Sequence[Step], position: WalkPosition) -> list[Level]:
    """Return the isolation that the agents of a group will have, from the places that are available now.

    The places are probed before the first step, because an agent could make one unavailable later. In a run that is
    exposed already, none is probed.
    """
    levels: list[Level] = []
    if context.exposure.is_exposed:
        return levels
    # Each place is probed once, not for each leg of a matrix: a VM that does not answer takes seconds.
    missing: dict[tuple[Place, str], bool] = {}
    for body in _runs_in(steps):
        place, where = first_way(context.project.isolation_mode, body)
        following = following_way(context.project.isolation_mode, body, place, allowed=context.fallback_allowed)
        if following:
            asked = place, where.container.name if where.container else where.choice.name.source if where.choice else ""
            if asked not in missing:
                missing[asked] = _is_missing(context, place, where, position)
            if missing[asked]:
                place = following[0]
        if is_agent(context.pipeline, body):
            levels.append(level_of(place, agent=True))
    return levels


def _is_missing(context: RunContext, place: Place, where: Host, position: WalkPosition) -> bool:
    if place is Place.LOCAL:
        return False
    try:
        settings = container_settings(where, place, position)
        halt = Halt(context.cancel, position.deadline)
        unless_halted(halt, lambda: context.targets[place].probe(settings))
    except Unavailable:
        return True
    except PccpipeError:
        # It is not known yet, as with an image that the round names; the step reports an error in its turn.
        return False
    return False


def _runs_in(steps: Sequence[Step]) -> Iterator[Run]:
    for step in steps:
        if isinstance(step.body, Run):
            yield step.body
        yield from _runs_in(step.inner)
