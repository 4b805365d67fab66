"""`pccpipe run`: runs a pipeline, shows it, and exits with the run's status."""

from __future__ import annotations

import signal
import sys
import threading
import time
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from pccpipe.cli.options import DEFAULT_RUNS_DIR, Inputs, PipelineFile, ProjectFile, RunsDir, read_inputs

if TYPE_CHECKING:
    from pccpipe.engine.cancel import Cancel
    from pccpipe.record.events import Event

DOWNGRADED = 4
"""The exit status of a downgraded success, with --fail-on-downgrade."""


class Format(StrEnum):
    AUTO = "auto"
    LIVE = "live"
    PLAIN = "plain"
    JSONL = "jsonl"


class View(Protocol):
    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


def command(
    pipeline: PipelineFile,
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="ID", help="New for each run. Default: made from the time.")
    ] = None,
    project: ProjectFile = None,
    workspace: Annotated[Path, typer.Option("--workspace", metavar="DIR", help="The code to work on.")] = Path(),
    given: Inputs = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    format: Annotated[Format, typer.Option("--format", help="auto: live on a terminal, else plain.")] = Format.AUTO,  # noqa: A002
    no_fallback: Annotated[
        bool, typer.Option("--no-fallback", help="Never run a step with less isolation than it asks for.")
    ] = False,
    fail_on_downgrade: Annotated[
        bool, typer.Option("--fail-on-downgrade", help="Exit with 4 if a step ran with less isolation than asked for.")
    ] = False,
    accept_new_host_key: Annotated[
        bool, typer.Option("--accept-new-host-key", help="Take the host key of a VM that known_hosts does not know.")
    ] = False,
) -> None:
    """Run a pipeline. Ctrl-C ends it: the steps under `always:` still run; a second Ctrl-C is less patient."""
    from pccpipe.engine.cancel import Cancel
    from pccpipe.library import Fallback, load, load_project
    from pccpipe.library import run as run_pipeline

    run_id = run_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{threading.get_native_id() % 10000:04d}"
    cancel = Cancel()
    spec = load(pipeline)
    of_project = load_project(project)
    view = _view(format, runs_dir / run_id)
    _obey_signals(cancel)
    try:
        result = run_pipeline(
            spec,
            run_id=run_id,
            project=of_project,
            workspace=workspace,
            inputs=dict(read_inputs(given or [])),
            runs_dir=runs_dir,
            fallback=Fallback.FORBIDDEN if no_fallback else Fallback.ALLOWED,
            on_event=view,
            cancel=cancel,
            accept_new_host_key=accept_new_host_key,
        )
    finally:
        view.close()
    if fail_on_downgrade and result.downgraded and result.exit_status == 0:
        raise typer.Exit(DOWNGRADED)
    raise typer.Exit(result.exit_status)


def _view(format_: Format, record: Path) -> View:
    if format_ is Format.AUTO:
        format_ = Format.LIVE if sys.stdout.isatty() else Format.PLAIN
    match format_:
        case Format.LIVE:
            from pccpipe.views.live import LiveView

            return LiveView(sys.stdout, record)
        case Format.JSONL:
            from pccpipe.views.jsonl import JsonLinesView

            return JsonLinesView(sys.stdout.buffer)
        case _:
            from pccpipe.views.plain import PlainView

            return PlainView(sys.stdout, record)


def _obey_signals(cancel: Cancel) -> None:
    """The first INT, TERM or HUP cancels, a second one cuts the grace."""

    def obey(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        # In a thread, for the handler interrupts the main one wherever it is, locks and all.
        name = signal.Signals(number).name.removeprefix("SIG")
        act = cancel.hurry if cancel.requested else lambda: cancel.request(name)
        threading.Thread(target=act, name="pccpipe-cancel", daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, obey)
