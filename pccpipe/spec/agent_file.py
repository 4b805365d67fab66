"""Reads agent files: the built-in ones, and a user's own beside the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from pccpipe.agents.description import AgentDescription
from pccpipe.agents.rules import ResultRule, read_result, read_rules
from pccpipe.data_files import agent_path, built_in_agents
from pccpipe.errors import UsageError
from pccpipe.spec.built_in import may_be_built_in
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.paths import beside, is_file
from pccpipe.spec.problem import Problem, Rule, did_you_mean
from pccpipe.spec.schema import structure_problems
from pccpipe.spec.source import BadYaml, Source, read_source
from pccpipe.values import Json

_READ_APART = ("version", "$schema", "result", "events")


def find_agent(use: str, folder: Path) -> Path:
    """Return the agent file of `use:`. Raises UsageError if there is none, ValueError for an impossible path."""
    if may_be_built_in(use):
        if use in built_in_agents():
            return agent_path(use)
        names = " and ".join(f"`{name}`" for name in built_in_agents())
        hint = did_you_mean(use, built_in_agents()) or f"{names} are; or name an agent file, such as ./{use}.yaml"
        raise UsageError(f"there is no built-in agent `{use}`", hint)
    path = beside(folder, use)
    if not is_file(path):
        raise UsageError(f"there is no file {path}")
    return path


def agent_problems(path: Path) -> list[Problem]:
    """Return the problems of an agent file. Raises OSError."""
    try:
        source = read_source(path)
    except BadYaml as bad:
        return [Problem(each.position, each.message, each.hint, each.line, Rule.YAML) for each in (bad, *bad.others)]
    return structure_problems(source, "agent") or rule_problems(source)


def rule_problems(source: Source) -> list[Problem]:
    """Return the problems of the rules of an agent file that the schema does not know."""
    rules = [mapping(rule) for rule in listed(mapping(source.data).get("events"))]
    for index, rule in enumerate(rules):
        if rule.get("as") == "session" and "id" not in rule:
            at = source.of_key(("events", index))
            return [Problem(at, "a rule `as: session` needs the place of the `id`", line=source.line(at.line))]
    try:
        read_rules(rules)
    except ValueError as error:
        at = source.of_key(("events",))
        return [Problem(at, str(error), line=source.line(at.line))]
    return []


def read_agent(path: Path) -> AgentDescription:
    """Read an agent file without problems. Raises OSError, BadYaml."""
    data = mapping(read_source(path).data)
    known = {key: value for key, value in data.items() if key not in _READ_APART}
    described = msgspec.convert(known, AgentDescription)
    result = data.get("result", "file")
    return replace(
        described,
        has_result_file=result == "file",
        result=_result(mapping(result)) if isinstance(result, dict) else None,
        events=read_rules([mapping(rule) for rule in listed(data.get("events"))]),
    )


def _result(result: Mapping[str, Json]) -> ResultRule:
    return read_result(mapping(result["event"]), str(result["at"]))
