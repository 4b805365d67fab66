"""`pccpipe schema`: prints the published JSON Schemas."""

from __future__ import annotations

import click

NAMES = (
    "pipeline",
    "project",
    "agent",
    "policy",
    "prices",
    "test",
    "event",
    "run",
    "builder-result",
    "reviewer-result",
)


@click.command()
@click.argument("name", type=click.Choice(NAMES), default="pipeline", metavar="[NAME]")
@click.option("--print", is_flag=True, expose_value=False, help="Print the schema; the default.")
def schema(name: str) -> None:
    """Print a JSON Schema, for an editor.

    NAME is one of pipeline (the default), project, policy, prices, test, event, run, builder-result,
    reviewer-result.
    """
    from pccpipe.data_files import schema_text

    print(schema_text(name), end="")
