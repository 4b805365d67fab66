"""Which results a command on the VM could have forged.

Without `run_as`, and with `account: login`, commands on the VM have the account that owns pccpipe's files there. From
the first one on, nothing that comes from the VM can be told from what such a command wrote in its place: the result is
`unattested`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pccpipe.executor.context import Position, RunContext
from pccpipe.executor.scope import Scope
from pccpipe.outcome import Place
from pccpipe.spec import jinja
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.model import FileKind, Pipeline, Run, Step
from pccpipe.workspace.base import Side


def runs_as_login(context: RunContext, body: Run, place: Place) -> bool:
    """Say whether a command at `place` has the account on the VM that owns pccpipe's files there."""
    vm = context.project.vm
    return place is Place.VM and context.side_of(place) is Side.VM and (body.as_login or not (vm and vm.run_as))


def is_unattested(context: RunContext, body: Run, place: Place) -> bool:
    """Say whether a result of a command at `place` could be forged by a command on the VM, itself included."""
    if context.side_of(place) is Side.LOCAL:
        return False
    vm = context.project.vm
    as_login_before = context.replay.login_began or (Place.VM in context.used and not (vm and vm.run_as))
    return as_login_before or runs_as_login(context, body, place)


def unattested_reads(scope: Scope, pipeline: Pipeline, step: Step, body: Run) -> tuple[str, ...]:
    """The ids of the steps whose unattested results a step reads, in the order of its texts."""
    return _unattested(scope, _chains(pipeline, step, body))


def unattested_gates(position: Position) -> tuple[str, ...]:
    """Those by which a step's turn comes: a group's `if:` around it read them, or the `until:` of a loop before it."""
    return (*position.forged, *position.scope.forged)


def unattested_condition(scope: Scope, condition: Expression | None) -> tuple[str, ...]:
    """The same of an `if:` or `until:`, by which other steps than its own run."""
    return _unattested(scope, _of_condition(condition))


def _unattested(scope: Scope, chains: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    ids = dict.fromkeys(chain[1] for chain in chains if chain[0] == "steps" and len(chain) > 1)
    return tuple(id_ for id_ in ids if (view := scope.steps.get(id_)) and view.unattested)


def _of_condition(condition: Expression | None) -> Iterator[tuple[str, ...]]:
    if condition is not None:
        yield from jinja.references(condition.source, is_expression=True)


def _chains(pipeline: Pipeline, step: Step, body: Run) -> Iterator[tuple[str, ...]]:
    yield from _of_condition(step.condition)
    yield from _of_condition(step.timeout.expression if step.timeout else None)
    for template in _templates(pipeline, body):
        if not template.is_plain:
            yield from jinja.references(template.source, is_expression=False)


def _templates(pipeline: Pipeline, body: Run) -> Iterator[Template]:
    yield from pipeline.env.values()
    for where in (body.where, body.fallback):
        if where is not None:
            yield where.run
            yield from where.env.values()
            if where.cwd is not None:
                yield where.cwd
            if where.container is not None:
                yield where.container.image
                yield from where.container.env.values()
    yield from (file.content for file in body.files if file.kind is not FileKind.SCHEMA)
    if body.result:
        yield body.result.path
