"""What a policy refuses of a pipeline or a project file: each with its place in the file, all at once."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pccpipe.errors import ExpressionError
from pccpipe.model_api import ModelApi
from pccpipe.outcome import IsolationMode, Place
from pccpipe.policy.folders import OUTSIDE, AllowedFolders
from pccpipe.policy.legs import KnownLegs, LegsOf, narrowed
from pccpipe.policy.policy import Origin, Policy, SecretRule
from pccpipe.spec import units
from pccpipe.spec.build_container import UNLIMITED
from pccpipe.spec.built_in import may_be_built_in
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.defaults import nested, place_of
from pccpipe.spec.expression import Template
from pccpipe.spec.paths import beside
from pccpipe.spec.position import KeyPath
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.services import CAPABILITIES
from pccpipe.spec.source import Source
from pccpipe.spec.structure import BUILT_IN_RESULTS
from pccpipe.values import Json

_IN_THE_RUN = re.compile(r"\$\{\{\s*run\.folder\s*\}\}/((?:[^$]|\$\{\{\s*iteration\s*\}\})*)")
"""A file of the run's own folder, with no other value in its name."""
_FILES = ("file", "template", "schema")
_SOURCES = {"env": "name", "file": "path", "command": "command"}
"""The key that says where a secret's value is, by the kind of its source."""
_LOOSENED: Mapping[str, Json] = {
    "network": "host",
    "memory": "unlimited",
    "pids": "unlimited",
    "user": "root",
    "new_privileges": True,
    "seccomp": "unconfined",
    "apparmor": "unconfined",
    "init": False,
}
"""The value of a container's setting that loosens it."""


def pipeline_refusals(
    source: Source, folder: Path, policy: Policy, inputs: Mapping[str, Json] | None = None
) -> list[Problem]:
    """Return everything in a pipeline that a policy refuses.

    Args:
        folder: where the files that it names begin.
        inputs: the run's; None at load: what depends on them is judged when they are known.
    """
    return _Pipeline(source, folder, policy, inputs).judged()


def project_refusals(source: Source, folder: Path, policy: Policy) -> list[Problem]:
    """Return everything in a project file that a policy refuses."""
    return _Project(source, folder, policy).judged()


class _Judge:
    def __init__(self, source: Source, folder: Path, policy: Policy, inputs: Mapping[str, Json] | None = None) -> None:
        self.source = source
        self.data = mapping(source.data)
        self.policy = policy
        self.inputs = inputs
        self._folder = folder
        self._folders = AllowedFolders(policy.folders, folder)
        self._problems: list[Problem] = []

    def refuse(self, path: KeyPath, what: str, why: str, *, at_key: bool = False) -> None:
        at = self.source.of_key(path) if at_key else self.source.of_value(path)
        lines = self.source.lines_of(at)
        line = lines[at.line - 1] if at.line <= len(lines) else ""
        self._problems.append(Problem(at, f"the policy refuses {what}: {why}", line=line, rule=Rule.POLICY))

    def file(self, path: KeyPath, name: str) -> None:
        """Judge the path of a file of the controller; it is not opened."""
        try:
            found = beside(self._folder, name)
        except ValueError:
            return  # no file can have this name: the check of the file's meaning says so
        if not self._folders.has(found):
            self.refuse(path, f"the path `{name}`", OUTSIDE)

    def place(self, path: KeyPath, place: Json, allowed: frozenset[Place] | None, what: str) -> None:
        if allowed is not None and place in set(Place) and place not in allowed:
            places = ", ".join(sorted(allowed)) or "none"
            self.refuse(path, f"{what} `on: {place}`", f"allowed: {places}")

    def known(self, path: KeyPath, value: Json, what: str) -> str | None:
        """Return a text with the run's inputs in it; None if it is missing, or refused, or not known yet."""
        return next(iter(self.known_texts(path, value, what, lambda: None)), None)

    def known_texts(self, path: KeyPath, value: Json, what: str, legs: LegsOf) -> list[str]:
        """Return a text as it is in each leg of a matrix; none if it is missing, or refused, or not known yet.

        Args:
            legs: gives the legs, for a text that reads a matrix; None if it may not, or if the run itself gives them.
        """
        if not isinstance(value, str) or "${{" not in value:
            return [value] if isinstance(value, str) else []
        from pccpipe.spec import jinja

        analysis = jinja.analyse(value)
        if analysis.wrong:
            return []  # the check of the pipeline's meaning says so
        names = {chain[0] for chain in analysis.references}
        known = legs() if "matrix" in names else ()
        if known is None or names - {"inputs", "matrix"}:
            self.refuse(
                path, f"{what} `{value}`", "it is known only when the step begins; write it out, or take an input"
            )
            return []
        if self.inputs is None and "inputs" in names:
            return []
        template, texts = Template(value, self.source.of_value(path)), dict[str, None]()
        for leg in narrowed(known, analysis.references):
            try:
                texts[template.render({"inputs": self.inputs, "matrix": leg})] = None
            except ExpressionError as error:
                self.refuse(path, f"{what} `{value}`", error.message)
        return list(texts)

    def ceiling(self, path: KeyPath, value: Json, most: float | None, unit: object, word: str) -> None:
        if most is None or value is None or isinstance(value, bool):
            return
        text = self.known(path, value, "the value") if isinstance(value, str) else value
        try:
            asked = None if text is None else unit(text)  # type: ignore[operator]
        except ValueError:
            return  # the check of the pipeline's structure says so
        if asked is not None and asked > most:
            self.refuse(path, f"`{path[-1]}: {value}`", f"the ceiling is {most:g} {word}")

    def sorted_problems(self) -> list[Problem]:
        unique = {(problem.position, problem.message): problem for problem in self._problems}
        return [unique[key] for key in sorted(unique)]


class _Pipeline(_Judge):
    def __init__(self, source: Source, folder: Path, policy: Policy, inputs: Mapping[str, Json] | None) -> None:
        super().__init__(source, folder, policy, inputs)
        self._defaults = mapping(self.data.get("defaults"))
        self._legs = KnownLegs(source, self._contained(), inputs)

    def judged(self) -> list[Problem]:
        for name, spec in mapping(self.data.get("inputs")).items():
            if mapping(spec).get("type") == "path" and isinstance(default := mapping(spec).get("default"), str):
                self.file(("inputs", name, "default"), default)
        for name, spec in mapping(self.data.get("secrets")).items():
            self._secret(name, mapping(spec))
        for name, spec in mapping(self.data.get("agents")).items():
            if isinstance(use := mapping(spec).get("use"), str) and not may_be_built_in(use):
                self.file(("agents", name, "use"), use)
        for name, spec in mapping(self.data.get("containers")).items():
            self._container(("containers", name), mapping(spec))
        ceilings = self.policy.ceilings
        self.ceiling(("timeout",), self.data.get("timeout"), ceilings.timeout, units.seconds, "s")
        self._of_defaults(("defaults",), self._defaults)
        self._budget(("budget",), mapping(self.data.get("budget")), ceilings.run_tokens, ceilings.run_usd)
        for path, step in self._steps(self.data, ()):
            self._step(path, step)
        return self.sorted_problems()

    def _budget(self, path: KeyPath, budget: Mapping[str, Json], tokens: int | None, usd: float | None) -> None:
        self.ceiling((*path, "tokens"), budget.get("tokens"), tokens, units.tokens, "tokens")
        self.ceiling((*path, "usd"), budget.get("usd"), usd, float, "USD")

    def _steps(self, data: Mapping[str, Json], path: KeyPath) -> Iterator[tuple[KeyPath, Mapping[str, Json]]]:
        for key in ("steps", "always", "parallel"):
            for index, step in enumerate(listed(data.get(key))):
                if isinstance(step, dict):
                    yield (*path, key, index), step
                    around, own = self._defaults, mapping(step.get("defaults"))
                    self._of_defaults((*path, key, index, "defaults"), own)
                    self._defaults = nested(around, own) if own else around
                    yield from self._steps(step, (*path, key, index))
                    self._defaults = around

    def _of_defaults(self, path: KeyPath, defaults: Mapping[str, Json]) -> None:
        self.ceiling((*path, "log_limit"), defaults.get("log_limit"), self.policy.ceilings.log, units.size, "bytes")
        self.place(
            (*path, "fallback", "on"), mapping(defaults.get("fallback")).get("on"), self.policy.fallbacks, "a fallback"
        )

    def _step(self, path: KeyPath, step: Mapping[str, Json]) -> None:
        if "run" in step or "agent" in step:
            self._run(path, step)
        if "fallback" in step:
            place = mapping(step["fallback"]).get("on", place_of(step, self._defaults))
            at = (*path, "fallback", "on") if "on" in mapping(step["fallback"]) else (*path, "fallback")
            self.place(at, place, self.policy.fallbacks, "a fallback")
        for name, spec in mapping(step.get("files")).items():
            for kind, value in mapping(spec).items():
                if kind in _FILES and not (kind == "schema" and value in BUILT_IN_RESULTS):
                    self._file_text((*path, "files", name, kind), value)
        self._file_text((*path, "prompt"), step.get("prompt"))
        schema = mapping(step.get("result")).get("schema")
        if schema not in BUILT_IN_RESULTS:
            self._file_text((*path, "result", "schema"), schema)
        for name, spec in mapping(step.get("services")).items():
            self._service((*path, "services", name), mapping(spec))
        if "build" in step:
            self._build((*path, "build"), mapping(step["build"]))
        ceilings = self.policy.ceilings
        self.ceiling((*path, "log_limit"), step.get("log_limit"), ceilings.log, units.size, "bytes")
        self._budget((*path, "budget"), mapping(step.get("budget")), ceilings.tokens, ceilings.usd)

    def _build(self, path: KeyPath, build: Mapping[str, Json]) -> None:
        for key in ("context", "dockerfile"):
            self._file_text((*path, key), build.get(key))
        if self.policy.images is not None:
            for image in self.known_texts(
                (*path, "image"), build.get("image"), "the image", lambda: self._legs.at(path[:-1])
            ):
                # The engine may be the controller's, or another project's as well: its images are by name.
                if image in self.policy.images:
                    continue
                self.refuse((*path, "image"), f"building the image `{image}`", "the policy lists no such image")

    def _service(self, path: KeyPath, spec: Mapping[str, Json]) -> None:
        self.place(path, Place.CONTAINER.value, self.policy.places, "a service is")
        self._image((*path, "image"), spec.get("image"), lambda: self._legs.at(path[:-2]))
        capabilities = spec.get("capabilities", list(CAPABILITIES))
        if capabilities:
            at = (*path, "capabilities") if "capabilities" in spec else path
            self._loosened(at, f"capabilities: {_joined(capabilities)}")
        if spec.get("network") == "bridge":
            self._loosened((*path, "network"), "network: bridge")
        for key in ("memory", "pids"):
            if spec.get(key) == UNLIMITED:
                self._loosened((*path, key), f"{key}: {UNLIMITED}")
        self.ceiling((*path, "log_limit"), spec.get("log_limit"), self.policy.ceilings.log, units.size, "bytes")

    def _run(self, path: KeyPath, step: Mapping[str, Json]) -> None:
        at = (*path, next(key for key in ("on", "run", "agent") if key in step))
        self.place(at, place_of(step, self._defaults), self.policy.places, "a step")
        if step.get("account") == "login":
            self._loosened((*path, "account"), "account: login")

    def _secret(self, name: str, spec: Mapping[str, Json]) -> None:
        path = ("secrets", name)
        if self.policy.secrets is None:
            if spec.get("from") == "file" and isinstance(file := spec.get("path"), str):
                self.file((*path, "path"), file)
            return
        rule = self.policy.secrets.get(name)
        if rule is None:
            known = ", ".join(sorted(self.policy.secrets)) or "none"
            self.refuse(path, f"the secret {name}", f"allowed: {known}", at_key=True)
            return
        if rule.origin is not Origin.CALLER:
            key = _SOURCES[rule.origin.value]
            asked = (spec.get("from"), spec.get(key, name if key == "name" else None))
            if asked != (rule.origin.value, rule.name or name):
                self.refuse(path, f"the source of the secret {name}", "the operator fixed another one", at_key=True)
        if rule.via == "proxy" and spec.get("via") != "proxy":
            self.refuse(
                path, f"the secret {name} without `via: proxy`", "its value stays on the controller", at_key=True
            )
        if spec.get("via") == "proxy":
            agents = mapping(self.data.get("agents")).values()
            if not spec.keys() & {"api", "upstream"} and any(mapping(agent).get("secret") == name for agent in agents):
                self.refuse(path, f"the secret {name} without `api`", "its agents decide it; write it out", at_key=True)
            bases = {api.value: api.base for api in ModelApi}
            own = bases.get(str(spec.get("api")), ModelApi.OPENAI.base)
            self._upstream((*path, "upstream"), spec.get("upstream", own), rule)
            self._calls(path, spec, rule)

    def _upstream(self, path: KeyPath, value: Json, rule: SecretRule) -> None:
        known = self.known(path, value, f"the upstream of {path[1]}")
        if known is not None and known.rstrip("/") != rule.upstream.rstrip("/"):
            why = f"allowed: {rule.upstream}" if rule.upstream else "the policy names no upstream for it"
            self.refuse(path, f"the upstream `{known}`", why)

    def _calls(self, path: KeyPath, spec: Mapping[str, Json], rule: SecretRule) -> None:
        for key, allowed in (
            ("allow", rule.allow),
            ("service_tiers", rule.service_tiers),
            ("hosted_tools", rule.hosted_tools),
        ):
            for index, word in enumerate(listed(spec.get(key))):
                if word not in allowed:
                    self.refuse((*path, key, index), f"`{word}` in `{key}`", f"allowed: {', '.join(allowed) or 'none'}")
        models = listed(spec.get("models"))
        if rule.models and not models:
            self.refuse(path, "a secret without `models`", f"allowed: {', '.join(rule.models)}", at_key=True)
        for index, model in enumerate(models if rule.models else []):
            known = self.known((*path, "models", index), model, "the model")
            if known is not None and not any(fnmatch.fnmatchcase(known, each) for each in rule.models):
                self.refuse((*path, "models", index), f"the model `{known}`", f"allowed: {', '.join(rule.models)}")

    def _container(self, path: KeyPath, spec: Mapping[str, Json]) -> None:
        self._image((*path, "image"), spec.get("image"), lambda: self._legs.of_image(str(path[-1])))
        for index, entry in enumerate(listed(spec.get("egress"))):
            if self.policy.hosts is not None and not any(_covers(host, str(entry)) for host in self.policy.hosts):
                hosts = ", ".join(self.policy.hosts) or "none"
                self.refuse((*path, "egress", index), f"the host `{entry}`", f"allowed: {hosts}")
        for key, loose in _LOOSENED.items():
            if key in spec and spec[key] == loose:
                self._loosened((*path, key), f"{key}: {str(loose).lower()}")
        if spec.get("capabilities"):
            self._loosened((*path, "capabilities"), f"capabilities: {_joined(spec['capabilities'])}")
        if "runtime" in spec:
            self._loosened((*path, "runtime"), f"runtime: {spec['runtime']}")

    def _loosened(self, path: KeyPath, text: str) -> None:
        if self.policy.loosened is not None and text not in self.policy.loosened:
            self.refuse(path, f"`{text}`", f"allowed: {', '.join(self.policy.loosened) or 'none'}")

    def _contained(self) -> list[tuple[KeyPath, str]]:
        """Return each step that may run in a container, with its `container:`."""
        found: list[tuple[KeyPath, str]] = []
        for path, step in self._steps(self.data, ()):
            boxes = (
                step.get("container", self._defaults.get("container")),
                mapping(step.get("fallback")).get("container"),
            )
            found += ((path, box) for box in boxes if isinstance(box, str))
        return found

    def _image(self, path: KeyPath, value: Json, legs: LegsOf) -> None:
        if self.policy.images is not None or self.policy.digests_required:
            for image in self.known_texts(path, value, "the image", legs):
                self._known_image(path, image)

    def _known_image(self, path: KeyPath, image: str) -> None:
        images = self.policy.images
        if images is not None and image in images:
            return
        if images is not None and not any(fnmatch.fnmatchcase(image, pattern) for pattern in images):
            self.refuse(path, f"the image `{image}`", f"allowed: {', '.join(images) or 'none'}")
        elif self.policy.digests_required and not re.search(r"@sha256:[0-9a-f]{64}\Z", image):
            self.refuse(path, f"the image `{image}`", "it has no digest (NAME@sha256:...), and may be another tomorrow")

    def _file_text(self, path: KeyPath, value: Json) -> None:
        if self.policy.folders is None or not isinstance(value, str):
            return
        inside = _IN_THE_RUN.fullmatch(value)
        if inside and ".." not in Path(inside[1]).parts:
            return
        name = self.known(path, value, "the path")
        if name is not None:
            self.file(path, name)


class _Project(_Judge):
    def judged(self) -> list[Problem]:
        places = self.policy.places
        mode = self.data.get("isolation_mode", "local")
        if places is not None and mode in set(IsolationMode):
            needed = {"vm": (), "container": (Place.LOCAL, Place.CONTAINER), "local": (Place.LOCAL,)}[str(mode)]
            if any(place not in places for place in needed):
                allowed = ", ".join(sorted(places)) or "none"
                self.refuse(("isolation_mode",), f"`isolation_mode: {mode}`", f"steps may run on: {allowed}")
        self.ceiling(("log_quota",), self.data.get("log_quota"), self.policy.ceilings.logs, units.size, "bytes")
        if isinstance(prices := self.data.get("prices"), str):
            self.file(("prices",), prices)
        vm = mapping(self.data.get("vm"))
        for key in ("key_path", "jump_key_path", "known_hosts"):
            if isinstance(name := vm.get(key), str):
                self.file(("vm", key), name)
        self._host(("vm", "external_ip"), vm.get("external_ip"))
        hops = vm.get("proxy_jump")
        for hop in hops.split(",") if isinstance(hops, str) else []:
            self._host(("vm", "proxy_jump"), re.sub(r":\d+\Z", "", hop.strip().rpartition("@")[2]))
        return self.sorted_problems()

    def _host(self, path: KeyPath, host: Json) -> None:
        vms = self.policy.vms
        if vms is not None and isinstance(host, str) and not any(fnmatch.fnmatchcase(host, each) for each in vms):
            self.refuse(path, f"the host `{host}`", f"allowed: {', '.join(vms) or 'none'}")


def _covers(allowed: str, entry: str) -> bool:
    """Say whether an entry of `egress:` reaches nothing that the allowed one does not."""
    # It loads http and ssl (50 ms), which only a policy with hosts needs.
    from pccpipe.secrets.proxy.egress import split

    host, port = split(allowed.lower())
    asked, asked_port = split(entry.lower())
    if port and port != asked_port:
        return False
    return asked == host or (host.startswith("*.") and asked.endswith(host[1:]))


def _joined(data: Json) -> str:
    return f"[{', '.join(map(str, listed(data)))}]"
