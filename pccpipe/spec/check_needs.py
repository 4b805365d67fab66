"""Checks the `needs:` between the steps of a `parallel:` group."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from pccpipe.spec.data import items, mapping
from pccpipe.spec.position import KeyPath
from pccpipe.spec.problem import did_you_mean
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json


def needed(values: ValueChecker, path: KeyPath, steps: Sequence[Json]) -> dict[str, set[str]]:
    """Check the needs of a group's steps, and return for each step all that have ended when it starts, by id."""
    index_of = {str(step["id"]): index for index, step in enumerate(map(mapping, steps)) if "id" in step}
    needs: dict[str, list[str]] = {}
    for step_id, index in index_of.items():
        needs[step_id] = []
        for number, name in enumerate(items(mapping(steps[index]).get("needs"))):
            if name == step_id:
                values.say((*path, index, "needs", number), f"`{name}` needs itself", "leave it out")
            elif isinstance(name, str) and name not in index_of:
                others = [other for other in index_of if other != step_id]
                hint = did_you_mean(name, others) or "a step needs steps of its own `parallel:` group"
                values.say((*path, index, "needs", number), f"there is no step `{name}` in this group", hint)
            elif isinstance(name, str):
                needs[step_id].append(name)
    before = _in_order(needs)
    if stuck := [step_id for step_id in needs if step_id not in before]:
        chain = _cycle(needs, before, stuck[0])
        place = (*path, index_of[chain[0]], "needs")
        values.say(place, f"these steps wait for one another: {' -> '.join(chain)}", "leave out one of the needs")
    return before


def _in_order(needs: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Return all direct and indirect needs of each step that can start."""
    left = {step: len(names) for step, names in needs.items()}
    after: dict[str, list[str]] = {step: [] for step in needs}
    for step, names in needs.items():
        for name in names:
            after[name].append(step)
    ready = deque(step for step, count in left.items() if not count)
    before: dict[str, set[str]] = {}
    while ready:
        step = ready.popleft()
        before[step] = set(needs[step]).union(*(before[name] for name in needs[step]))
        for other in after[step]:
            left[other] -= 1
            if not left[other]:
                ready.append(other)
    return before


def _cycle(needs: Mapping[str, Sequence[str]], before: Mapping[str, set[str]], start: str) -> list[str]:
    chain = [start]
    while True:
        step = next(name for name in needs[chain[-1]] if name not in before)
        if step in chain:
            return [*chain[chain.index(step) :], step]
        chain.append(step)
