"""Finds problems that no schema can express, in the plain data of a pipeline; other parts of it may be wrong."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.spec.bounds import bounded_work
from pccpipe.spec.budget import check_budget, check_counted
from pccpipe.spec.check_agent import AgentChecker
from pccpipe.spec.check_matrix import MatrixChecker, count, is_too_much
from pccpipe.spec.check_needs import needed
from pccpipe.spec.check_retry import check_retry
from pccpipe.spec.check_run import RunChecker
from pccpipe.spec.check_services import ServiceChecker
from pccpipe.spec.check_workspace import WorkspaceChecker
from pccpipe.spec.containers import extended, settings
from pccpipe.spec.data import items, mapping, walk
from pccpipe.spec.downloads import check_download
from pccpipe.spec.inputs import input_problem
from pccpipe.spec.names import ANY_NAME, Declared, Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.problem import Problem, nearest
from pccpipe.spec.schema import result_keys
from pccpipe.spec.source import Source
from pccpipe.spec.texts import TooManyProblems, ValueChecker
from pccpipe.values import Json

_SECTIONS: Mapping[str, type] = {"inputs": dict, "secrets": dict, "containers": dict, "steps": list}


def meaning_problems(source: Source, folder: Path, *, older: bool = False) -> list[Problem]:
    """Return the problems with names, references and order, in order of position.

    Args:
        older: accept what earlier versions accepted, although it does not do what it seems to do.
    """
    checker = _Checker(source, folder, older=older)
    with contextlib.suppress(TooManyProblems), bounded_work(limits.PLAN_WORK):
        checker.check()
    return sorted(set(checker.values.problems), key=lambda problem: (problem.position, problem.message))


class _Checker:
    """Walks over the pipeline in the executor's order."""

    def __init__(self, source: Source, folder: Path, *, older: bool) -> None:
        self.data = mapping(source.data)
        self.inputs = mapping(self.data.get("inputs"))
        self.secrets = mapping(self.data.get("secrets"))
        self.containers = mapping(self.data.get("containers"))
        self.step_ids: dict[str, KeyPath] = {}
        self.source = source
        self._ill = {key for key in _SECTIONS if self._is_ill(key)}
        inputs = ANY_NAME if "inputs" in self._ill else self.inputs
        steps = ANY_NAME if "steps" in self._ill else self.step_ids
        self._older = older
        self._all = [step for key in ("steps", "always") for _, step in _steps(self.data, key)]
        declared = Declared(
            inputs,
            steps,
            source.removed,
            frozenset(str(step["fails_as"]) for step in self._all if "fails_as" in step),
            backgrounds=[str(step.get("id")) for step in self._all if step.get("background") is True],
            matrices=[str(step.get("id")) for step in self._all if "matrix" in step],
            without_result=[str(step.get("id")) for step in self._all if not {"result", "agent"} & step.keys()],
            result_keys=result_keys(self._all, folder),
        )
        self.values = ValueChecker(source, folder, declared, older)
        self.agents = AgentChecker(
            self.values, folder, mapping(self.data.get("agents")), None if "secrets" in self._ill else self.secrets
        )
        self.matrices = MatrixChecker(self.values, self.data, older=older)
        self.runs = RunChecker(self.values, self.agents, self.matrices, self.data, self._ill, older=older)
        self.services = ServiceChecker(self.values, self.runs)
        self._in_cycles: set[str] = set()

    def _is_ill(self, key: str) -> bool:
        """Say whether a section is misspelt or of a wrong type: then its names count as declared."""
        if key in self.data:
            return not isinstance(self.data[key], _SECTIONS[key])
        return any(nearest(name, [key]) for name in self.data)

    def check(self) -> None:
        for path, value in walk(self.data):
            if isinstance(value, float) and not math.isfinite(value):
                self.values.say(path, f"`{value}` is not a usable number", "leave it out, or quote it as text")
        for path, step in (*_steps(self.data, "steps"), *_steps(self.data, "always")):
            self._unique(path, step)
        self._written_out()
        for name in self.inputs:
            self._input(name)
        for name in self.secrets:
            self.values.text(("secrets", name, "upstream"), mapping(self.secrets[name]).get("upstream"), Visible())
            for index, model in enumerate(items(mapping(self.secrets[name]).get("models"))):
                self.values.text(("secrets", name, "models", index), model, Visible())
        if len(self.containers) > limits.CONTAINERS.most:
            self.values.say(("containers",), limits.CONTAINERS.exceeded(), at_key=True)
            raise TooManyProblems
        for name in self.containers:
            self._container(name)
        self.agents.declared()
        self.values.texts(("env",), self.data.get("env"), Visible(target=True))
        self.values.expression_or_plain(("timeout",), self.data.get("timeout"), Visible())
        check_budget(self.values, ("budget",), self.data.get("budget"), Visible())
        if "budget" in self.data and not any(mapping(each).get("via") == "proxy" for each in self.secrets.values()):
            check_counted(self.values, (), "budget", "this pipeline")
        self.runs.check_defaults(("defaults",), mapping(self.data.get("defaults")), Visible())
        done: set[str] = set()
        self._sequence(("steps",), self.data.get("steps"), Visible(done))
        self._sequence(("always",), self.data.get("always"), Visible(done))
        WorkspaceChecker(self.values).check(self.data)

    def _written_out(self) -> None:
        """Count the steps with each matrix expanded, and report the first matrix that makes too many, or much work."""
        total = 0
        for key in ("steps", "always"):
            for index, step in enumerate(items(self.data.get(key))):
                total += _legs(mapping(step))
                limit = limits.STEPS if total > limits.STEPS.most else limits.MATRIX_WORK
                if limit is limits.STEPS or any(map(is_too_much, _matrices(mapping(step)))):
                    self.values.say((key, index, "matrix"), limit.exceeded(), at_key=True)
                    raise TooManyProblems

    def _unique(self, path: KeyPath, step: Mapping[str, Json]) -> None:
        step_id = step.get("id")
        if not isinstance(step_id, str):
            return
        if step_id in self.step_ids:
            first = self.source.of_value((*self.step_ids[step_id], "id"))
            is_same_file = first.file == self.source.of_value((*path, "id")).file
            where = f"on line {first.line}" if is_same_file else f"at {first}"
            message = f"duplicate step id `{step_id}`: first used {where}"
            self.values.say((*path, "id"), message, "ids must be unique in the whole pipeline")
        else:
            self.step_ids[step_id] = path

    def _input(self, name: str) -> None:
        spec = mapping(self.inputs[name])
        path = ("inputs", name)
        default, kind = spec.get("default"), spec.get("type")
        if default is not None and isinstance(kind, str):
            wrong = input_problem(default, kind, spec)
            if wrong and not any(isinstance(each, dict | list) for each in items(default)):
                self.values.say((*path, "default"), f"the default of the input `{name}` {wrong}")
        for word in ("minimum", "maximum"):
            if word in spec and kind in ("string", "boolean", "path", "list"):
                message = f"`{word}` is for numbers, and `{name}` is a {kind}"
                self.values.say((*path, word), message, at_key=True)

    def _container(self, name: str) -> None:
        spec = mapping(self.containers[name])
        path = ("containers", name)
        parent = spec.get("extends")
        chain = extended(self.containers, name)
        if isinstance(parent, str) and parent not in self.containers:
            self.runs.unknown((*path, "extends"), "container", parent, self.containers)
        elif name not in self._in_cycles and mapping(self.containers[chain[-1]]).get("extends") == name:
            self._in_cycles.update(chain)
            self.values.say((*path, "extends"), f"`{name}` extends itself: {' -> '.join([*chain, name])}")
        elif "capabilities" in spec or "user" in spec or "new_privileges" in spec:
            self._capabilities(name, [each for each in chain if each not in self._in_cycles])
        self.values.texts((*path, "env"), spec.get("env"), Visible(target=True))
        self.values.text((*path, "image"), spec.get("image"), Visible(matrix=ANY_NAME))
        whole = settings(self.containers, chain)
        network = whole.get("network", "bridge")
        if whole.get("egress") and network != "none" and {"egress", "network"} & spec.keys():
            message = f"`egress:` has no effect: the network of `{name}` is `{network}`"
            self.values.say(
                (*path, "egress"), message, "set `network: none`, so that the proxy is the only way out", at_key=True
            )

    def _capabilities(self, name: str, chain: Sequence[str]) -> None:
        """Find capabilities without effect: the kernel gives none to a user who is not root and can't become root."""
        whole = settings(self.containers, chain)
        reaches = whole.get("user") == "root" or whole.get("new_privileges") is True
        if whole.get("capabilities") and not reaches:
            key = next(
                key for key in ("capabilities", "user", "new_privileges") if key in mapping(self.containers[name])
            )
            message = "`capabilities` have no effect: this container's commands do not run as root"
            hint = "set `user: root` too, or `new_privileges: true` for setuid programs"
            self.values.say(("containers", name, key), message, hint, at_key=True)

    def _sequence(self, path: KeyPath, steps: Json, visible: Visible) -> None:
        """Check steps that run in order; later steps see the earlier ones."""
        for index, step in enumerate(items(steps)):
            if isinstance(step, dict):
                if "needs" in step:
                    message = "`needs` is for the steps of a `parallel:` group: these run in order"
                    self.values.say((*path, index, "needs"), message, "put the steps under `parallel:`", at_key=True)
                self._step((*path, index), step, visible)

    def _step(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        own = step.get("id")
        visible = replace(visible, own=own if isinstance(own, str) else None)
        self.values.expression((*path, "if"), step.get("if"), visible)
        self.values.expression_or_plain((*path, "timeout"), step.get("timeout"), visible)
        check_retry(self.values, (*path, "retry"), step.get("retry"))
        inside = self.matrices.inside(path, step.get("matrix"), visible)
        inside = self.services.check((*path, "services"), step, inside)
        if "run" in step or "agent" in step:
            self.runs.run(path, step, replace(inside, target=True))
        self._action(path, step, inside)
        with self.runs.defaults_of(path, step, inside):
            self._group(path, step, inside)
        if isinstance(visible.steps, set):
            visible.steps.update(_ids([step]))

    def _group(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        if "repeat" in step:
            self._repeat(path, step, visible)
        elif "parallel" in step:
            self._parallel(path, step, visible)
        elif "steps" in step:
            self._sequence((*path, "steps"), step["steps"], visible)
        if "always" in step:
            ended = {*visible.steps, *_ids([{**step, "always": []}])}
            if "matrix" in step:
                ended.discard(str(step.get("id")))  # its legs end one by one
            self._sequence((*path, "always"), step["always"], replace(visible, steps=ended))

    def _repeat(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        spec = mapping(step["repeat"])
        self.values.expression_or_plain((*path, "repeat", "max"), spec.get("max"), visible)
        # In a round, a step may name a later one of the same loop: that means the previous round.
        round_ = replace(visible, steps=visible.steps | set(_ids(step.get("steps"))), iteration=True)
        self._sequence((*path, "steps"), step.get("steps"), round_)
        self.values.expression((*path, "repeat", "until"), spec.get("until"), round_)

    def _parallel(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        steps = items(step["parallel"])
        before = needed(self.values, (*path, "parallel"), steps)
        inner_ids = {str(mapping(inner).get("id")): set(_ids([inner])) for inner in steps}
        for index, inner in enumerate(steps):
            if isinstance(inner, dict):
                # Only the steps that it needs have ended when it starts.
                ended = set(visible.steps).union(*(inner_ids[name] for name in before.get(str(inner.get("id")), ())))
                self._step((*path, "parallel", index), inner, replace(visible, steps=ended))

    def _action(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        check_download(self.values, (*path, "download"), step.get("download"), visible, older=self._older)
        self.values.text((*path, "diff"), step.get("diff"), visible)
        self.runs.writes((*path, "diff"), step, step.get("diff"), visible)
        build = mapping(step.get("build"))
        self.values.text((*path, "build", "image"), build.get("image"), visible)
        self.values.texts((*path, "build", "args"), build.get("args"), visible)
        self.values.build_context((*path, "build", "context"), build.get("context"))
        self.values.file((*path, "build", "dockerfile"), build.get("dockerfile"), visible)


def _steps(data: Mapping[str, Json], key: str, path: KeyPath = ()) -> Iterator[tuple[KeyPath, dict[str, Json]]]:
    for index, step in enumerate(items(data.get(key))):
        if isinstance(step, dict):
            at = (*path, key, index)
            yield at, step
            for inner in ("steps", "parallel", "always"):
                if isinstance(step.get(inner), list):
                    yield from _steps(step, inner, at)


def _ids(steps: Json) -> Iterator[str]:
    for _, step in _steps({"steps": steps}, "steps"):
        if isinstance(step.get("id"), str):
            yield str(step["id"])


def _legs(step: Mapping[str, Json]) -> int:
    """Count a step and its inner steps, with each matrix expanded."""
    return count(step.get("matrix")) * (1 + sum(map(_legs, _inner(step))))


def _matrices(step: Mapping[str, Json]) -> Iterator[Json]:
    """Yield the matrix of a step, and of each step inside of it."""
    yield step.get("matrix")
    for each in _inner(step):
        yield from _matrices(each)


def _inner(step: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    return [mapping(each) for key in ("steps", "parallel", "always") for each in items(step.get(key))]
