"""Checks one file by itself: a pipeline, a project file, a policy, an agent or test file, or a result's JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from pccpipe.errors import SpecError, UsageError
from pccpipe.policy.enforce import PipelineCheck, ProjectCheck
from pccpipe.policy.file import load_policy
from pccpipe.policy.policy import Policy
from pccpipe.spec.agent_file import read_agent, rule_problems
from pccpipe.spec.load import check_schema_file, load_pipeline, load_source
from pccpipe.spec.position import Position
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.project import load_project
from pccpipe.spec.schema import structure_problems
from pccpipe.spec.source import Source


class CheckedAs(StrEnum):
    """Name what a file is to be checked as."""

    AUTO = "auto"
    PIPELINE = "pipeline"
    PROJECT = "project"
    POLICY = "policy"
    AGENT = "agent"
    TEST = "test"
    SCHEMA = "schema"


class CheckedFile(Struct, frozen=True):
    """Say what a file is, in words, or list its problems."""

    words: str = ""
    problems: Sequence[Problem] = ()


def check_file(
    file: Path, kind: CheckedAs, read_test: Callable[[Path], str], policy: Policy | None = None
) -> CheckedFile:
    """Check a file, also against a policy; an unreadable file is a problem too.

    Args:
        read_test: reads a test file, which names pipelines, and describes it.
    """
    kind = _kind(file) if kind is CheckedAs.AUTO else kind
    try:
        return CheckedFile(read_test(file) if kind is CheckedAs.TEST else _described(file, kind, policy))
    except SpecError as error:
        return CheckedFile(problems=error.problems)
    except UsageError as error:
        return CheckedFile(problems=[Problem(Position(str(file), 1, 1), error.message, error.hint, rule=Rule.FILE)])


def _described(file: Path, kind: CheckedAs, policy: Policy | None) -> str:
    """Say what a file is. Raises SpecError, UsageError."""
    match kind:
        case CheckedAs.SCHEMA:
            check_schema_file(file)
            return "a JSON Schema"
        case CheckedAs.POLICY:
            load_policy(file)
            return "a policy"
        case CheckedAs.AGENT:
            load_source(file, "agent", _agent_rules)
            agent = read_agent(file)
            return f"an agent file, {agent.name} with the API {agent.api.value}"
        case CheckedAs.PROJECT:
            project = load_project(file, check=ProjectCheck(policy) if policy else None)
            return f"project {project.id}, isolation {project.isolation_mode.value}"
        case _:
            pipeline = load_pipeline(file, check=PipelineCheck(policy) if policy else None)
            return f"pipeline {pipeline.name}, {len(pipeline.steps) + len(pipeline.always)} steps at the top"


def _agent_rules(source: Source) -> list[Problem]:
    return [] if structure_problems(source, "agent") else rule_problems(source)


_NAMED = re.compile(
    rb"""^(?:#[ \t]*yaml-language-server:[ \t]*)?["']?\$schema["']?[ \t]*[=:][ \t]*(\S+)""", re.MULTILINE
)
_OF_POLICIES = {b"preset", b"places", b"fallbacks", b"ceilings"}
_OF_AGENTS = {b"program", b"in_container", b"outside", b"api"}
_OF_TESTS = {b"cases", b"script", b"pipeline"}
_TOP_KEYS = re.compile(
    rb"^(cases|script|pipeline|program|api|in_container|outside|steps|always|inputs|isolation_mode|vm|lost_after|preset"
    rb"|places|fallbacks|ceilings)[ \t]*:",
    re.MULTILINE,
)
_READ = 1024 * 1024
"""Bytes of a file that are searched for its kind."""


def _kind(file: Path) -> CheckedAs:
    """Guess a file's kind from its name, the schema that it names, and its keys, also if it is broken."""
    if file.suffix == ".json":
        return CheckedAs.SCHEMA
    try:
        with file.open("rb") as opened:
            text = opened.read(_READ)
    except OSError:
        return CheckedAs.PIPELINE
    for named in _NAMED.findall(text):
        for kind in (CheckedAs.POLICY, CheckedAs.PROJECT, CheckedAs.PIPELINE, CheckedAs.AGENT, CheckedAs.TEST):
            if kind.value.encode() in named.rpartition(b"/")[2]:
                return kind
    keys = set(_TOP_KEYS.findall(text))
    if keys & _OF_TESTS and not keys & {b"steps", b"always"}:
        return CheckedAs.TEST
    if keys & _OF_AGENTS and not keys & {b"steps", b"always"}:
        return CheckedAs.AGENT
    if keys & _OF_POLICIES:
        return CheckedAs.POLICY
    if keys:
        return CheckedAs.PIPELINE if keys & {b"steps", b"always", b"inputs"} else CheckedAs.PROJECT
    return CheckedAs.PROJECT if file.name == "pccpipe.yaml" else CheckedAs.PIPELINE
