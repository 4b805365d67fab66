"""Makes the frozen model of checked plain data: fills in defaults and `extends:`, and reads units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from pccpipe.model_api import ModelApi
from pccpipe.outcome import Outcome
from pccpipe.spec import units
from pccpipe.spec.agent_file import find_agent, read_agent
from pccpipe.spec.agent_task import Agent
from pccpipe.spec.budget import build_budget
from pccpipe.spec.build_container import container_settings
from pccpipe.spec.build_matrix import build_matrix
from pccpipe.spec.build_run import RunBuilder
from pccpipe.spec.build_services import build_services
from pccpipe.spec.build_values import ValueBuilder, string, whole
from pccpipe.spec.containers import extended, settings
from pccpipe.spec.data import items, listed, mapping
from pccpipe.spec.defaults import nested
from pccpipe.spec.downloads import build_download
from pccpipe.spec.env import layered
from pccpipe.spec.expression import Template
from pccpipe.spec.matrix import Scalar
from pccpipe.spec.model import (
    Body,
    Build,
    Container,
    Diff,
    Group,
    Input,
    InputType,
    Parallel,
    Pipeline,
    Remove,
    Repeat,
    Retry,
    Step,
    Upload,
)
from pccpipe.spec.paths import beside
from pccpipe.spec.position import KeyPath
from pccpipe.spec.secret import Secret, SecretSource, Via
from pccpipe.spec.snapshot import files_to_copy, on_its_own
from pccpipe.spec.source import Source
from pccpipe.values import Json

Map = Mapping[str, Json]
MOST_AT_ONCE = 8
"""Default of `max_parallel:`: the steps of a `parallel:` group that run at once."""


def build_pipeline(source: Source, path: Path, *, stops_at_failure: bool = True) -> Pipeline:
    """Make the pipeline of a source without problems.

    Args:
        stops_at_failure: whether scripts without `shell_options:` stop at the first failing command. In the earlier
            version in which they did not, no path of a `download:` was a pattern.
    """
    return _PipelineBuilder(source, path, stops_at_failure=stops_at_failure).pipeline()


class _PipelineBuilder:
    def __init__(self, source: Source, path: Path, *, stops_at_failure: bool) -> None:
        self._source = source
        self._is_older = not stops_at_failure
        self._make = ValueBuilder(source)
        self._path = path
        self._data = mapping(source.data)
        self._agents = {
            name: self._agent(name, mapping(spec)) for name, spec in mapping(self._data.get("agents")).items()
        }
        self._containers = {name: self._container(name) for name in mapping(self._data.get("containers"))}
        self._runs = RunBuilder(
            source,
            path.parent,
            mapping(self._data.get("defaults")),
            self._containers,
            self._agents,
            stops_at_failure=stops_at_failure,
        )

    def pipeline(self) -> Pipeline:
        data = self._data
        text: str = self._source.text
        files = files_to_copy(self._source.data, self._path.parent)
        if self._source.included:
            text, files = on_its_own(self._source)
        return Pipeline(
            path=self._path,
            text=text,
            files=files,
            included=tuple(self._source.included),
            removed=self._source.removed,
            name=string(data["name"]),
            description=string(data.get("description", "")),
            inputs={name: self._input(name, mapping(spec)) for name, spec in mapping(data.get("inputs")).items()},
            secrets={name: self._secret(name, mapping(spec)) for name, spec in mapping(data.get("secrets")).items()},
            env=self._make.templates(("env",), data.get("env")),
            timeout=self._make.duration(("timeout",), data.get("timeout")),
            budget=build_budget(self._source, ("budget",), mapping(data["budget"])) if "budget" in data else None,
            steps=self._steps(("steps",), data["steps"]),
            always=self._steps(("always",), data.get("always")),
            agents=self._agents,
        )

    def _input(self, name: str, spec: Map) -> Input:
        default = spec.get("default")
        return Input(
            name=name,
            type=InputType(string(spec["type"])),
            position=self._source.of_key(("inputs", name)),
            description=string(spec.get("description", "")),
            default=tuple(cast("list[Scalar]", default))
            if isinstance(default, list)
            else cast("Scalar | None", default),
            minimum=cast("float | None", spec.get("minimum")),
            maximum=cast("float | None", spec.get("maximum")),
            choices=tuple(cast("list[Scalar]", spec.get("enum") or [])),
        )

    def _secret(self, name: str, spec: Map) -> Secret:
        source = SecretSource(string(spec["from"]))
        match source:
            case SecretSource.ENV:
                where = string(spec.get("name", name))
            case SecretSource.FILE:
                where = str(self._path.parent / Path(string(spec["path"])).expanduser())
            case SecretSource.COMMAND:
                where = string(spec["command"])
            case SecretSource.CALLER:
                raise AssertionError("no schema has this source")
        at = self._source.of_key(("secrets", name))
        if Via(string(spec.get("via", "direct"))) is Via.DIRECT:
            return Secret(name, source, where, at)
        api = ModelApi(string(spec["api"])) if "api" in spec else self._api_of_agents(name)
        upstream = Template(api.base, at)
        if "upstream" in spec:
            upstream = self._make.template(("secrets", name, "upstream"), spec["upstream"])
        allow = tuple(string(call) for call in listed(spec.get("allow"))) or api.calls
        models = tuple(
            self._make.template(("secrets", name, "models", index), model)
            for index, model in enumerate(listed(spec.get("models")))
        )
        tiers, hosted = (
            tuple(string(word) for word in listed(spec.get(key))) for key in ("service_tiers", "hosted_tools")
        )
        return Secret(name, source, where, at, Via.PROXY, api, upstream, allow, models, tiers, hosted)

    def _api_of_agents(self, secret: str) -> ModelApi:
        """Return the API of the agents that use a secret; the check has found those of different APIs."""
        apis = (agent.description.api for agent in self._agents.values() if agent.secret == secret)
        return next(apis, ModelApi.OPENAI)

    def _container(self, name: str) -> Container:
        containers = mapping(self._data["containers"])
        chain = extended(containers, name)
        spec = settings(containers, chain)
        image_of = next(each for each in chain if "image" in mapping(containers[each]))
        env: dict[str, Template] = {}
        for each in reversed(chain):
            env = layered(env, self._make.templates(("containers", name, "env"), mapping(containers[each]).get("env")))
        return Container(
            name=name,
            image=self._make.template(("containers", image_of, "image"), spec["image"]),
            position=self._source.of_key(("containers", name)),
            settings=container_settings(spec),
            env=env,
            egress=tuple(string(domain) for domain in listed(spec.get("egress"))),
        )

    def _steps(self, path: KeyPath, steps: Json) -> tuple[Step, ...]:
        return tuple(self._step((*path, index), mapping(step)) for index, step in enumerate(listed(steps)))

    def _step(self, path: KeyPath, data: Map) -> Step:
        if "defaults" not in data:
            return self._made(path, data)
        around, self._runs.defaults = self._runs.defaults, nested(self._runs.defaults, mapping(data["defaults"]))
        try:
            return self._made(path, data)
        finally:
            self._runs.defaults = around

    def _made(self, path: KeyPath, data: Map) -> Step:
        # The timeout of `defaults:` is for commands; on a group it would end the steps inside.
        # A background command ends with its group, and a group is what is retried.
        runs = ("run" in data or "agent" in data) and data.get("background") is not True
        defaults: Map = self._runs.defaults if runs else {}
        timeout = data.get("timeout", defaults.get("timeout"))
        retry = data.get("retry", defaults.get("retry"))
        condition = data.get("if")
        return Step(
            id=string(data["id"]),
            body=self._body(path, data),
            position=self._source.of_value(path),
            changes=self._source.changes.get(string(data["id"]), ()),
            name=string(data.get("name", "")),
            description=string(data.get("description", "")),
            condition=None if condition is None else self._make.expression((*path, "if"), condition),
            timeout=self._make.duration((*path, "timeout"), timeout),
            retry=_retry(mapping(retry)),
            continue_on_error=data.get("continue_on_error", False) is not False,
            continue_exit_codes=_exit_codes(mapping(data.get("continue_on_error"))),
            fails_as=cast("str | None", data.get("fails_as")),
            matrix=build_matrix(self._source, (*path, "matrix"), data["matrix"]) if "matrix" in data else None,
            matrix_parallel=whole(data.get("max_parallel", 1)) if "matrix" in data else 1,
            fail_fast=data.get("fail_fast") is True and "matrix" in data,
            services=build_services(self._source, (*path, "services"), data.get("services")),
            own_workspace=data.get("workspace") == "own",
            always=self._steps((*path, "always"), data.get("always")),
            needs=tuple(string(name) for name in listed(data.get("needs"))),
        )

    def _body(self, path: KeyPath, data: Map) -> Body:
        match data:
            case {"run": _}:
                return self._runs.run(path, data)
            case {"agent": names}:
                return self._runs.agent(path, data, [string(name) for name in listed(names) or [names]])
            case {"upload": upload}:
                fallback = "fallback" in data
                exclude = tuple(string(pattern) for pattern in listed(data.get("exclude")))
                with_git = isinstance(upload, dict) and "git" in upload
                return Upload(exclude, fallback, data.get("isolation") == "required", with_git)
            case {"download": download}:
                return build_download(self._make, (*path, "download"), download, by_name=self._is_older)
            case {"diff": name}:
                return Diff(self._make.template((*path, "diff"), name))
            case {"remove": _}:
                return Remove()
            case {"build": build}:
                return self._build((*path, "build"), mapping(build))
            case {"repeat": repeat}:
                until = mapping(repeat).get("until")
                return Repeat(
                    max=self._make.integer((*path, "repeat", "max"), mapping(repeat)["max"]),
                    until=None if until is None else self._make.expression((*path, "repeat", "until"), until),
                    steps=self._steps((*path, "steps"), data["steps"]),
                )
            case {"steps": steps}:
                return Group(self._steps((*path, "steps"), steps))
            case _:
                at_once = whole(data.get("max_parallel", MOST_AT_ONCE)) if "matrix" not in data else MOST_AT_ONCE
                fail_fast = data.get("fail_fast") is True and "matrix" not in data
                return Parallel(self._steps((*path, "parallel"), data["parallel"]), at_once, fail_fast)

    def _agent(self, name: str, spec: Map) -> Agent:
        return Agent(
            name,
            read_agent(find_agent(string(spec["use"]), self._path.parent)),
            self._make.template(("agents", name, "model"), spec["model"]),
            self._source.of_key(("agents", name)),
            cast("str | None", spec.get("secret")),
        )

    def _build(self, path: KeyPath, spec: Map) -> Build:
        folder = self._path.parent
        context = beside(folder, string(spec["context"]))
        dockerfile = beside(folder, string(spec["dockerfile"])) if "dockerfile" in spec else context / "Dockerfile"
        return Build(
            image=self._make.template((*path, "image"), spec["image"]),
            context=context,
            dockerfile=dockerfile,
            args=self._make.templates((*path, "args"), spec.get("args")),
            only_if_missing=spec.get("when") == "missing",
        )


def _retry(spec: Map) -> Retry:
    base = Retry()
    outcomes = frozenset(Outcome(string(word)) for word in listed(spec.get("on")))
    return Retry(
        attempts=whole(spec.get("attempts", base.attempts)),
        backoff=units.seconds(cast("str | float", spec.get("backoff", base.backoff))),
        outcomes=outcomes or base.outcomes,
        exit_codes=_exit_codes(spec),
        max_backoff=units.seconds(cast("str | float", spec["max_backoff"])) if "max_backoff" in spec else None,
    )


def _exit_codes(spec: Map) -> frozenset[int]:
    return frozenset(whole(code) for code in items(spec.get("exit_codes")))
