"""`pccpipe validate`: every problem of pipelines, project files and results' schemas, with its place."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pccpipe.cli.options import FILE, policy_option, read_policy

if TYPE_CHECKING:
    from pccpipe.policy.policy import Policy
    from pccpipe.spec.problem import Problem


class CheckedAs(StrEnum):
    """What a file is to be checked as."""

    AUTO = "auto"
    PIPELINE = "pipeline"
    PROJECT = "project"
    POLICY = "policy"
    SCHEMA = "schema"


@click.command()
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in CheckedAs]),
    default=CheckedAs.AUTO.value,
    show_default=True,
    help="What the files are. `auto` looks: at the schema that a file names for editors, at its name, at its keys.",
)
@policy_option
@click.option(
    "--format",
    "how",
    type=click.Choice(["text", "json", "github", "sarif"]),
    default="text",
    show_default=True,
    help="How problems are told: to people, to programs, to GitHub's pull requests, to what reads SARIF 2.1.0.",
)
@click.pass_context
def validate(context: click.Context, files: Sequence[Path], kind: str, policy: Path | None, how: str) -> None:
    """Check pipelines, project files, policies and results' JSON Schemas.

    Says all that is wrong with them at once, each with its line and column, and what was probably meant. Then the exit
    status is 2.
    """
    from pccpipe.views.problems import ProblemFormat, shown
    from pccpipe.views.text import harmless

    rules = read_policy(policy)
    problems: list[Problem] = []
    for file in dict.fromkeys(files):
        found = _checked(file, CheckedAs(kind), rules)
        if isinstance(found, str) and how == "text":
            print(f"{file}: fine, {found}")
        elif not isinstance(found, str):
            problems += found
    text = shown(problems, ProblemFormat(how))
    if text:
        print(harmless(text) if how == "text" else text, file=sys.stderr if how == "text" else sys.stdout)
    if problems:
        context.exit(2)


def _checked(file: Path, kind: CheckedAs, policy: Policy | None) -> str | Sequence[Problem]:
    """What the file is, in words; or all that is wrong with it."""
    from pccpipe.errors import SpecError, UsageError
    from pccpipe.spec.position import Position
    from pccpipe.spec.problem import Problem, Rule

    try:
        return _described(file, _kind(file) if kind is CheckedAs.AUTO else kind, policy)
    except SpecError as error:
        return error.problems
    except UsageError as error:
        return [Problem(Position(str(file), 1, 1), error.message, error.hint, rule=Rule.FILE)]


def _described(file: Path, kind: CheckedAs, policy: Policy | None) -> str:
    """What the file is, in words. Raises SpecError, UsageError."""
    from pccpipe.api import load, load_policy, load_project
    from pccpipe.spec.load import check_schema_file

    match kind:
        case CheckedAs.SCHEMA:
            check_schema_file(file)
            return "a JSON Schema"
        case CheckedAs.POLICY:
            load_policy(file)
            return "a policy"
        case CheckedAs.PROJECT:
            project = load_project(file, policy=policy)
            return f"project {project.id}, isolation {project.isolation_mode.value}"
        case _:
            pipeline = load(file, policy=policy)
            return f"pipeline {pipeline.name}, {len(pipeline.steps) + len(pipeline.always)} steps at the top"


_NAMED = re.compile(
    rb"""^(?:#[ \t]*yaml-language-server:[ \t]*)?["']?\$schema["']?[ \t]*[=:][ \t]*(\S+)""", re.MULTILINE
)
_OF_POLICIES = {b"preset", b"places", b"fallbacks", b"ceilings"}
_TOP_KEYS = re.compile(
    rb"^(steps|always|inputs|isolation_mode|vm|lost_after|preset|places|fallbacks|ceilings)[ \t]*:", re.MULTILINE
)
_LOOKED_AT = 1024 * 1024


def _kind(file: Path) -> CheckedAs:
    """What the file means to be, so that also a broken one is told what it should have been."""
    if file.suffix == ".json":
        return CheckedAs.SCHEMA
    try:
        with file.open("rb") as opened:
            text = opened.read(_LOOKED_AT)
    except OSError:
        return CheckedAs.PIPELINE
    for named in _NAMED.findall(text):
        for kind in (CheckedAs.POLICY, CheckedAs.PROJECT, CheckedAs.PIPELINE):
            if kind.value.encode() in named.rpartition(b"/")[2]:
                return kind
    keys = set(_TOP_KEYS.findall(text))
    if keys & _OF_POLICIES:
        return CheckedAs.POLICY
    if keys:
        return CheckedAs.PIPELINE if keys & {b"steps", b"always", b"inputs"} else CheckedAs.PROJECT
    return CheckedAs.PROJECT if file.name == "pccpipe.yaml" else CheckedAs.PIPELINE
