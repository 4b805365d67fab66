"""Plays a case: a scripted model here, and the run in a process of its own, which a fault may kill."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from pccpipe.api import answer, load, load_project
from pccpipe.errors import PccpipeError, UsageError
from pccpipe.outcome import IsolationMode
from pccpipe.record.state import WAITING, WAITING_FOR_MODEL, RunState, load_state
from pccpipe.records import delete_run, record_of
from pccpipe.scripted.case import FaultKind, ScriptedCase
from pccpipe.scripted.controller import ControllerJob
from pccpipe.scripted.expect import differences
from pccpipe.scripted.script import Script, id_of
from pccpipe.scripted.server import ScriptedServer
from pccpipe.spec.model import Pipeline, Run
from pccpipe.spec.secret import Via

END_LIMIT = 60.0
"""Seconds that a cancelled run may take to end."""
_STDERR = 2000
"""The most characters that are shown of what the run's process says."""


class CaseResult(Struct, frozen=True):
    """The end of a case. `differences` has a sentence for each expectation that does not hold; none if it passed."""

    name: str
    run_id: str
    seconds: float
    differences: tuple[str, ...]
    state: RunState | None
    """None if the run did not begin. Its record stays only if the case failed."""


def play(case: ScriptedCase, runs_dir: Path) -> CaseResult:
    """Run a case to its end, and compare. Raises UsageError."""
    pipeline = load(case.pipeline)
    began = time.monotonic()
    run_id, key = f"test-{secrets.token_hex(4)}", f"sk-scripted-{secrets.token_hex(16)}"
    script = Script(case.script)
    try:
        folder = Path(tempfile.mkdtemp(prefix="pccpipe-test-"))
    except OSError as error:
        raise UsageError(f"cannot make a folder for the case's workspace: {error}") from error
    try:
        try:
            with ScriptedServer(script.choose, key=key) as model:
                job = ControllerJob(
                    run_id=run_id,
                    runs_dir=str(runs_dir.absolute()),
                    resumes=False,
                    pipeline=str(case.pipeline),
                    project=str(case.project) if case.project else None,
                    workspace=str(_workspace(case, folder)),
                    inputs=case.inputs,
                    secrets=dict.fromkeys(pipeline.secrets, key),
                    upstreams={
                        name: f"{model.url}/{{step}}/{{attempt}}"
                        for name, secret in pipeline.secrets.items()
                        if secret.via is Via.PROXY
                    },
                    wait=case.timeout,
                    faults=case.faults,
                    fired=str(folder / "fired"),
                )
                said = _run_to_its_end(case, job, folder, began + case.timeout)
        except PccpipeError as error:
            # Its workspace, or an answer of it: the other cases go on.
            said = [f"it did not run to its end: {error}"]
        state = _state(run_id, runs_dir)
        found = tuple(said) or differences(case.expect, state, script, runs_dir / run_id)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if state and not found:
        delete_run(run_id, runs_dir=runs_dir, force=True)
    return CaseResult(case.name, run_id, time.monotonic() - began, found, state)


def check(case: ScriptedCase) -> None:
    """Raise UsageError for a case that cannot run, or a step whose calls of the model cannot be led to the script."""
    if isinstance(case.workspace, Path) and not case.workspace.is_dir():
        raise UsageError(f"case {case.name!r}: the workspace {case.workspace} is not a folder")
    for name in () if isinstance(case.workspace, Path) else case.workspace:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UsageError(f"case {case.name!r}: the workspace's file {name!r} lies outside of it")
    pipeline, scripted = load(case.pipeline), {id_of(name) for name in case.script}
    for step in pipeline.all_steps():
        if step.id in scripted and isinstance(step.body, Run):
            _check_step(case, pipeline, step.id, step.body)


def _check_step(case: ScriptedCase, pipeline: Pipeline, name: str, body: Run) -> None:
    where, agents = f"case {case.name!r}: step {name}", body.agent.agents if body.agent else ()
    keys = (
        [agent.secret for agent in agents] or [key for key in body.secrets if pipeline.secrets[key].upstream] or [None]
    )
    for key in keys:
        if key is None or pipeline.secrets[key].via is not Via.PROXY:
            hint = "give its key `via: proxy`: the calls of a step that has the key itself go past the script"
            raise UsageError(
                f"{where} has no secret with `via: proxy`" if key is None else f"{where}: {key} is not `via: proxy`",
                hint,
            )
    project = load_project(case.project) if case.project else None
    for agent in agents if project is None or project.isolation_mode is IsolationMode.LOCAL else ():
        if shutil.which(agent.description.program) is None:
            hint = "install it, or run the case where a runner image has it: --project FILE"
            raise UsageError(
                f"{where}: the program `{agent.description.program}` is not installed on this machine", hint
            )


def _workspace(case: ScriptedCase, folder: Path) -> Path:
    """Make the case's own copy of its workspace. Raises UsageError."""
    made = folder / "workspace"
    try:
        return _copied(case, made)
    except (OSError, ValueError, shutil.Error) as error:
        raise UsageError(f"cannot make the workspace: {error}") from error


def _copied(case: ScriptedCase, made: Path) -> Path:
    if isinstance(case.workspace, Path):
        shutil.copytree(case.workspace, made, symlinks=True)
        return made
    made.mkdir()
    for name, text in case.workspace.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return made


def _run_to_its_end(case: ScriptedCase, job: ControllerJob, folder: Path, until: float) -> Collection[str]:
    """Run the job, resume it after each kill and each answer; return problems that end the case."""
    runs_dir, answers, resumes = Path(job.runs_dir), dict(case.answers), case.resumes
    while True:
        status, words = _in_a_process(job, case.folder, folder / "stderr", until)
        if status is None:
            return [f"it was not over after {case.timeout:g} s, and was cancelled"]
        fired = (folder / "fired").read_text().splitlines() if (folder / "fired").exists() else []
        left = tuple(fault for fault in case.faults if fault.name not in fired)
        state = _state(job.run_id, runs_dir)
        if status == -signal.SIGKILL and fired and fired[-1].startswith(FaultKind.KILL_CONTROLLER.value):
            if state is None:
                return ["it was killed before its record began"]
        elif state and state.status == WAITING and (asked := _given(state, answers)):
            answer(job.run_id, asked, runs_dir=runs_dir)
            answers = {key: value for key, value in answers.items() if key not in asked}
        elif state and state.status == WAITING_FOR_MODEL and resumes:
            resumes -= 1
        elif status or state is None:
            return [f"it did not run: {words or f'its process ended with {status}'}"]
        else:
            return [f"the fault {fault.name} did not come" for fault in left]
        job = msgspec.structs.replace(job, resumes=True, faults=left)


def _given(state: RunState, answers: Mapping[str, str]) -> dict[str, str]:
    """Return the answers that the run waits for."""
    missing = {key for question in state.open_questions for key in question.missing}
    return {key: value for key, value in answers.items() if key in missing}


def _in_a_process(job: ControllerJob, cwd: Path, stderr: Path, until: float) -> tuple[int | None, str]:
    """Run the job in a process of its own; return its exit status, None at the time limit, and its message."""
    with stderr.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pccpipe.scripted.controller"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=cwd,
            start_new_session=True,
        )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(msgspec.json.encode(job), timeout=max(0.1, until - time.monotonic()))
            return process.returncode, stderr.read_text(errors="replace").strip()[-_STDERR:]
        return None, ""
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_LIMIT)
            process.kill()
            process.wait()


def _state(run_id: str, runs_dir: Path) -> RunState | None:
    """Return the state of a run; None if it has no record."""
    try:
        return load_state(record_of(run_id, runs_dir=runs_dir))
    except PccpipeError:
        return None
