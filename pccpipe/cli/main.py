"""`pccpipe`: one word a command; the one door where errors become a message and an exit status."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated

import typer

from pccpipe.version import __version__

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The two most useful: `pccpipe plan PIPELINE` says what would run where, `pccpipe run PIPELINE` runs it.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pccpipe {__version__}")
        raise typer.Exit


@app.callback()
def pccpipe(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run AI coding agents as YAML pipelines: on a VM, in containers on it, or here."""


def main() -> None:
    """The entry point. Known errors are one message on stderr; an unknown one leaves its traceback in a file."""
    from pccpipe.cli import commands
    from pccpipe.errors import PccpipeError, SpecError, UsageError

    commands.register(app)
    try:
        app()
    except SpecError as error:
        count = len(error.problems)
        _fail(f"{error}\n{count} problem{'s' if count > 1 else ''}", 2)
    except UsageError as error:
        _fail(f"pccpipe: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), 2)
    except PccpipeError as error:
        _fail(f"pccpipe: {error}", 1)
    except BrokenPipeError:
        # Whoever read our output has had enough; Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 - the outermost door
        _fail(f"pccpipe: an error of pccpipe's own: {type(error).__name__}: {error}\nThe traceback is in {_kept()}", 70)


def _fail(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)


def _kept() -> Path:
    """The traceback of the error at hand, in a file."""
    fd, name = tempfile.mkstemp(prefix="pccpipe-traceback-", suffix=".txt")
    with os.fdopen(fd, "w") as file:
        traceback.print_exc(file=file)
    return Path(name)
