"""Finds problems in the work of a step with `run:` or `agent:`, and in the files of a run that steps write."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from msgspec.structs import replace

from pccpipe.shells import dialect_of
from pccpipe.spec.budget import check_budget, check_counted
from pccpipe.spec.check_agent import AgentChecker
from pccpipe.spec.check_background import check_background
from pccpipe.spec.check_matrix import MatrixChecker, missing_name
from pccpipe.spec.check_retry import check_retry
from pccpipe.spec.check_script import check_path_of_agent, check_scripts
from pccpipe.spec.data import items, mapping
from pccpipe.spec.defaults import default_fallback, nested, place_of
from pccpipe.spec.elsewhere import image_hint
from pccpipe.spec.names import Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.problem import did_you_mean
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json

_PLACES = ("local", "vm", "container")


class RunChecker:
    """Check the work of steps.

    Args:
        data: the whole pipeline.
        ill: the sections that are wrong as a whole: their names count as declared.
        older: accept what earlier versions accepted.
    """

    def __init__(
        self,
        values: ValueChecker,
        agents: AgentChecker,
        matrices: MatrixChecker,
        data: Mapping[str, Json],
        ill: Collection[str],
        *,
        older: bool,
    ) -> None:
        self.values = values
        self.agents = agents
        self.matrices = matrices
        self.secrets = mapping(data.get("secrets"))
        self.containers = mapping(data.get("containers"))
        self.defaults = mapping(data.get("defaults"))
        self._data = data
        self._defaults_at: KeyPath = ("defaults",)
        self._ill = ill
        self._older = older
        self._written: dict[str, str] = {}
        """The id of the step that writes a file of the run's folder, by the file's path."""

    @contextmanager
    def defaults_of(self, path: KeyPath, step: Mapping[str, Json], visible: Visible) -> Iterator[None]:
        """Check the `defaults:` of a group, and let them hold within the block."""
        own, at = mapping(step.get("defaults")), (*path, "defaults")
        if not own:
            yield
            return
        around, around_at = self.defaults, self._defaults_at
        self.defaults, self._defaults_at = nested(around, own), at
        self.check_defaults(at, own, visible)
        yield
        self.defaults, self._defaults_at = around, around_at

    def check_defaults(self, path: KeyPath, defaults: Mapping[str, Json], visible: Visible) -> None:
        """Check the values of a `defaults:`."""
        self.host(path, defaults, replace(visible, target=True))
        self.host((*path, "fallback"), mapping(defaults.get("fallback")), replace(visible, target=True))
        self.values.expression_or_plain((*path, "timeout"), defaults.get("timeout"), visible)
        check_retry(self.values, (*path, "retry"), defaults.get("retry"))

    def run(self, path: KeyPath, step: dict[str, Json], visible: Visible) -> None:
        """Check a step with `run:` or `agent:`."""
        on = place_of(step, self.defaults)
        self.host(path, step, visible, on=on)
        if on == "container" and isinstance(box := step.get("container", self.defaults.get("container")), str):
            at = (*path, "container") if "container" in step else path
            self.matrices.images(at, self.matrices.chosen(at, box, visible), visible)
        shell = check_scripts(self.values, path, step, self.defaults, self._defaults_at, visible)
        check_background(self.values, path, step, on, dialect_of(shell) or "sh", visible)
        if on != "local":  # a local command inherits the variables of this machine, which may be another tool's
            self.values.foreign_variables((*path, "run"), step.get("run"))
        for index, name in enumerate(items(step.get("secrets"))):
            if isinstance(name, str) and name not in self.secrets:
                where = "declare it under `secrets:` at the top"
                self.unknown((*path, "secrets", index), "secret", name, self.secrets, where)
        self.values.expression_or_plain((*path, "max_tokens"), step.get("max_tokens"), visible)
        names = [*map(str, items(step.get("secrets"))), *self.agents.secrets_of(step)]
        named = [mapping(self.secrets.get(name)) for name in names]
        if "agent" in step or any(secret.get("via") == "proxy" for secret in named):
            check_path_of_agent(self.values, path, step, self._data)
        check_budget(self.values, (*path, "budget"), step.get("budget"), visible)
        if not any(secret.get("via") == "proxy" for secret in named):
            for key in ("max_tokens", "budget"):
                if key in step:
                    check_counted(self.values, path, key, "this step")
        for name, spec in mapping(step.get("files")).items():
            self._file((*path, "files", name), mapping(spec), visible)
        result = mapping(step.get("result"))
        self.values.text((*path, "result", "path"), result.get("path"), visible)
        self.writes((*path, "result", "path"), step, result.get("path"), visible)
        self.values.schema((*path, "result", "schema"), result.get("schema"))
        if "account" in step and on != "vm":
            message = f"`account` is for steps with `on: vm`, and this one has `on: {on}`"
            self.values.say((*path, "account"), message, "leave out `account:`, or set `on: vm`", at_key=True)
        if fallback := mapping(step.get("fallback")):
            self._fallback((*path, "fallback"), fallback, on, visible)
        if "agent" in step:
            other = mapping(step.get("fallback", default_fallback(self.defaults, on))).get("on")
            self.agents.step(path, step, [on, *([other] if isinstance(other, str) else [])], visible)

    def writes(self, path: KeyPath, step: Mapping[str, Json], name: Json, visible: Visible) -> None:
        """Find a file of the run's folder that two steps, or all legs of a matrix, would write."""
        if self._older or not isinstance(name, str):
            return
        key = missing_name(name, visible)
        if key is not None:
            lacks = f"lacks `{key}`" if key else "has none of its values"
            message = f"legs of the matrix would write the same file: its name {lacks}"
            self.values.say(path, message, f"add ${{{{ matrix.{key or 'NAME'} }}}} to the name")
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

    def host(self, path: KeyPath, host: Mapping[str, Json], visible: Visible, on: str | None = None) -> None:
        """Check the keys that a step, its fallback and `defaults:` have in common."""
        container = host.get("container")
        if isinstance(container, str) and "${{" in container:
            self.matrices.choice((*path, "container"), container, visible)
        elif isinstance(container, str) and container not in self.containers:
            image = image_hint(container)
            otherwise = image or "declare it under `containers:`"
            self.unknown((*path, "container"), "container", container, {} if image else self.containers, otherwise)
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
        self.host(path, fallback, visible, on=to if isinstance(to, str) else None)
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

    def unknown(self, path: KeyPath, what: str, name: str, known: Mapping[str, Json], otherwise: str = "") -> None:
        """Report a name that nothing has, unless its whole section is wrong."""
        if f"{what}s" not in self._ill:
            self.values.say(path, f"there is no {what} `{name}`", did_you_mean(name, known) or otherwise)
