"""Checks one file by itself: a pipeline, a project file, a policy, a test file, or the JSON Schema of a result."""

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
from pccpipe.spec.load import check_schema_file, load_pipeline
from pccpipe.spec.position import Position
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.project import load_project


class CheckedAs(StrEnum):
    """Name what a file is to be checked as."""

    AUTO = "auto"
    PIPELINE = "pipeline"
    PROJECT = "project"
    POLICY = "policy"
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
        case CheckedAs.PROJECT:
            project = load_project(file, check=ProjectCheck(policy) if policy else None)
            return f"project {project.id}, isolation {project.isolation_mode.value}"
        case _:
            pipeline = load_pipeline(file, check=PipelineCheck(policy) if policy else None)
            return f"pipeline {pipeline.name}, {len(pipeline.steps) + len(pipeline.always)} steps at the top"


_NAMED = re.compile(
    rb"""^(?:#[ \t]*yaml-language-server:[ \t]*)?["']?\$schema["']?[ \t]*[=:][ \t]*(\S+)""", re.MULTILINE
)
_OF_POLICIES = {b"preset", b"places", b"fallbacks", b"ceilings"}
_TOP_KEYS = re.compile(
    rb"^(cases|steps|always|inputs|isolation_mode|vm|lost_after|preset|places|fallbacks|ceilings)[ \t]*:", re.MULTILINE
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
        for kind in (CheckedAs.POLICY, CheckedAs.PROJECT, CheckedAs.PIPELINE, CheckedAs.TEST):
            if kind.value.encode() in named.rpartition(b"/")[2]:
                return kind
    keys = set(_TOP_KEYS.findall(text))
    if b"cases" in keys:
        return CheckedAs.TEST
    if keys & _OF_POLICIES:
        return CheckedAs.POLICY
    if keys:
        return CheckedAs.PIPELINE if keys & {b"steps", b"always", b"inputs"} else CheckedAs.PROJECT
    return CheckedAs.PROJECT if file.name == "pccpipe.yaml" else CheckedAs.PIPELINE
