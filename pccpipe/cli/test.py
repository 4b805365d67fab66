"""`pccpipe test`: runs pipelines against scripted models, and says which expectations do not hold."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pccpipe.cli.exit_status import FAILED
from pccpipe.cli.options import FILE, runs_dir_option
from pccpipe.cli.process import take_secrets
from pccpipe.layout import RUNS

if TYPE_CHECKING:
    from pccpipe.scripted.case import ScriptedCase
    from pccpipe.scripted.play import CaseResult

_NAME = 70
"""The most characters of a case's name before its time."""


@click.command()
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--case", "names", multiple=True, metavar="NAME", help="Run only this case. May be repeated.")
@click.option(
    "--project", type=FILE, metavar="FILE", help="The project file for all cases.  [default: each case's own]"
)
@runs_dir_option
@click.option("--junit", type=FILE, metavar="FILE", help="Write the results to this file, in JUnit's XML.")
@click.pass_context
def test(
    context: click.Context,
    *,
    files: Sequence[Path],
    names: Sequence[str],
    project: Path | None,
    runs_dir: Path,
    junit: Path | None,
) -> None:
    """Run pipelines with their real agents against scripted models, as test files say, and check what comes of it.

    It needs no key: the secrets have dummy values, and the proxy leads each call of a model to the script. The record
    of a failed case stays, for `pccpipe show`.

    Exit status: 0 all cases passed, 1 a case failed, 2 wrong usage or file.
    """
    from pccpipe.scripted.junit import junit as junit_text

    cases = chosen_cases(files, names, project)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Like Ctrl-C: it cancels the run of the case, and removes its workspace.
        signal.signal(number, lambda caught, _: sys.exit(128 + caught))
    width = min(_NAME, max((len(case.name) for case in cases), default=0))
    results = [_played(case, runs_dir, width) for case in cases]
    failed = sum(bool(result.differences) for result in results)
    print(f"{len(results)} case{'' if len(results) == 1 else 's'}, {failed} failed")
    if junit:
        _write(junit, junit_text(", ".join(map(str, files)), results))
    context.exit(FAILED if failed else 0)


def chosen_cases(files: Sequence[Path], names: Sequence[str], project: Path | None) -> list[ScriptedCase]:
    """Return the cases to run, all checked. Raises UsageError, SpecError."""
    from msgspec.structs import replace

    from pccpipe.api import load, load_project
    from pccpipe.errors import UsageError
    from pccpipe.scripted.case_file import load_cases
    from pccpipe.scripted.play import check
    from pccpipe.spec.problem import did_you_mean

    cases = [case for file in files for case in load_cases(file)]
    known = [case.name for case in cases]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no case {name!r}", did_you_mean(name, known))
    cases = [case for case in cases if not names or case.name in names]
    if project:
        cases = [replace(case, project=project.absolute()) for case in cases]
    for pipeline in {case.pipeline for case in cases}:
        # No agent finds the real keys in the environment of a process here.
        take_secrets(load(pipeline))
    for path in {case.project for case in cases if case.project}:
        load_project(path)
    for case in cases:
        check(case)
    return cases


def _played(case: ScriptedCase, runs_dir: Path, width: int) -> CaseResult:
    """Run a case, and print its line."""
    from pccpipe.scripted.play import play
    from pccpipe.views.text import harmless_line

    if sys.stdout.isatty():
        print(f"...     {harmless_line(case.name)}", end="\r", flush=True)
    result = play(case, runs_dir)
    word = "FAILED" if result.differences else "ok"
    print(f"{word:<7} {harmless_line(case.name):<{width}} {result.seconds:6.1f} s", flush=True)
    for words in result.differences:
        print(f"        {harmless_line(words)}")
    if result.differences and result.state:
        where = "" if runs_dir == Path(RUNS) else f" --runs-dir {shlex.quote(str(runs_dir))}"
        print(f"        next: pccpipe show {result.run_id}{where}", flush=True)
    return result


def _write(path: Path, data: bytes) -> None:
    from pccpipe.errors import UsageError

    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
