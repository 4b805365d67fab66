"""Makes the work of a step with `run:` or `agent:` of checked plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from msgspec.structs import replace

from pccpipe.limits import LOG, TEMPLATE
from pccpipe.outcome import Place
from pccpipe.shells import dialect_of
from pccpipe.spec import units
from pccpipe.spec.agent_task import PROMPT, Agent, AgentTask, FileInput, FileInputKind
from pccpipe.spec.budget import build_budget
from pccpipe.spec.build_values import ValueBuilder, string, whole
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.defaults import default_fallback
from pccpipe.spec.env import merged
from pccpipe.spec.expression import Template
from pccpipe.spec.model import DEFAULT_OPTIONS, Container, ContainerChoice, Host, ResultSpec, Run
from pccpipe.spec.paths import beside, read_text
from pccpipe.spec.position import KeyPath
from pccpipe.spec.ready import build_ready
from pccpipe.spec.schema import find_schema
from pccpipe.spec.shebang import shell_of
from pccpipe.spec.source import Source
from pccpipe.values import Json

Map = Mapping[str, Json]

_INHERITED = frozenset({"shell", "shell_options", "cwd", "env", "log_limit"})


class RunBuilder:
    """Make the work of steps.

    Args:
        defaults: the keys that a step has unless it says otherwise.
        stops_at_failure: whether scripts without `shell_options:` stop at the first failing command.
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        defaults: Map,
        containers: Mapping[str, Container],
        agents: Mapping[str, Agent],
        *,
        stops_at_failure: bool,
    ) -> None:
        self._source = source
        self._make = ValueBuilder(source)
        self._folder = folder
        self.defaults = defaults
        self._containers = containers
        self._agents = agents
        self._stops_at_failure = stops_at_failure

    def run(self, path: KeyPath, data: Map) -> Run:
        """Make the work of a step with `run:`."""
        own = {
            **{key: value for key, value in self.defaults.items() if key in _INHERITED},
            **data,
        }
        own["env"] = merged(self.defaults.get("env"), data.get("env"))
        own["shell"] = self._shell(data, self.defaults)
        if "container" not in data and "on" not in data:
            own |= {key: self.defaults[key] for key in ("on", "container") if key in self.defaults}
        if "on" not in own:
            own["on"] = "container" if "container" in own else "local"
        if own["on"] == "container" and "container" not in own:
            own["container"] = self.defaults["container"]
        where = self._host(path, own)
        fallback = None
        if given := dict(mapping(data.get("fallback", default_fallback(self.defaults, str(own["on"]))))):
            given["env"] = merged(own["env"], given.get("env"))
            script = given if "run" in given else {**data, **given}
            given["shell"] = self._shell(script, {"shell": data["shell"]} if "shell" in data else self.defaults)
            at = (*path, "fallback") if "run" in given else path
            fallback = self._host(at, {**own, **given})
        return Run(
            where=where,
            fallback=fallback,
            secrets=tuple(string(name) for name in listed(data.get("secrets"))),
            files=tuple(
                self._file((*path, "files", name), name, mapping(spec))
                for name, spec in mapping(data.get("files")).items()
            ),
            result=self._result((*path, "result"), mapping(data["result"])) if "result" in data else None,
            isolation_required=data.get("isolation", self.defaults.get("isolation")) == "required",
            as_login=data.get("account") == "login",
            background=data.get("background") is True,
            ready=build_ready(self._source, (*path, "ready"), data.get("ready")),
            log_limit=units.size(cast("str | int", own.get("log_limit", LOG.most))),
            max_tokens=self._make.integer((*path, "max_tokens"), data["max_tokens"]) if "max_tokens" in data else None,
            budget=build_budget(self._source, (*path, "budget"), mapping(data["budget"])) if "budget" in data else None,
        )

    def agent(self, path: KeyPath, data: Map, names: Sequence[str]) -> Run:
        """Make the work of a step with `agent:`."""
        run = self.run(path, {**data, "run": "", "shell": "sh", "shell_options": ["errexit"]})
        agents = tuple(self._agents[name] for name in names)
        prompt = data["prompt"]
        kind = {"template": prompt} if isinstance(prompt, str) else mapping(prompt)
        task = AgentTask(
            agents,
            agents[0],
            self._file((*path, "prompt"), PROMPT, kind),
            run.secrets,
            session=cast("str | None", data.get("session")),
            repair=whole(data.get("repair", 1)),
            trusts_workspace=data.get("workspace_config") == "trusted",
            stalled_after=units.seconds(cast("str | float", data.get("stalled_after", "10m"))),
            ends_stalled=data.get("on_stall") == "end",
        )
        return replace(run, agent=task).by(agents[0])

    def _shell(self, own: Map, defaults: Map) -> str:
        shells = (cast("str | None", each.get("shell")) for each in (own, defaults))
        return shell_of(string(own["run"]), *shells, reads_shebang=self._stops_at_failure)

    def _host(self, path: KeyPath, data: Map) -> Host:
        on = Place(string(data["on"]))
        container = string(data["container"]) if on is Place.CONTAINER else None
        by_leg = container is not None and "${{" in container
        cwd = data.get("cwd")
        shell = string(data["shell"])
        dialect = dialect_of(shell)
        options = DEFAULT_OPTIONS[dialect] if self._stops_at_failure else ()
        if "shell_options" in data and dialect:
            options = tuple(string(option) for option in listed(data["shell_options"]))
        return Host(
            on=on,
            run=self._make.template((*path, "run"), data["run"]),
            shell=shell,
            shell_options=options,
            cwd=None if cwd is None else self._make.template((*path, "cwd"), cwd),
            env=self._make.templates((*path, "env"), data.get("env")),
            container=None if container is None or by_leg else self._containers[container],
            choice=ContainerChoice(self._make.template((*path, "container"), container), self._containers)
            if by_leg
            else None,
        )

    def _file(self, path: KeyPath, name: str, spec: Map) -> FileInput:
        (kind, content), *_ = spec.items()
        if kind == "template":
            file = beside(self._folder, string(content))
            text = Template(read_text(file, TEMPLATE), self._source.of_value((*path, kind)), blocks=True)
            return FileInput(name, FileInputKind.TEMPLATE, text)
        return FileInput(name, FileInputKind(kind), self._make.template((*path, kind), content))

    def _result(self, path: KeyPath, spec: Map) -> ResultSpec:
        schema = cast("str | None", spec.get("schema"))
        found = None if schema is None else find_schema(schema, self._folder)
        return ResultSpec(self._make.template((*path, "path"), spec["path"]), schema, found, self._source.of_key(path))
