"""The list of commands. Each command is a module, which imports heavy modules only when it is called."""

from __future__ import annotations

import click

from pccpipe.cli.answer import answer
from pccpipe.cli.cancel import cancel
from pccpipe.cli.doctor import doctor
from pccpipe.cli.gc import gc
from pccpipe.cli.graph import graph
from pccpipe.cli.help import help_, version
from pccpipe.cli.init import init
from pccpipe.cli.logs import logs
from pccpipe.cli.plan import plan
from pccpipe.cli.provision import provision
from pccpipe.cli.resume import resume
from pccpipe.cli.rm import rm
from pccpipe.cli.run import run
from pccpipe.cli.runs import runs
from pccpipe.cli.schema import schema
from pccpipe.cli.selfcheck import selfcheck
from pccpipe.cli.show import show
from pccpipe.cli.test import test
from pccpipe.cli.validate import validate
from pccpipe.version import __version__

SHORT_HELP = """\
pccpipe runs AI coding agents as YAML pipelines: on a VM, in containers on it, or here.

  pccpipe plan PIPELINE    show what would run where; connects to nothing
  pccpipe run PIPELINE     run it

All commands: pccpipe --help"""


class InOrder(click.Group):
    """List the commands in the order in which they were added: the most used first."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        return list(self.commands)


@click.group(cls=InOrder, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="pccpipe %(version)s")
@click.pass_context
def app(context: click.Context) -> None:
    """Run AI coding agents as YAML pipelines: on a VM, in containers on it, or here."""
    if context.invoked_subcommand is None:
        print(SHORT_HELP)
        context.exit(2)


for _command in (
    run,
    resume,
    answer,
    cancel,
    gc,
    doctor,
    provision,
    selfcheck,
    validate,
    test,
    plan,
    graph,
    init,
    runs,
    show,
    logs,
    rm,
    schema,
    help_,
    version,
):
    app.add_command(_command)
