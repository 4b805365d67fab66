"""`pccpipe help` and `pccpipe version`, which people type before they know of the options."""

from __future__ import annotations

import click

from pccpipe.errors import UsageError
from pccpipe.version import __version__


@click.command(name="help")
@click.argument("name", required=False, metavar="COMMAND")
@click.pass_context
def help_(context: click.Context, name: str | None) -> None:
    """List the commands, or explain one: pccpipe help run."""
    above = context.parent
    assert above is not None
    assert isinstance(above.command, click.Group)
    if name is None:
        print(above.get_help())
        return
    command = above.command.get_command(above, name)
    if command is None:
        from pccpipe.spec.problem import did_you_mean

        raise UsageError(f"there is no command {name!r}", did_you_mean(name, above.command.list_commands(above)))
    print(command.get_help(click.Context(command, info_name=name, parent=above)))


@click.command()
def version() -> None:
    """Print the version."""
    print(f"pccpipe {__version__}")
