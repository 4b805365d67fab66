"""Plan a run: say which step would run where, with each expression evaluated that is known before the run.

Results, rounds and the run's id are known only in the run: expressions that read them stay as written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never, cast

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import ExpressionError, PccpipeError, SpecError, UsageError
from pccpipe.executor.actions import kind_of
from pccpipe.executor.places import first_way, following_way
from pccpipe.executor.plan_warnings import exposures, kept_apart
from pccpipe.executor.planned import Plan, PlannedContainer, PlannedStep, Way
from pccpipe.executor.scope import ProjectView, RunView
from pccpipe.executor.unpriced import FIX, unpriced, unpriced_text
from pccpipe.outcome import IsolationMode, Place
from pccpipe.secrets.mask import Masker
from pccpipe.secrets.sources import read_secrets
from pccpipe.spec import jinja
from pccpipe.spec.absent import NoResult
from pccpipe.spec.bounds import bounded_work
from pccpipe.spec.env import layered
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.matrix import Leg, Matrix, described, labels
from pccpipe.spec.model import (
    Build,
    Diff,
    Download,
    Group,
    Host,
    Parallel,
    Pipeline,
    Remove,
    Repeat,
    Run,
    Step,
    Upload,
    Value,
)
from pccpipe.spec.problem import Problem
from pccpipe.spec.project_model import Project
from pccpipe.spec.secret import SecretSource
from pccpipe.values import Json


def make_plan(
    pipeline: Pipeline,
    project: Project,
    inputs: Mapping[str, Json],
    *,
    fallback_allowed: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> Plan:
    """Return the plan of a run with these inputs (from `resolve_inputs`). Runs nothing and connects to nothing.

    Raises SpecError for an expression that exceeds a limit.
    """
    with bounded_work(limits.PLAN_WORK):
        return _made(pipeline, project, inputs, fallback_allowed, environ)


def _made(
    pipeline: Pipeline, project: Project, inputs: Mapping[str, Json], fallback_allowed: bool, environ: Mapping[str, str]
) -> Plan:
    secrets, unset = _read_secrets(pipeline, environ)
    masker = Masker(secrets)
    planner = _Planner(pipeline, project, fallback_allowed and not project.isolation_required, masker)
    run = RunView(id="", isolation_mode=project.isolation_mode.value, folder="")
    names: dict[str, object] = {"inputs": inputs, "project": ProjectView(project.id), "run": run}
    planned = [*planner.steps(pipeline.steps, _At(names)), *planner.steps(pipeline.always, _At(names, always=True))]
    steps = tuple(_attested(project, planned))
    upstreams = {
        name: planner.text(secret.upstream, f"secrets.{name}", _At(names))
        for name, secret in pipeline.secrets.items()
        if secret.upstream
    }
    warnings = [*map(masker.text, planner.warnings), *unset]
    apart = kept_apart(project, steps)
    warnings += [*_project_warnings(project, steps), *map(masker.text, (*exposures(project, steps), *apart))]
    missing = unpriced(pipeline, project, inputs)
    warnings += [masker.text(f"{unpriced_text(step, model)}; fix: {FIX}") for step, model in missing]
    shown = {name: masker.json(value) for name, value in inputs.items()}
    return Plan(pipeline, project, shown, steps, tuple(dict.fromkeys(warnings)), upstreams)


def _attested(project: Project, steps: Sequence[PlannedStep]) -> Iterator[PlannedStep]:
    """Yield the steps, and mark those whose results a command on the VM could forge."""
    if project.isolation_mode is not IsolationMode.VM:
        yield from steps
        return
    repeats = [f"{step.path}." for step in steps if step.kind == "repeat"]
    as_login = [index for index, step in enumerate(steps) if _runs_as_login(project, step)]
    for index, step in enumerate(steps):
        around = [group for group in repeats if step.path.startswith(group)]
        comes_after = any(
            other <= index or any(steps[other].path.startswith(group) for group in around) for other in as_login
        )
        remote = any(way.place is not Place.LOCAL for way in step.ways)
        yield replace(step, unattested=bool(step.result and remote and comes_after))


def _runs_as_login(project: Project, step: PlannedStep) -> bool:
    body = step.step.body
    if not isinstance(body, Run) or not step.ways or step.ways[0].place is not Place.VM:
        return False
    return body.as_login or not (project.vm and project.vm.run_as)


class _At(Struct, frozen=True):
    """A position in the tree of steps, and the names that are known there."""

    names: Mapping[str, object]
    path: str = ""
    depth: int = 0
    always: bool = False
    of_group: bool = False
    """Under the `always:` of the group around."""

    def inside(self, path: str) -> _At:
        return replace(self, path=path, depth=self.depth + 1, of_group=False)

    def knowing(self, **names: object) -> _At:
        return replace(self, names={**self.names, **names})


class _Planner(Struct):
    pipeline: Pipeline
    project: Project
    fallback_allowed: bool
    masker: Masker
    warnings: list[str] = field(default_factory=list)

    def steps(self, steps: Sequence[Step], at: _At) -> Iterator[PlannedStep]:
        for step in steps:
            path = f"{at.path}.{step.id}" if at.path else step.id
            if step.matrix:
                yield from self._matrix(step, step.matrix, path, at)
            else:
                yield from self._step(step, path, at)

    def _matrix(self, step: Step, matrix: Matrix, path: str, at: _At) -> Iterator[PlannedStep]:
        at_once, inside = _at_once(step.matrix_parallel, fail_fast=step.fail_fast), at.inside(path)
        legs = self._legs(matrix, path, at)
        if legs is None:
            yield self._group(step, "matrix", f"{described(matrix)}; {at_once}", path, at)
            of_leg = replace(step, id=f"{step.id}[...]", matrix=None, condition=None)
            names = {name: value for name, value in inside.names.items() if name != "matrix"}
            yield from self._step(of_leg, f"{path}[...]", replace(inside, names=names))
            return
        yield self._group(step, "matrix", at_once if legs else "no legs: it will be skipped", path, at)
        missing = {name: NoResult() for leg in legs for name in leg}
        around = cast("Mapping[str, object]", at.names.get("matrix", {}))
        for leg, name in zip(legs, labels(matrix, legs), strict=True):
            of_leg = replace(step, id=f"{step.id}[{name}]", matrix=None, condition=None)
            names_of_leg = inside.knowing(matrix={**missing, **around, **leg})
            yield from self._step(of_leg, f"{path}[{name}]", names_of_leg)

    def _legs(self, matrix: Matrix, path: str, at: _At) -> tuple[Leg, ...] | None:
        """Return the legs as far as they can be known before the run."""
        if not all(_can_be_known(each.source, at) for each in matrix.expressions):
            return None
        try:
            return matrix.legs(at.names)
        except PccpipeError as error:
            self._warn(path, error)
            return None

    def _step(self, step: Step, path: str, at: _At) -> Iterator[PlannedStep]:
        body = step.body
        match body:
            case Run():
                yield self._run(step, body, path, at)
            case Upload() | Download() | Diff() | Remove() | Build():
                yield self._group(step, kind_of(body), self._action(body, path, at), path, at)
            case Repeat():
                until = f", until {self._expression(body.until, path, at)}" if body.until else ""
                rounds = self._value(body.max, path, at)
                yield self._group(step, "repeat", f"at most {rounds} rounds{until}", path, at)
                yield from self.steps(body.steps, at.inside(path))
            case Parallel():
                yield self._group(step, "parallel", _at_once(body.max_parallel, fail_fast=body.fail_fast), path, at)
                yield from self.steps(body.steps, at.inside(path))
            case Group():
                yield self._group(step, "group", "", path, at)
                yield from self.steps(body.steps, at.inside(path))
            case _:
                assert_never(body)
        if step.always:
            yield from self.steps(step.always, replace(at.inside(path), of_group=True))

    def _group(self, step: Step, kind: str, does: str, path: str, at: _At) -> PlannedStep:
        return PlannedStep(
            path=path,
            depth=at.depth,
            kind=kind,
            step=step,
            always=at.always,
            of_group=at.of_group,
            condition=self._expression(step.condition, path, at) if step.condition else None,
            timeout=self._value(step.timeout, path, at),
            does=does,
        )

    def _run(self, step: Step, body: Run, path: str, at: _At) -> PlannedStep:
        mode = self.project.isolation_mode
        first = first_way(mode, body)
        ways = [first]
        following = following_way(mode, body, first[0], allowed=self.fallback_allowed)
        if following:
            ways.append(following)
        result = None
        if body.result:
            schema = f" ({body.result.schema})" if body.result.schema else ""
            result = f"{self.text(body.result.path, path, at)}{schema}"
        planned = tuple(self._way(place, where, path, at) for place, where in ways)
        if body.agent:
            asks = ", then ".join(f"{each.name} with {self.text(each.model, path, at)}" for each in body.agent.agents)
            planned = tuple(replace(way, command=f"agent {asks}") for way in planned)
        return replace(
            self._group(step, "agent" if body.agent else "run", "", path, at),
            asked=body.where.on,
            ways=planned,
            result=result,
        )

    def _way(self, place: Place, where: Host, path: str, at: _At) -> Way:
        at = at.knowing(target=place.value)
        where = self._chosen(where, path, at)
        container = where.container if place is Place.CONTAINER else None
        image = self.text(container.image, path, at) if container else ""
        planned = PlannedContainer(container, container.of_image(image)) if container else None
        env = layered(self.pipeline.env, container.env if container else {}, where.env)
        return Way(
            place=place,
            host=self._host(place),
            command=self._known(where.run, path, at, for_shell=True),
            shell=where.shell,
            shell_options=where.shell_options,
            cwd=self.text(where.cwd, path, at) if where.cwd else None,
            env={name: self.text(template, path, at) for name, template in env.items()},
            container=planned,
            choice=where.choice.name.source if where.choice else "",
        )

    def _chosen(self, where: Host, path: str, at: _At) -> Host:
        """Return it with the container that a leg chooses, if that can be known."""
        if where.choice and "matrix" in at.names:
            try:
                return where.chosen(at.names)
            except PccpipeError as error:
                self._warn(path, error)
        return where

    def _host(self, place: Place) -> str:
        vm = self.project.vm
        remote = place is not Place.LOCAL and self.project.isolation_mode is IsolationMode.VM
        return f"{vm.user}@{vm.external_ip}" if remote and vm else "localhost"

    def _action(self, body: Upload | Download | Diff | Remove | Build, path: str, at: _At) -> str:
        match body:
            case Upload():
                without = f"without {', '.join(body.exclude)}" if body.exclude else ""
                local = "; without the VM, the local copy is enough" if body.fall_back_locally else ""
                git = "; with a git repository of it" if body.with_git else ""
                return f"the workspace to {self._host(Place.VM)} {without}".rstrip() + git + local
            case Download():
                paths = ", ".join(self.text(each, path, at) for each in body.paths)
                without = f" without {', '.join(body.exclude)}" if body.exclude else ""
                required = "; each must bring a file" if body.required else ""
                return f"{paths}{without} into artifacts/{required}"
            case Diff():
                return f"into {self.text(body.path, path, at)}"
            case Remove():
                return "the run's copy of the workspace"
            case Build():
                when = ", if it is missing" if body.only_if_missing else ""
                return f"the image {self.text(body.image, path, at)} from {body.context}{when}"
            case _:
                assert_never(body)

    def text(self, template: Template, path: str, at: _At) -> str:
        return self._known(template, path, at, for_shell=False)

    def _known(self, template: Template, path: str, at: _At, *, for_shell: bool) -> str:
        """Return the template with the values that can be known."""
        if template.is_plain:
            return self.masker.text(template.source)
        parts: list[str] = []
        for text, is_value in jinja.segments(template.source, blocks=template.blocks):
            if not is_value or not _can_be_known(text, at):
                parts.append(text)
                continue
            one = Template(text, template.position)
            try:
                parts.append(one.render_for_shell(at.names) if for_shell else one.render(at.names))
            except PccpipeError as error:
                self._warn(path, error)
                parts.append(text)
        return self.masker.text("".join(parts))

    def _expression(self, expression: Expression, path: str, at: _At) -> str:
        if _can_be_known(expression.source, at):
            try:
                return self.masker.text(jinja.plain(expression.evaluate(at.names)))
            except PccpipeError as error:
                self._warn(path, error)
        return jinja.bare(expression.source)

    def _warn(self, path: str, error: PccpipeError) -> None:
        """Warn of an expression; end the plan at one that exceeds a limit, because each of those takes seconds."""
        if isinstance(error, ExpressionError) and error.limit:
            message = self.masker.text(f"in `{error.shown}`: {error.message}")
            raise SpecError([Problem(error.position, message)])
        self.warnings.append(f"{path}: {error}")

    def _value(self, value: Value[int] | Value[float] | None, path: str, at: _At) -> str | None:
        if value is None:
            return None
        return self._expression(value.expression, path, at) if value.expression else str(value.known)


def _can_be_known(source: str, at: _At) -> bool:
    chains = jinja.references(source, is_expression=True)
    return all(chain[0] in at.names and (chain[0] != "run" or chain[1:] == ("isolation_mode",)) for chain in chains)


def _at_once(count: int, *, fail_fast: bool) -> str:
    words = "one after another" if count == 1 else f"at most {count} at once"
    return f"{words}, until one fails" if fail_fast else words


def _read_secrets(pipeline: Pipeline, environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the values that the plan must mask, and what `run` would refuse. Runs no secret's command."""
    used = {name for step in pipeline.all_steps() if isinstance(step.body, Run) for name in step.body.all_secrets}
    values: list[str] = []
    unset: list[str] = []
    for name in sorted(used):
        if pipeline.secrets[name].source not in (SecretSource.COMMAND, SecretSource.CALLER):
            try:
                values += read_secrets(pipeline.secrets, [name], environ).values()
            except UsageError as error:
                unset.append(error.message)
    return values, unset


def _project_warnings(project: Project, steps: Sequence[PlannedStep]) -> Iterator[str]:
    led_here = [step.path for step in steps if step.ways and step.asked is not step.ways[0].place]
    if led_here and project.local:
        yield f"everything runs on this machine, as --local says, also {', '.join(led_here)}"
    elif led_here and project.path is None:
        yield f"there is no project file, so everything runs on this machine, also {', '.join(led_here)}"
