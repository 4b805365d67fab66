"""Find the results that a command on the VM could have forged.

Without `run_as`, and with `account: login`, commands on the VM run as the login, which owns pccpipe's files there. From
the first such command on, it could have replaced anything that comes from the VM: each result is `unattested`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pccpipe.executor.context import RunContext, WalkPosition
from pccpipe.executor.scope import Scope
from pccpipe.outcome import Place
from pccpipe.record.exported import ExportOrigin
from pccpipe.spec import jinja
from pccpipe.spec.agent_task import FileInputKind
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.matrix import Matrix
from pccpipe.spec.model import Pipeline, Run, Step
from pccpipe.spec.secret import Via
from pccpipe.spec.services import Service
from pccpipe.workspace.base import Side


def runs_as_login(context: RunContext, body: Run, place: Place) -> bool:
    """Say whether a command at `place` runs on the VM as the login, which owns pccpipe's files there."""
    vm = context.project.vm
    return place is Place.VM and context.side_of(place) is Side.VM and (body.as_login or not (vm and vm.run_as))


def origin_of(context: RunContext, body: Run, place: Place) -> ExportOrigin:
    """Return where a command at `place` runs, by isolation."""
    match place:
        case Place.CONTAINER:
            return ExportOrigin.CONTAINER
        case Place.VM:
            return ExportOrigin.VM if runs_as_login(context, body, place) else ExportOrigin.ACCOUNT
        case Place.LOCAL:
            return ExportOrigin.LOCAL


def receiver_of(context: RunContext, body: Run, place: Place) -> ExportOrigin | None:
    """Return what decides the exports that a command gets; None for one that gets none."""
    is_proxied = any(context.pipeline.secrets[name].via is Via.PROXY for name in body.secrets)
    return None if body.agent or is_proxied else origin_of(context, body, place)


def is_unattested(context: RunContext, body: Run, place: Place) -> bool:
    """Say whether a command on the VM could forge a result from `place`; the step's own command counts too."""
    if context.side_of(place) is Side.LOCAL:
        return False
    vm = context.project.vm
    as_login_before = context.replay.login_began or (Place.VM in context.used and not (vm and vm.run_as))
    return as_login_before or runs_as_login(context, body, place)


def unattested_reads(scope: Scope, pipeline: Pipeline, step: Step, body: Run) -> tuple[str, ...]:
    """Return the ids of the steps whose unattested results a step reads, in the order of its texts."""
    return _unattested(scope, _chains(pipeline, step, body))


def unattested_gates(position: WalkPosition) -> tuple[str, ...]:
    """Return the ids that the `if:` of a group around a step read, or the `until:` of a loop before it."""
    return (*position.forged, *position.scope.forged)


def unattested_condition(scope: Scope, condition: Expression | None) -> tuple[str, ...]:
    """Return the ids that an `if:` or `until:` reads, on which other steps depend."""
    return _unattested(scope, _of_condition(condition))


def unattested_matrix(scope: Scope, matrix: Matrix) -> tuple[str, ...]:
    """Return the ids whose results give values of a matrix, on which its legs depend."""
    return tuple(id_ for each in matrix.expressions for id_ in unattested_condition(scope, each))


def unattested_services(scope: Scope, services: Iterable[Service]) -> tuple[str, ...]:
    """Return the ids whose results the services beside a step or group get, on which its commands depend."""
    return _unattested(scope, (chain for each in services for chain in _in_texts(_templates_of(each))))


def _templates_of(service: Service) -> Iterator[Template]:
    yield service.image
    yield from service.env.values()
    yield from service.command or ()
    if service.ready:
        yield service.ready.run


def _unattested(scope: Scope, chains: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    ids = dict.fromkeys(chain[1] for chain in chains if chain[0] == "steps" and len(chain) > 1)
    return tuple(id_ for id_ in ids if (view := scope.steps.get(id_)) and view.unattested)


def _of_condition(condition: Expression | None) -> Iterator[tuple[str, ...]]:
    if condition is not None:
        yield from jinja.references(condition.source, is_expression=True)


def _chains(pipeline: Pipeline, step: Step, body: Run) -> Iterator[tuple[str, ...]]:
    yield from _of_condition(step.condition)
    yield from _of_condition(step.timeout.expression if step.timeout else None)
    yield from _in_texts(_templates(pipeline, body))


def _in_texts(templates: Iterable[Template]) -> Iterator[tuple[str, ...]]:
    for template in templates:
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
    files = (*body.files, body.agent.prompt) if body.agent else body.files
    yield from (file.content for file in files if file.kind is not FileInputKind.SCHEMA)
    if body.ready:
        yield body.ready.run
    if body.result:
        yield body.result.path
