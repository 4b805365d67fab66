"""`pccpipe selfcheck`: searches everywhere for a canary secret, or tries the ways out of a step's isolation."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pccpipe.cli.exit_status import FAILED, UNAVAILABLE
from pccpipe.cli.options import (
    FILE,
    host_key_option,
    input_option,
    print_lines,
    project_for,
    project_option,
    read_duration,
    read_inputs,
    wait_option,
    which_project,
)
from pccpipe.cli.process import take_secrets
from pccpipe.cli.signals import obey_signals

if TYPE_CHECKING:
    from pccpipe.cancel import Cancel


@click.command()
@project_option
@click.option(
    "--pipeline",
    type=FILE,
    metavar="FILE",
    help="Run this pipeline, with the canary as each of its secrets.  [default: a built-in one]",
)
@input_option
@click.option("--workspace", type=FILE, metavar="DIR", help="The code for the pipeline.  [default: an empty folder]")
@wait_option
@click.option("--escape", is_flag=True, help="Try the ways out of containers and of the VM's account instead.")
@click.option("--strict", is_flag=True, help="Exit with 3 also if some place could not be searched completely.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@host_key_option
@click.pass_context
def selfcheck(
    context: click.Context,
    *,
    project: Path | None,
    pipeline: Path | None,
    given: Sequence[str],
    workspace: Path | None,
    wait: str,
    escape: bool,
    strict: bool,
    as_json: bool,
    accept_new_host_key: bool,
) -> None:
    """Give a canary secret to a real run, and search every place that must not have a secret.

    Searched while steps run and afterwards: arguments and environment of processes on this machine, on the VM and in
    containers, docker inspect, images, the engine's files, the VM's disk, the run's record, and the run's output. The
    check leaves nothing behind. It needs root on the VM (its user, or sudo without a password) to search everything.

    With --escape, steps in containers and on the VM try to escape: to the engine, the network, the login user, other
    runs, the verdict of a reviewer, and past their end. Each try has a line that says whether the isolation held. Of
    the other options, --input takes `image`. Exit status: 0 all that was tried held, 1 something did not.

    Exit status: 0 not found, 1 found, 2 wrong usage, 3 the run did not reach its end (no VM, no image), so the check is
    incomplete, 130 or 143 cancelled.
    """
    from pccpipe.api import load, local_project
    from pccpipe.canary.check import selfcheck as check
    from pccpipe.views.selfcheck import lines

    inputs, patience = read_inputs(given), read_duration(wait, "--wait")
    if escape:
        _refuse_beside_escape(pipeline=pipeline, workspace=workspace, strict=strict, others=set(inputs) - {"image"})
        image = str(inputs["image"]) if "image" in inputs else None
        _escape(context, project, image, patience, as_json=as_json, accept_new_host_key=accept_new_host_key)
        return
    spec = load(pipeline) if pipeline else None
    found = which_project(project, pipeline=spec.path if spec else None, workspace=workspace)
    of_project = project_for(spec, found) if spec else found or local_project()
    # The canary replaces the pipeline's own secrets, which its steps would inherit.
    take_secrets(spec)
    with _checking() as (cancel, status):
        report = check(
            of_project,
            pipeline=spec,
            inputs=inputs,
            workspace=workspace,
            on_progress=status,
            cancel=cancel,
            accept_new_host_key=accept_new_host_key,
            wait=patience,
        )
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        print_lines([of_project.title, *lines(report)])
    if report.found:
        context.exit(FAILED)
    _exit(context, cancel, is_complete=report.whole and not (strict and report.unlooked))


def _refuse_beside_escape(
    *, pipeline: Path | None, workspace: Path | None, strict: bool, others: Collection[str]
) -> None:
    options = {"--pipeline": pipeline, "--workspace": workspace, "--strict": strict}
    wrong = [name for name, value in options.items() if value] + [f"--input {name}" for name in sorted(others)]
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)} cannot be used with --escape, which has a pipeline of its own")


def _escape(
    context: click.Context,
    project: Path | None,
    image: str | None,
    wait: float,
    *,
    as_json: bool,
    accept_new_host_key: bool,
) -> None:
    from pccpipe.canary.escape import check_escape
    from pccpipe.canary.routes import RouteVerdict
    from pccpipe.errors import UsageError
    from pccpipe.views.escape import lines

    of_project = which_project(project)
    if of_project is None:
        raise UsageError("there is no project file, so there is no isolation to try", "name one: --project FILE")
    if not as_json:
        print_lines([of_project.title])
    with _checking() as (cancel, status):
        report = check_escape(
            of_project,
            image=image,
            on_progress=status,
            cancel=cancel,
            accept_new_host_key=accept_new_host_key,
            wait=wait,
        )
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        print_lines(lines(report))
    if report.count(RouteVerdict.BROKE):
        context.exit(FAILED)
    _exit(context, cancel, is_complete=report.held)


@contextlib.contextmanager
def _checking() -> Iterator[tuple[Cancel, _StatusLine]]:
    """Let signals cancel a check within the block, and show its progress."""
    from pccpipe.cancel import Cancel

    cancel, status = Cancel(), _StatusLine()
    obey_signals(cancel)
    try:
        yield cancel, status
    finally:
        status.close()


def _exit(context: click.Context, cancel: Cancel, *, is_complete: bool) -> None:
    """Exit with the status of a check that found nothing."""
    if cancel.requested:
        context.exit(143 if cancel.by == "TERM" else 130)
    context.exit(0 if is_complete else UNAVAILABLE)


class _StatusLine:
    """Show progress on a terminal, in one line that disappears again."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._on:
            from pccpipe.views.text import harmless_line, shorten

            print(f"\r\x1b[K{shorten(harmless_line(text), 78)}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
