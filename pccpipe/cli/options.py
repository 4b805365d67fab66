"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pccpipe.errors import UsageError
from pccpipe.layout import EVENTS, RUNS
from pccpipe.values import Json

if TYPE_CHECKING:
    from pccpipe.policy.policy import Policy
    from pccpipe.spec.model import Pipeline
    from pccpipe.spec.project_model import Project

FILE = click.Path(path_type=Path)


class Format(StrEnum):
    """Name the views of a run."""

    AUTO = "auto"
    LIVE = "live"
    PLAIN = "plain"
    JSONL = "jsonl"


pipeline_argument = click.argument("pipeline", type=FILE)
project_option = click.option(
    "--project",
    type=FILE,
    metavar="FILE",
    help="The project file.  [default: pccpipe.yaml beside the pipeline, else in this folder or the nearest above]",
)
project_of_run_option = click.option(
    "--project", type=FILE, metavar="FILE", help="The project file.  [default: the one that the run began with]"
)
local_option = click.option(
    "--local", is_flag=True, help="Run everything on this machine, whatever a project file says."
)
input_option = click.option(
    "--input", "given", multiple=True, metavar="NAME=VALUE", help="An input of the pipeline. May be repeated."
)
runs_dir_option = click.option(
    "--runs-dir",
    type=FILE,
    metavar="DIR",
    default=Path(RUNS),
    show_default=True,
    help="The folder with the records of runs.",
)
no_fallback_option = click.option(
    "--no-fallback", is_flag=True, help="Never run a step with less isolation than it asks for."
)

accept_fallback_option = click.option(
    "--accept-fallback",
    "accepted",
    multiple=True,
    metavar="STEP",
    help="Let this step fall back even after an agent's code may have run. May be repeated.",
)


wait_option = click.option(
    "--wait", metavar="DURATION", default="0s", help="How long to wait while another run holds the VM: 10m, 1h30m."
)
host_key_option = click.option(
    "--accept-new-host-key", is_flag=True, help="Accept the VM's host key if known_hosts has no key for the VM."
)
downgrade_option = click.option(
    "--fail-on-downgrade", is_flag=True, help="Exit with 4 if a step ran with less isolation than it asked for."
)
format_option = click.option(
    "--format",
    "output",
    type=click.Choice(Format, case_sensitive=False),
    default=Format.AUTO,
    help="auto: live on a terminal, else plain.",
)


policy_option = click.option(
    "--policy",
    type=FILE,
    metavar="FILE",
    help="The policy: what the pipeline and the project file may ask for.  [default: everything]",
)


def read_policy(file: Path | None) -> Policy | None:
    """Read the operator's policy, if one is named. Raises UsageError, SpecError."""
    from pccpipe.policy.file import load_policy

    return load_policy(file) if file else None


def which_project(
    named: Path | None,
    *,
    pipeline: Path | None = None,
    workspace: Path | None = None,
    local: bool = False,
    policy: Policy | None = None,
) -> Project | None:
    """Return the project of the named file, or else of a found one; None if there is none.

    Prints to stderr the files that it found and passed over. Raises UsageError, SpecError.

    Args:
        workspace: the workspace, if one was named.
        local: run everything on this machine.
        policy: what the file may ask for.
    """
    from pccpipe.policy.enforce import ProjectCheck
    from pccpipe.spec.project import load_project, local_project, run_locally
    from pccpipe.spec.search import find_project_file

    path = named
    if path is None:
        found = find_project_file(
            Path.cwd(), pipeline=pipeline, workspace=workspace, workspace_is_named=workspace is not None
        )
        path = found.path
        for words in found.passed_over:
            print(f"pccpipe: {words}", file=sys.stderr)
    if path is None:
        return local_project(_name_of_this_folder()) if local else None
    project = load_project(path, check=ProjectCheck(policy) if policy else None)
    return run_locally(project) if local else project


def project_here(named: Path | None) -> Project:
    """Return the project of a command without a pipeline; without a file, it runs everything on this machine."""
    from pccpipe.outcome import IsolationMode
    from pccpipe.spec.project_model import Project

    return which_project(named) or Project(_name_of_this_folder(), IsolationMode.LOCAL)


def project_for(pipeline: Pipeline, found: Project | None) -> Project:
    """Return the project of a run. Raises UsageError if there is none but the pipeline needs one."""
    from pccpipe.outcome import IsolationMode
    from pccpipe.spec.project_model import Project
    from pccpipe.spec.search import refuse_without_project

    if found is None:
        refuse_without_project(pipeline)
    return found or Project(_name_of_this_folder(), IsolationMode.LOCAL)


def _name_of_this_folder() -> str:
    return Path.cwd().name or "project"


def read_duration(text: str, option: str) -> float:
    """Read a duration such as `10m`, in seconds. Raises UsageError."""
    from pccpipe.spec.units import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def read_inputs(given: Sequence[str]) -> dict[str, Json]:
    """Read the values of --input; a list may be given value by value. Raises UsageError."""
    from pccpipe.spec.inputs import Repeated

    values: dict[str, Json] = {}
    for word in given:
        for name, value in read_values([word], "--input ", "--input test='npm test'").items():
            earlier = values.get(name)
            again = earlier if isinstance(earlier, list) else [earlier]
            values[name] = value if name not in values else Repeated([*again, value])
    return values


def read_values(given: Sequence[str], option: str, example: str) -> dict[str, str]:
    """Read words of the form `NAME=VALUE`. Raises UsageError."""
    values: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{option}{word!r} is not NAME=VALUE", f"for example {example}")
        if name in values:
            raise UsageError(f"{option}{name} is given twice")
        values[name] = value
    return values


def record_of(runs_dir: Path, run_id: str) -> Path:
    """Return the folder of a recorded run. Raises UsageError with the nearest run's id."""
    from pccpipe.record.fence import refuse_links

    folder = runs_dir / run_id
    refuse_links(Path.cwd(), runs_dir.absolute())
    if "/" not in run_id and run_id not in {"", ".", ".."} and (folder / EVENTS).is_file():
        return folder
    from pccpipe.spec.problem import did_you_mean

    known = sorted(path.parent.name for path in runs_dir.glob(f"*/{EVENTS}"))
    raise UsageError(f"there is no run {run_id!r} in {runs_dir}", did_you_mean(run_id, known))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        print(line)
