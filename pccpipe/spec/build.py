"""Makes the frozen model of checked plain data: fills in defaults and `extends:`, and reads units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from msgspec.structs import replace

from pccpipe.limits import LOG, TEMPLATE
from pccpipe.model_api import ModelApi
from pccpipe.outcome import Outcome, Place
from pccpipe.spec import units
from pccpipe.spec.agent_file import find_agent, read_agent
from pccpipe.spec.agent_task import PROMPT, Agent, AgentTask, FileInput, FileInputKind
from pccpipe.spec.budget import build_budget
from pccpipe.spec.build_container import container_settings
from pccpipe.spec.containers import extended, settings
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.model import (
    DEFAULT_OPTIONS,
    Body,
    Build,
    Container,
    Diff,
    Download,
    Host,
    Input,
    InputType,
    Parallel,
    Pipeline,
    Remove,
    Repeat,
    ResultSpec,
    Retry,
    Run,
    Scalar,
    Step,
    Upload,
    Value,
)
from pccpipe.spec.paths import beside, read_text
from pccpipe.spec.position import KeyPath
from pccpipe.spec.schema import find_schema
from pccpipe.spec.secret import Secret, SecretSource, Via
from pccpipe.spec.snapshot import files_to_copy, on_its_own
from pccpipe.spec.source import Source
from pccpipe.values import Json

Map = Mapping[str, Json]
MOST_AT_ONCE = 8
"""Default of `max_parallel:`: the steps of a `parallel:` group that run at once."""


_INHERITED = frozenset({"shell", "shell_options", "cwd", "env", "log_limit"})


def build_pipeline(source: Source, path: Path, *, stops_at_failure: bool = True) -> Pipeline:
    """Make the pipeline of a source without problems.

    Args:
        stops_at_failure: whether scripts without `shell_options:` stop at the first failing command.
    """
    return _PipelineBuilder(source, path, stops_at_failure=stops_at_failure).pipeline()


class _PipelineBuilder:
    def __init__(self, source: Source, path: Path, *, stops_at_failure: bool) -> None:
        self._source = source
        self._stops_at_failure = stops_at_failure
        self._path = path
        self._data = mapping(source.data)
        self._defaults = mapping(self._data.get("defaults"))
        self._agents = {
            name: self._agent(name, mapping(spec)) for name, spec in mapping(self._data.get("agents")).items()
        }
        self._containers = {name: self._container(name) for name in mapping(self._data.get("containers"))}

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
            name=_text(data["name"]),
            description=_text(data.get("description", "")),
            inputs={name: self._input(name, mapping(spec)) for name, spec in mapping(data.get("inputs")).items()},
            secrets={name: self._secret(name, mapping(spec)) for name, spec in mapping(data.get("secrets")).items()},
            env=self._templates(("env",), data.get("env")),
            timeout=self._duration(("timeout",), data.get("timeout")),
            budget=build_budget(self._source, ("budget",), mapping(data["budget"])) if "budget" in data else None,
            steps=self._steps(("steps",), data["steps"]),
            always=self._steps(("always",), data.get("always")),
            agents=self._agents,
        )

    def _input(self, name: str, spec: Map) -> Input:
        return Input(
            name=name,
            type=InputType(_text(spec["type"])),
            position=self._source.of_key(("inputs", name)),
            description=_text(spec.get("description", "")),
            default=cast("Scalar | None", spec.get("default")),
            minimum=cast("float | None", spec.get("minimum")),
            maximum=cast("float | None", spec.get("maximum")),
            choices=tuple(cast("list[Scalar]", spec.get("enum") or [])),
        )

    def _secret(self, name: str, spec: Map) -> Secret:
        source = SecretSource(_text(spec["from"]))
        match source:
            case SecretSource.ENV:
                where = _text(spec.get("name", name))
            case SecretSource.FILE:
                where = str(self._path.parent / Path(_text(spec["path"])).expanduser())
            case SecretSource.COMMAND:
                where = _text(spec["command"])
            case SecretSource.CALLER:
                raise AssertionError("no schema has this source")
        at = self._source.of_key(("secrets", name))
        if Via(_text(spec.get("via", "direct"))) is Via.DIRECT:
            return Secret(name, source, where, at)
        api = ModelApi(_text(spec["api"])) if "api" in spec else self._api_of_agents(name)
        upstream = Template(api.base, at)
        if "upstream" in spec:
            upstream = self._template(("secrets", name, "upstream"), spec["upstream"])
        allow = tuple(_text(call) for call in listed(spec.get("allow"))) or api.calls
        models = tuple(
            self._template(("secrets", name, "models", index), model)
            for index, model in enumerate(listed(spec.get("models")))
        )
        tiers, hosted = (
            tuple(_text(word) for word in listed(spec.get(key))) for key in ("service_tiers", "hosted_tools")
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
            env.update(self._templates(("containers", name, "env"), mapping(containers[each]).get("env")))
        return Container(
            name=name,
            image=self._template(("containers", image_of, "image"), spec["image"]),
            position=self._source.of_key(("containers", name)),
            settings=container_settings(spec),
            env=env,
            egress=tuple(_text(domain) for domain in listed(spec.get("egress"))),
        )

    def _steps(self, path: KeyPath, steps: Json) -> tuple[Step, ...]:
        return tuple(self._step((*path, index), mapping(step)) for index, step in enumerate(listed(steps)))

    def _step(self, path: KeyPath, data: Map) -> Step:
        # The timeout of `defaults:` is for commands; on a group it would end the steps inside.
        runs = "run" in data or "agent" in data
        timeout = data.get("timeout", self._defaults.get("timeout") if runs else None)
        retry = data.get("retry", self._defaults.get("retry") if runs else None)
        condition = data.get("if")
        return Step(
            id=_text(data["id"]),
            body=self._body(path, data),
            position=self._source.of_value(path),
            changes=self._source.changes.get(_text(data["id"]), ()),
            name=_text(data.get("name", "")),
            description=_text(data.get("description", "")),
            condition=None if condition is None else self._expression((*path, "if"), condition),
            timeout=self._duration((*path, "timeout"), timeout),
            retry=_retry(mapping(retry)),
            continue_on_error=data.get("continue_on_error") is True,
            fails_as=cast("str | None", data.get("fails_as")),
            matrix={name: tuple(cast("list[Scalar]", values)) for name, values in mapping(data.get("matrix")).items()},
            matrix_parallel=_whole(data.get("max_parallel", 1)) if "matrix" in data else 1,
        )

    def _body(self, path: KeyPath, data: Map) -> Body:
        match data:
            case {"run": _}:
                return self._run(path, data)
            case {"agent": names}:
                return self._agent_step(path, data, [_text(name) for name in listed(names) or [names]])
            case {"upload": upload}:
                fallback = "fallback" in data
                exclude = tuple(_text(pattern) for pattern in listed(data.get("exclude")))
                with_git = isinstance(upload, dict) and "git" in upload
                return Upload(exclude, fallback, data.get("isolation") == "required", with_git)
            case {"download": str() as one}:
                return Download((self._template((*path, "download"), one),))
            case {"download": list() as several}:
                paths = enumerate(several)
                return Download(tuple(self._template((*path, "download", index), each) for index, each in paths))
            case {"diff": name}:
                return Diff(self._template((*path, "diff"), name))
            case {"remove": _}:
                return Remove()
            case {"build": build}:
                return self._build((*path, "build"), mapping(build))
            case {"repeat": repeat}:
                until = mapping(repeat).get("until")
                return Repeat(
                    max=self._integer((*path, "repeat", "max"), mapping(repeat)["max"]),
                    until=None if until is None else self._expression((*path, "repeat", "until"), until),
                    steps=self._steps((*path, "steps"), data["steps"]),
                )
            case _:
                at_once = _whole(data.get("max_parallel", MOST_AT_ONCE)) if "matrix" not in data else MOST_AT_ONCE
                return Parallel(self._steps((*path, "parallel"), data["parallel"]), at_once)

    def _run(self, path: KeyPath, data: Map) -> Run:
        own = {
            **{key: value for key, value in self._defaults.items() if key in _INHERITED},
            **data,
        }
        own["env"] = {**mapping(self._defaults.get("env")), **mapping(data.get("env"))}
        if "container" not in data and "on" not in data:
            own |= {key: self._defaults[key] for key in ("on", "container") if key in self._defaults}
        if "on" not in own:
            own["on"] = "container" if "container" in own else "local"
        if own["on"] == "container" and "container" not in own:
            own["container"] = self._defaults["container"]
        where = self._host(path, own)
        fallback = None
        if "fallback" in data:
            given = mapping(data["fallback"])
            merged = {**own, **given, "env": {**mapping(own.get("env")), **mapping(given.get("env"))}}
            at = (*path, "fallback") if "run" in given else path
            fallback = self._host(at, merged)
        return Run(
            where=where,
            fallback=fallback,
            secrets=tuple(_text(name) for name in listed(data.get("secrets"))),
            files=tuple(
                self._file((*path, "files", name), name, mapping(spec))
                for name, spec in mapping(data.get("files")).items()
            ),
            result=self._result((*path, "result"), mapping(data["result"])) if "result" in data else None,
            isolation_required=data.get("isolation", self._defaults.get("isolation")) == "required",
            as_login=data.get("account") == "login",
            log_limit=units.size(cast("str | int", own.get("log_limit", LOG.most))),
            max_tokens=self._integer((*path, "max_tokens"), data["max_tokens"]) if "max_tokens" in data else None,
            budget=build_budget(self._source, (*path, "budget"), mapping(data["budget"])) if "budget" in data else None,
        )

    def _agent(self, name: str, spec: Map) -> Agent:
        return Agent(
            name,
            read_agent(find_agent(_text(spec["use"]), self._path.parent)),
            self._template(("agents", name, "model"), spec["model"]),
            self._source.of_key(("agents", name)),
            cast("str | None", spec.get("secret")),
        )

    def _agent_step(self, path: KeyPath, data: Map, names: Sequence[str]) -> Run:
        run = self._run(path, {**data, "run": "", "shell": "sh", "shell_options": ["errexit"]})
        agents = tuple(self._agents[name] for name in names)
        prompt = data["prompt"]
        kind = {"template": prompt} if isinstance(prompt, str) else mapping(prompt)
        task = AgentTask(
            agents,
            agents[0],
            self._file((*path, "prompt"), PROMPT, kind),
            run.secrets,
            session=cast("str | None", data.get("session")),
            repair=_whole(data.get("repair", 1)),
            trusts_workspace=data.get("workspace_config") == "trusted",
            stalled_after=units.seconds(cast("str | float", data.get("stalled_after", "10m"))),
            ends_stalled=data.get("on_stall") == "end",
        )
        return replace(run, agent=task).by(agents[0])

    def _host(self, path: KeyPath, data: Map) -> Host:
        on = Place(_text(data["on"]))
        container = data.get("container") if on is Place.CONTAINER else None
        cwd = data.get("cwd")
        shell = _text(data.get("shell", "sh"))
        options = DEFAULT_OPTIONS[shell] if self._stops_at_failure else ()
        if "shell_options" in data:
            options = tuple(_text(option) for option in listed(data["shell_options"]))
        return Host(
            on=on,
            run=self._template((*path, "run"), data["run"]),
            shell=shell,
            shell_options=options,
            cwd=None if cwd is None else self._template((*path, "cwd"), cwd),
            env=self._templates((*path, "env"), data.get("env")),
            container=None if container is None else self._containers[_text(container)],
        )

    def _file(self, path: KeyPath, name: str, spec: Map) -> FileInput:
        (kind, content), *_ = spec.items()
        if kind == "template":
            file = beside(self._path.parent, _text(content))
            text = Template(read_text(file, TEMPLATE), self._source.of_value((*path, kind)), blocks=True)
            return FileInput(name, FileInputKind.TEMPLATE, text)
        return FileInput(name, FileInputKind(kind), self._template((*path, kind), content))

    def _result(self, path: KeyPath, spec: Map) -> ResultSpec:
        schema = cast("str | None", spec.get("schema"))
        found = None if schema is None else find_schema(schema, self._path.parent)
        return ResultSpec(self._template((*path, "path"), spec["path"]), schema, found, self._source.of_key(path))

    def _build(self, path: KeyPath, spec: Map) -> Build:
        folder = self._path.parent
        context = beside(folder, _text(spec["context"]))
        dockerfile = beside(folder, _text(spec["dockerfile"])) if "dockerfile" in spec else context / "Dockerfile"
        return Build(
            image=self._template((*path, "image"), spec["image"]),
            context=context,
            dockerfile=dockerfile,
            args=self._templates((*path, "args"), spec.get("args")),
            only_if_missing=spec.get("when") == "missing",
        )

    def _template(self, path: KeyPath, value: Json) -> Template:
        return Template(_scalar_text(value), self._source.of_value(path))

    def _templates(self, path: KeyPath, values: Json) -> dict[str, Template]:
        return {name: self._template((*path, name), value) for name, value in mapping(values).items()}

    def _expression(self, path: KeyPath, value: Json) -> Expression:
        return Expression(_scalar_text(value), self._source.of_value(path))

    def _duration(self, path: KeyPath, value: Json) -> Value[float] | None:
        if value is None:
            return None
        if isinstance(value, str) and "${{" in value:
            return Value(expression=self._expression(path, value))
        return Value(known=units.seconds(cast("str | float", value)))

    def _integer(self, path: KeyPath, value: Json) -> Value[int]:
        return Value(expression=self._expression(path, value)) if isinstance(value, str) else Value(_whole(value))


def _retry(spec: Map) -> Retry:
    base = Retry()
    outcomes = frozenset(Outcome(_text(word)) for word in listed(spec.get("on")))
    return Retry(
        attempts=_whole(spec.get("attempts", base.attempts)),
        backoff=units.seconds(cast("str | float", spec.get("backoff", base.backoff))),
        outcomes=outcomes or base.outcomes,
    )


def _whole(value: Json) -> int:
    """Return a whole number; the schema accepts 3.0 as one."""
    return int(cast("float", value))


def _text(value: Json) -> str:
    assert isinstance(value, str)
    return value


def _scalar_text(value: Json) -> str:
    """Return a scalar as text: `true` for true, `5` for 5."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
