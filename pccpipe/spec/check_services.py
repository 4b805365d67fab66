"""Finds problems in `services:`, and gives the expressions of the steps beside them their names."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.spec.check_run import RunChecker
from pccpipe.spec.data import items, mapping
from pccpipe.spec.names import Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json


class ServiceChecker:
    """Check the services of steps and groups."""

    def __init__(self, values: ValueChecker, runs: RunChecker) -> None:
        self._values = values
        self._runs = runs

    def check(self, path: KeyPath, step: Mapping[str, Json], visible: Visible) -> Visible:
        """Check the services of a step; return what the step and the steps inside it see."""
        services = mapping(step.get("services"))
        for name, spec in services.items():
            self._service((*path, name), name, mapping(spec), visible)
        ports = {name: [str(port) for port in items(mapping(spec).get("ports"))] for name, spec in services.items()}
        return replace(visible, services={**visible.services, **ports}) if services else visible

    def _service(self, path: KeyPath, name: str, spec: Mapping[str, Json], visible: Visible) -> None:
        values = self._values
        if name in visible.services:
            message = f"a group around this step has a service `{name}` already"
            values.say(path, message, "give one of them another name", at_key=True)
        values.text((*path, "image"), spec.get("image"), visible)
        values.texts((*path, "env"), spec.get("env"), visible)
        for index, word in enumerate(items(spec.get("command"))):
            values.text((*path, "command", index), word, visible)
        values.script((*path, "ready", "run"), mapping(spec.get("ready")).get("run"), "sh", visible)
        for index, secret in enumerate(items(spec.get("secrets"))):
            if isinstance(secret, str):
                self._secret((*path, "secrets", index), secret)

    def _secret(self, path: KeyPath, name: str) -> None:
        secrets = self._runs.secrets
        if name not in secrets:
            self._runs.unknown(path, "secret", name, secrets, "declare it under `secrets:` at the top")
        elif mapping(secrets[name]).get("via") == "proxy":
            message = f"`{name}` is `via: proxy`: a service gets no token for the proxy"
            self._values.say(path, message, "name a secret with `via: direct`, or call the API in a step")
