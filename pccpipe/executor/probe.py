"""Looks, before a group of steps begins, where its agents will run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import PccpipeError, Unavailable
from pccpipe.executor.command import container_settings
from pccpipe.executor.context import Position, RunContext
from pccpipe.executor.exposure import Level, is_agent, level_of
from pccpipe.executor.places import first_way, following_way
from pccpipe.outcome import Place
from pccpipe.spec.model import Host, Parallel, Repeat, Run, Step


def expected_levels(context: RunContext, steps: Sequence[Step], position: Position) -> list[Level]:
    """Say where the agents of a group will run, by what is unavailable before its first step.

    Asked before that, because later an agent could make a place unavailable. A run that is exposed already has
    nothing left to lose, and is not asked.
    """
    levels: list[Level] = []
    if context.exposure.is_exposed:
        return levels
    # Once each, and not for each leg of a matrix: a VM that does not answer takes its time to say so.
    missing: dict[tuple[Place, str], bool] = {}
    for body in _runs_in(steps):
        place, where = first_way(context.project.isolation_mode, body)
        following = following_way(context.project.isolation_mode, body, place, allowed=context.fallback_allowed)
        if following:
            asked = place, where.container.name if where.container else ""
            if asked not in missing:
                missing[asked] = _is_missing(context, place, where, position)
            if missing[asked]:
                place = following[0]
        if is_agent(context.pipeline, body):
            levels.append(level_of(place, agent=True))
    return levels


def _is_missing(context: RunContext, place: Place, where: Host, position: Position) -> bool:
    if place is Place.LOCAL:
        return False
    try:
        settings = container_settings(where, place, position)
        halt = Halt(context.cancel, position.deadline)
        unless_halted(halt, lambda: context.targets[place].probe(settings))
    except Unavailable:
        return True
    except PccpipeError:
        # It can't be known yet, as an image that is named by the round; the step says so when its turn comes.
        return False
    return False


def _runs_in(steps: Sequence[Step]) -> Iterator[Run]:
    for step in steps:
        match step.body:
            case Run() as body:
                yield body
            case Repeat(steps=inner) | Parallel(steps=inner):
                yield from _runs_in(inner)
            case _:
                pass
