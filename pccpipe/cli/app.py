"""The list of commands: each a module that defines `command`, and loads what is heavy when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from pccpipe.cli import logs, plan, run, runs, schema, show, validate
from pccpipe.version import __version__

SHORT_HELP = """\
pccpipe runs AI coding agents as YAML pipelines: on a VM, in containers on it, or here.

  pccpipe plan PIPELINE    what would run where; connects to nothing
  pccpipe run PIPELINE     run it

All commands: pccpipe --help"""

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pccpipe {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def pccpipe(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run AI coding agents as YAML pipelines: on a VM, in containers on it, or here."""
    if context.invoked_subcommand is None:
        print(SHORT_HELP)
        raise typer.Exit(2)


for _module in (run, validate, plan, runs, show, logs, schema):
    app.command(_module.__name__.rpartition(".")[2])(_module.command)
