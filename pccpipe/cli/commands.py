"""The list of commands: each a module that defines `command`, and loads what is heavy when it is called."""

from __future__ import annotations

import typer

from pccpipe.cli import logs, plan, run, runs, schema, show, validate


def register(app: typer.Typer) -> None:
    """Add every command to the app."""
    for module in (run, validate, plan, runs, show, logs, schema):
        app.command(module.__name__.rpartition(".")[2])(module.command)
