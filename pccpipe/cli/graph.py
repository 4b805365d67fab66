"""`pccpipe graph`: draws a pipeline, as Mermaid or SVG."""

from __future__ import annotations

from pathlib import Path

import click

from pccpipe.cli.options import FILE, pipeline_argument, print_lines
from pccpipe.errors import UsageError


@click.command()
@pipeline_argument
@click.option(
    "--format",
    "output",
    type=click.Choice(("mermaid", "svg")),
    help="mermaid for pages, svg for people.  [default: by the ending of -o, else mermaid]",
)
@click.option("-o", "--output", "file", type=FILE, metavar="FILE", help="Write to this file.  [default: stdout]")
def graph(pipeline: Path, output: str | None, file: Path | None) -> None:
    """Draw a pipeline: its steps, groups, fallbacks, and the steps under `always:`.

    PIPELINE is a file, or the name of a built-in pipeline: default-run.
    """
    from pccpipe import api
    from pccpipe.views.graph import make_graph, mermaid
    from pccpipe.views.svg import svg

    drawn = make_graph(api.load(pipeline))
    as_svg = output == "svg" or (output is None and file is not None and file.suffix == ".svg")
    text = svg(drawn) if as_svg else mermaid(drawn)
    if file is None:
        print_lines(text.splitlines())
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from error
