"""`pccpipe validate`: lists every problem of pipelines, project, agent and test files, policies, results' schemas."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pccpipe.cli.exit_status import WRONG_USAGE
from pccpipe.cli.options import FILE, policy_option, read_policy

if TYPE_CHECKING:
    from pccpipe.spec.problem import Problem


@click.command()
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--kind",
    type=click.Choice(["auto", "pipeline", "project", "policy", "agent", "test", "schema"]),
    default="auto",
    show_default=True,
    help="What the files are. `auto` reads the schema that a file names for editors, its name and its keys.",
)
@policy_option
@click.option(
    "--format",
    "how",
    type=click.Choice(["text", "json", "github", "sarif"]),
    default="text",
    show_default=True,
    help="text for people, json for programs, github for pull requests, sarif for readers of SARIF 2.1.0.",
)
@click.pass_context
def validate(context: click.Context, files: Sequence[Path], kind: str, policy: Path | None, how: str) -> None:
    """Check pipelines, project files, policies, agent files, test files and results' JSON Schemas.

    Reports all problems at once, each with line, column and a suggestion. Exit status: 0 no problem, 2 problems.
    """
    from pccpipe.policy.check_file import CheckedAs, check_file
    from pccpipe.views.problems import ProblemFormat, shown
    from pccpipe.views.text import harmless

    rules = read_policy(policy)
    problems: list[Problem] = []
    for file in dict.fromkeys(files):
        checked = check_file(file, CheckedAs(kind), _describe_test, rules)
        problems += checked.problems
        if checked.words and how == "text":
            print(f"{file}: fine, {checked.words}")
    text = shown(problems, ProblemFormat(how))
    if text:
        print(harmless(text) if how == "text" else text, file=sys.stderr if how == "text" else sys.stdout)
    if problems:
        context.exit(WRONG_USAGE)


def _describe_test(file: Path) -> str:
    """Read a test file, and say what it is. Raises SpecError, UsageError."""
    from pccpipe.scripted.case_file import load_cases

    count = len(load_cases(file))
    return f"a test file, {count} case{'' if count == 1 else 's'}"
