"""Checks `agents:`, and the steps that name one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from pccpipe.agents.description import AgentDescription
from pccpipe.errors import UsageError
from pccpipe.spec.agent_file import agent_problems, find_agent, read_agent
from pccpipe.spec.agent_task import PROMPT, SCHEMA
from pccpipe.spec.data import mapping
from pccpipe.spec.names import Visible
from pccpipe.spec.paths import beside, is_file
from pccpipe.spec.position import KeyPath
from pccpipe.spec.problem import did_you_mean
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json


class AgentChecker:
    """Checks the agents of a pipeline, and adds to the problems of `values`.

    Args:
        agents: the section; its entries may be wrong.
        secrets: the secrets that the pipeline declares; None if that section is wrong itself.
    """

    def __init__(
        self, values: ValueChecker, folder: Path, agents: Mapping[str, Json], secrets: Mapping[str, Json] | None
    ) -> None:
        self._values = values
        self._folder = folder
        self._agents = agents
        self._secrets = secrets
        self._descriptions: dict[str, AgentDescription] = {}

    def declared(self) -> None:
        """Check the agents themselves."""
        for name, entry in self._agents.items():
            spec, path = mapping(entry), ("agents", name)
            self._values.text((*path, "model"), spec.get("model"), Visible())
            secret = spec.get("secret")
            if isinstance(secret, str) and self._secrets is not None and secret not in self._secrets:
                hint = did_you_mean(secret, self._secrets) or "declare it under `secrets:` at the top"
                self._values.say((*path, "secret"), f"there is no secret `{secret}`", hint)
            if isinstance(use := spec.get("use"), str):
                self._file(name, (*path, "use"), use)
            if isinstance(secret, str) and name in self._descriptions:
                self._api(name, (*path, "secret"), secret)

    def step(self, path: KeyPath, step: Mapping[str, Json], places: Sequence[str], visible: Visible) -> None:
        """Check the agent of a step.

        Args:
            places: where it may run: of `on:`, and of its fallback.
        """
        for at, name in named(path, step):
            if name not in self._agents:
                hint = did_you_mean(name, self._agents) or "declare it under `agents:` at the top"
                self._values.say(at, f"there is no agent `{name}`", hint)
            elif description := self._descriptions.get(name):
                self._fits(at, name, description, path, step, places)
        for name in (PROMPT, SCHEMA):
            if name in mapping(step.get("files")):
                message = f"the name `{name}` is taken: the agent's command has a file of that name"
                self._values.say((*path, "files", name), message, "rename it", at_key=True)
        files = replace(visible, files=tuple(mapping(step.get("files"))))
        prompt = step.get("prompt")
        if isinstance(prompt, str) and self._is_text(prompt):
            message, hint = "`prompt` must be the path of a file, not the text itself", "write `prompt: {text: ...}`"
            self._values.say((*path, "prompt"), message, hint)
        elif isinstance(prompt, str):
            self._values.template_file((*path, "prompt"), prompt, files)
        else:
            self._values.text((*path, "prompt", "text"), mapping(prompt).get("text"), files)
        result = mapping(step.get("result"))
        if "repair" in step and "schema" not in result:
            message = "`repair` has no effect: the step has no result with a `schema:`"
            self._values.say((*path, "repair"), message, "add `schema:` to its `result:`", at_key=True)

    def secrets_of(self, step: Mapping[str, Json]) -> list[str]:
        """Return the secrets that a step gets because of its agents."""
        entries = (mapping(self._agents.get(name)) for _, name in named((), step))
        return [secret for entry in entries if isinstance(secret := entry.get("secret"), str)]

    def _is_text(self, prompt: str) -> bool:
        """Say whether a prompt that must be a path is probably the text of one."""
        try:
            return "\n" in prompt or (" " in prompt and not is_file(beside(self._folder, prompt)))
        except ValueError:
            return False

    def _api(self, name: str, path: KeyPath, secret: str) -> None:
        """Check that an agent speaks the API that its secret is for."""
        spec = mapping((self._secrets or {}).get(secret))
        if spec.get("via") != "proxy" or "allow" in spec:
            return
        api = self._descriptions[name].api
        known = spec.get("api")
        if known is None:
            other = next(each for each in self._descriptions if mapping(self._agents[each]).get("secret") == secret)
            known = self._descriptions[other].api
            words = f"the secret {secret} is for the API {known} of the agent `{other}`"
        else:
            words = f"the secret {secret} is for the API {known}"
        if known != api:
            hint = "give each API a secret of its own"
            self._values.say(path, f"{words}, and the agent `{name}` speaks {api}", hint)

    def _file(self, name: str, path: KeyPath, use: str) -> None:
        try:
            file = find_agent(use, self._folder)
            problems = agent_problems(file)
            self._values.problems.extend(problems)
            if not problems:
                self._descriptions[name] = read_agent(file)
        except UsageError as error:
            self._values.say(path, error.message, error.hint)
        except ValueError as error:
            self._values.say(path, f"the path {error}")
        except OSError as error:
            self._values.say(path, f"cannot read the agent file {use}: {error.strerror}")

    def _fits(
        self,
        at: KeyPath,
        name: str,
        description: AgentDescription,
        path: KeyPath,
        step: Mapping[str, Json],
        places: Sequence[str],
    ) -> None:
        outside = next((place for place in places if place != "container"), None)
        if outside and not description.outside:
            message = f"the agent `{name}` runs only in containers, and this step may run on `{outside}`"
            hint = "its agent file has no `outside:`; set `on: container`, and leave out such a `fallback:`"
            self._values.say(at, message, hint)
        elif outside and description.hide and step.get("workspace_config") != "trusted":
            message = f"nothing hides {', '.join(description.hide)} from the agent `{name}` on `{outside}`"
            hint = "set `on: container`, and leave out such a `fallback:`; or set `workspace_config: trusted`"
            self._values.say(at, message, hint)
        if "session" in step and description.session is None:
            message = f"the agent `{name}` cannot continue a session: its agent file has no `session:`"
            self._values.say((*path, "session"), message, "leave out `session:`", at_key=True)


def named(path: KeyPath, step: Mapping[str, Json]) -> Iterator[tuple[KeyPath, str]]:
    """Yield the agents that a step names, each with its place."""
    agent = step.get("agent")
    if isinstance(agent, str):
        yield (*path, "agent"), agent
    for index, name in enumerate(agent if isinstance(agent, list) else ()):
        if isinstance(name, str):
            yield (*path, "agent", index), name
