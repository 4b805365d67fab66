"""`pccpipe help` and `pccpipe version`, which people type before they know the options."""

from __future__ import annotations

import click

from pccpipe.errors import UsageError
from pccpipe.version import __version__


@click.command(name="help")
@click.argument("name", required=False, metavar="COMMAND")
@click.pass_context
def help_(context: click.Context, name: str | None) -> None:
    """List the commands, or explain one: pccpipe help run."""
    app = context.parent
    assert app is not None
    assert isinstance(app.command, click.Group)
    if name is None:
        print(app.get_help())
        return
    command = app.command.get_command(app, name)
    if command is None:
        from pccpipe.spec.problem import did_you_mean

        raise UsageError(f"there is no command {name!r}", did_you_mean(name, app.command.list_commands(app)))
    print(command.get_help(click.Context(command, info_name=name, parent=app)))


@click.command()
def version() -> None:
    """Print the version."""
    print(f"pccpipe {__version__}")
