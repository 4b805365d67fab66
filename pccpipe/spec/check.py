"""Finds problems that no schema can express, in the plain data of a pipeline; other parts of it may be wrong."""

from __future__ import annotations

import contextlib
import math
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.spec import habits
from pccpipe.spec.bounds import bounded_work
from pccpipe.spec.budget import check_budget, check_counted
from pccpipe.spec.check_agent import AgentChecker
from pccpipe.spec.containers import extended, settings
from pccpipe.spec.data import mapping, walk
from pccpipe.spec.inputs import input_problem
from pccpipe.spec.names import ANY_NAME, Declared, Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.problem import Problem, did_you_mean, nearest
from pccpipe.spec.schema import result_keys
from pccpipe.spec.source import Source
from pccpipe.spec.texts import TooManyProblems, ValueChecker
from pccpipe.values import Json

_SECTIONS: Mapping[str, type] = {"inputs": dict, "secrets": dict, "containers": dict, "steps": list}
_PLACES = ("local", "vm", "container")


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
        self.defaults = mapping(self.data.get("defaults"))
        self.step_ids: dict[str, KeyPath] = {}
        self.source = source
        self._ill = {key for key in _SECTIONS if self._is_ill(key)}
        inputs = ANY_NAME if "inputs" in self._ill else self.inputs
        steps = ANY_NAME if "steps" in self._ill else self.step_ids
        self._older = older
        self._written: dict[str, str] = {}
        """The id of the step that writes a file of the run's folder, by the file's path."""
        self._all = [step for key in ("steps", "always") for _, step in _steps(self.data, key)]
        declared = Declared(
            inputs,
            steps,
            source.removed,
            frozenset(str(step["fails_as"]) for step in self._all if "fails_as" in step),
            [str(step.get("id")) for step in self._all if "matrix" in step],
            result_keys(self._all, folder),
        )
        self.values = ValueChecker(source, folder, declared, older)
        self.agents = AgentChecker(
            self.values, folder, mapping(self.data.get("agents")), None if "secrets" in self._ill else self.secrets
        )
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
            for index, model in enumerate(_listed(mapping(self.secrets[name]).get("models"))):
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
        self._host(("defaults",), self.defaults, Visible(target=True))
        self.values.expression_or_plain(("defaults", "timeout"), self.defaults.get("timeout"), Visible())
        done: set[str] = set()
        self._sequence(("steps",), self.data.get("steps"), Visible(done))
        self._sequence(("always",), self.data.get("always"), Visible(done))

    def _written_out(self) -> None:
        """Count the steps with each matrix expanded, and report the first matrix that makes too many."""
        total = 0
        for key in ("steps", "always"):
            for index, step in enumerate(_listed(self.data.get(key))):
                total += _legs(mapping(step))
                if total > limits.STEPS.most:
                    self.values.say((key, index, "matrix"), limits.STEPS.exceeded(), at_key=True)
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
            if wrong:
                self.values.say((*path, "default"), f"the default of the input `{name}` {wrong}")
        for word in ("minimum", "maximum"):
            if word in spec and kind in ("string", "boolean", "path"):
                message = f"`{word}` is for numbers, and `{name}` is a {kind}"
                self.values.say((*path, word), message, at_key=True)

    def _container(self, name: str) -> None:
        spec = mapping(self.containers[name])
        path = ("containers", name)
        parent = spec.get("extends")
        chain = extended(self.containers, name)
        if isinstance(parent, str) and parent not in self.containers:
            self._unknown((*path, "extends"), "container", parent, self.containers)
        elif name not in self._in_cycles and mapping(self.containers[chain[-1]]).get("extends") == name:
            self._in_cycles.update(chain)
            self.values.say((*path, "extends"), f"`{name}` extends itself: {' -> '.join([*chain, name])}")
        elif "capabilities" in spec or "user" in spec or "new_privileges" in spec:
            self._capabilities(name, [each for each in chain if each not in self._in_cycles])
        self.values.texts((*path, "env"), spec.get("env"), Visible(target=True))
        self.values.text((*path, "image"), spec.get("image"), Visible())
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
        for index, step in enumerate(_listed(steps)):
            if isinstance(step, dict):
                self._step((*path, index), step, visible)

    def _step(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        own = step.get("id")
        visible = replace(visible, own=own if isinstance(own, str) else None)
        self.values.expression((*path, "if"), step.get("if"), visible)
        self.values.expression_or_plain((*path, "timeout"), step.get("timeout"), visible)
        matrix = mapping(step.get("matrix"))
        texts = {name for name, values in matrix.items() if all(isinstance(value, str) for value in _listed(values))}
        legs = {name for name, values in matrix.items() if len(_listed(values)) > 1}
        inside = replace(
            visible,
            matrix=(*visible.matrix, *matrix),
            legs=(visible.legs - matrix.keys()) | legs,
            texts=visible.texts | texts,
        )
        if "run" in step or "agent" in step:
            self._run(path, step, replace(inside, target=True))
        self._action(path, step, inside)
        if "repeat" in step:
            self._repeat(path, step, inside)
        if "parallel" in step:
            self._parallel(path, step, inside)
        if isinstance(visible.steps, set):
            visible.steps.update(_ids([step]))

    def _repeat(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        spec = mapping(step["repeat"])
        self.values.expression_or_plain((*path, "repeat", "max"), spec.get("max"), visible)
        # In a round, a step may name a later one of the same loop: that means the previous round.
        round_ = replace(visible, steps=visible.steps | set(_ids(step.get("steps"))), iteration=True)
        self._sequence((*path, "steps"), step.get("steps"), round_)
        self.values.expression((*path, "repeat", "until"), spec.get("until"), round_)

    def _parallel(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        for index, inner in enumerate(_listed(step["parallel"])):
            if isinstance(inner, dict):
                # No step has ended when another one starts.
                self._step((*path, "parallel", index), inner, replace(visible, steps=set(visible.steps)))

    def _action(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        for index, each in enumerate(_listed(step.get("download"))):
            place = (*path, "download", index) if isinstance(step["download"], list) else (*path, "download")
            self.values.text(place, each, visible)
            if not self._older and (words := habits.of_download(each)):
                self.values.say(place, *words)
        self.values.text((*path, "diff"), step.get("diff"), visible)
        self._writes((*path, "diff"), step, step.get("diff"), visible)
        build = mapping(step.get("build"))
        self.values.text((*path, "build", "image"), build.get("image"), visible)
        self.values.texts((*path, "build", "args"), build.get("args"), visible)
        self.values.build_context((*path, "build", "context"), build.get("context"))
        self.values.file((*path, "build", "dockerfile"), build.get("dockerfile"), visible)

    def _run(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        on, shell = self._place(step), str(step.get("shell", self.defaults.get("shell", "sh")))
        self._host(path, step, visible, on=on)
        self.values.script((*path, "run"), step.get("run"), shell, visible)
        if "pipefail" in _listed(step.get("shell_options", self.defaults.get("shell_options"))) and shell == "sh":
            at = path if "shell_options" in step else ("defaults",)
            self.values.say(
                (*at, "shell_options"), "`pipefail` is an option of bash, and the shell is sh", "set `shell: bash`"
            )
        for index, name in enumerate(_listed(step.get("secrets"))):
            if isinstance(name, str) and name not in self.secrets:
                where = "declare it under `secrets:` at the top"
                self._unknown((*path, "secrets", index), "secret", name, self.secrets, where)
        self.values.expression_or_plain((*path, "max_tokens"), step.get("max_tokens"), visible)
        names = [*map(str, _listed(step.get("secrets"))), *self.agents.secrets_of(step)]
        named = [mapping(self.secrets.get(name)) for name in names]
        check_budget(self.values, (*path, "budget"), step.get("budget"), visible)
        if not any(secret.get("via") == "proxy" for secret in named):
            for key in ("max_tokens", "budget"):
                if key in step:
                    check_counted(self.values, path, key, "this step")
        for name, spec in mapping(step.get("files")).items():
            self._file((*path, "files", name), mapping(spec), visible)
        result = mapping(step.get("result"))
        self.values.text((*path, "result", "path"), result.get("path"), visible)
        self._writes((*path, "result", "path"), step, result.get("path"), visible)
        self.values.schema((*path, "result", "schema"), result.get("schema"))
        if "account" in step and on != "vm":
            message = f"`account` is for steps with `on: vm`, and this one has `on: {on}`"
            self.values.say((*path, "account"), message, "leave out `account:`, or set `on: vm`", at_key=True)
        if fallback := mapping(step.get("fallback")):
            self._fallback((*path, "fallback"), fallback, on, visible)
            script = (*path, "fallback", "run") if "run" in fallback else (*path, "run")
            fallback_shell = str(fallback.get("shell", shell))
            self.values.script(script, fallback.get("run", step.get("run")), fallback_shell, visible)
        if "agent" in step:
            other = mapping(step.get("fallback")).get("on")
            self.agents.step(path, step, [on, *([other] if isinstance(other, str) else [])], visible)

    def _writes(self, path: KeyPath, step: Mapping[str, Json], name: Json, visible: Visible) -> None:
        """Find a file of the run's folder that two steps, or all legs of a matrix, would write."""
        if self._older or not isinstance(name, str):
            return
        for key in sorted(visible.legs):
            if not re.search(rf"\bmatrix\b(?:\.{re.escape(key)}\b|\[|\s*\|)", name):
                message = f"all legs of the matrix would write this file: its name lacks `{key}`"
                self.values.say(path, message, f"add ${{{{ matrix.{key} }}}} to the name")
                return
        own, place = str(step.get("id")), posixpath.normpath(name)
        if "${{" not in name and self._written.setdefault(place, own) != own:
            message = f"the step `{self._written[place]}` writes the same file"
            self.values.say(path, message, "rename one of them: the last one would overwrite the other")

    def _file(self, path: KeyPath, spec: Mapping[str, Json], visible: Visible) -> None:
        self.values.text((*path, "text"), spec.get("text"), visible)
        self.values.file((*path, "file"), spec.get("file"), visible)
        self.values.schema((*path, "schema"), spec.get("schema"))
        self.values.text((*path, "patch"), spec.get("patch"), visible)
        self.values.template_file((*path, "template"), spec.get("template"), visible)

    def _place(self, step: Mapping[str, Json]) -> str:
        """Return where a step runs, by its own keys or by `defaults:`."""
        if "on" in step:
            return str(step["on"])
        if "container" in step:
            return "container"
        return str(self.defaults.get("on", "container" if "container" in self.defaults else "local"))

    def _host(self, path: KeyPath, host: Mapping[str, Json], visible: Visible, on: str | None = None) -> None:
        """Check the keys that a step, its fallback and `defaults:` have in common."""
        container = host.get("container")
        if isinstance(container, str) and container not in self.containers:
            otherwise = "declare it under `containers:`"
            self._unknown((*path, "container"), "container", container, self.containers, otherwise)
        if (
            on == "container"
            and container is None
            and "container" not in self.defaults
            and path[-1] != "fallback"
            and "image" not in host
        ):
            at = (*path, "on") if "on" in host else path
            known = next(iter(self.containers), "")
            hint = f"such as `container: {known}`" if known else "declare one under `containers:`, and name it here"
            self.values.say(at, "`on: container` needs a `container:`", hint)
        if isinstance(container, str) and on in {"local", "vm"}:
            message = f"a step with `on: {on}` does not run in a container"
            hint = "leave out `container:`, or set `on: container`"
            self.values.say((*path, "container"), message, hint, at_key=True)
        self.values.text((*path, "cwd"), host.get("cwd"), visible)
        self.values.texts((*path, "env"), host.get("env"), visible)

    def _fallback(self, path: KeyPath, fallback: Mapping[str, Json], on: str, visible: Visible) -> None:
        to = fallback.get("on")
        self._host(path, fallback, visible, on=to if isinstance(to, str) else None)
        if to not in _PLACES:
            return
        if on == "local":
            message = "a step with `on: local` cannot fall back: it already runs on this machine"
            self.values.say(path, message, "leave out `fallback:`", at_key=True)
        elif to == on:
            message = f"the step already runs on `{on}`: a fallback needs another place"
            self.values.say((*path, "on"), message)
        elif on == "vm" and to == "container":
            message = "without the VM, its containers are unavailable too"
            self.values.say((*path, "on"), message, "fall back to `local`")

    def _unknown(self, path: KeyPath, what: str, name: str, known: Mapping[str, Json], otherwise: str = "") -> None:
        if f"{what}s" not in self._ill:
            self.values.say(path, f"there is no {what} `{name}`", did_you_mean(name, known) or otherwise)


def _listed(data: Json) -> list[Json]:
    return data if isinstance(data, list) else [data] if data is not None else []


def _steps(data: Mapping[str, Json], key: str, path: KeyPath = ()) -> Iterator[tuple[KeyPath, dict[str, Json]]]:
    for index, step in enumerate(_listed(data.get(key))):
        if isinstance(step, dict):
            at = (*path, key, index)
            yield at, step
            for inner in ("steps", "parallel"):
                if isinstance(step.get(inner), list):
                    yield from _steps(step, inner, at)


def _ids(steps: Json) -> Iterator[str]:
    for _, step in _steps({"steps": steps}, "steps"):
        if isinstance(step.get("id"), str):
            yield str(step["id"])


def _legs(step: Mapping[str, Json]) -> int:
    """Count a step and its inner steps, with each matrix expanded."""
    legs = math.prod(len(_listed(values)) for values in mapping(step.get("matrix")).values())
    inner = (*_listed(step.get("steps")), *_listed(step.get("parallel")))
    return legs * (1 + sum(_legs(mapping(each)) for each in inner))
