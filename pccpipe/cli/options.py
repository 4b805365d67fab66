"""Options that several commands have, and what is read from them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

import click

from pccpipe.errors import UsageError
from pccpipe.values import Json

FILE = click.Path(path_type=Path)


class Format(StrEnum):
    """How a run is shown."""

    AUTO = "auto"
    LIVE = "live"
    PLAIN = "plain"
    JSONL = "jsonl"


pipeline_argument = click.argument("pipeline", type=FILE)
project_option = click.option(
    "--project",
    type=FILE,
    metavar="FILE",
    help="The project file.  [default: pccpipe.yaml here; without, all is local]",
)
input_option = click.option(
    "--input", "given", multiple=True, metavar="NAME=VALUE", help="An input of the pipeline. May be repeated."
)
runs_dir_option = click.option(
    "--runs-dir",
    type=FILE,
    metavar="DIR",
    default=Path(".system/runs"),
    show_default=True,
    help="Where the records of runs are.",
)
no_fallback_option = click.option(
    "--no-fallback", is_flag=True, help="Never run a step with less isolation than it asks for."
)

accept_fallback_option = click.option(
    "--accept-fallback",
    "accepted",
    multiple=True,
    metavar="STEP",
    help="Let this step fall back also after an agent's code may have run. May be repeated.",
)


wait_option = click.option(
    "--wait", metavar="DURATION", default="0s", help="How long to wait for a VM that is another run's: 10m, 1h30m."
)
format_option = click.option(
    "--format",
    "output",
    type=click.Choice(Format, case_sensitive=False),
    default=Format.AUTO,
    help="auto: live on a terminal, else plain.",
)


def read_duration(text: str, option: str) -> float:
    """`10m` as seconds. Raises UsageError."""
    from pccpipe.spec.units import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def read_inputs(given: Sequence[str]) -> dict[str, Json]:
    """The words behind --input as a mapping. Raises UsageError."""
    return dict(read_values(given, "--input ", "--input test='npm test'"))


def read_values(given: Sequence[str], option: str, example: str) -> dict[str, str]:
    """`NAME=VALUE` words as a mapping. Raises UsageError."""
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
    """The folder of a run that is on record. Raises UsageError naming the nearest."""
    from pccpipe.record.fence import refuse_links

    folder = runs_dir / run_id
    refuse_links(Path.cwd(), runs_dir.absolute())
    if "/" not in run_id and run_id not in {"", ".", ".."} and (folder / "events.jsonl").is_file():
        return folder
    from pccpipe.spec.problem import did_you_mean

    known = sorted(path.parent.name for path in runs_dir.glob("*/events.jsonl"))
    raise UsageError(f"there is no run {run_id!r} in {runs_dir}", did_you_mean(run_id, known))


def tell(lines: Iterable[str]) -> None:
    """Print lines, also where the terminal's encoding lacks a character."""
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        print(line.encode(encoding, "backslashreplace").decode(encoding))
