"""Play one run through every phase, struck by a fault in each, and collect what it left."""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import pccpipe
from pccpipe.api import RunResult
from pccpipe.detached.ended import TRUNCATED
from pccpipe.detached.programs import RunDir
from pccpipe.outcome import IsolationMode, Outcome, Reason
from pccpipe.spec.project_model import Project
from tests.faults.faults import Phase, Striker
from tests.targets.conftest import vm_spec
from tests.testbed.vm import VM

LIMIT = 80.0
"""The longest time of any run, in seconds."""
LINES = 2000
PAYLOAD_MB = 32

COUNT = "mkdir -p counts; echo {step} >>counts/{step}"
TICK = f"""i=0; while [ $i -lt {LINES} ]; do
      i=$((i+1)); echo "out $i"; echo "err $i" >&2; [ $((i % 20)) -ne 0 ] || sleep 0.02
      done"""
PIPELINE = f"""\
version: 1
name: struck
containers:
  bb: {{image: "bb:latest", network: none}}
steps:
  - id: hello
    on: vm
    run: {COUNT.format(step="hello")}
    retry: {{attempts: 4, backoff: 500ms, on: [unavailable]}}
    continue_on_error: true
  - id: sync
    upload: workspace
    exclude: [counts/]
    retry: {{attempts: 4, backoff: 500ms, on: [unavailable]}}
    continue_on_error: true
  - id: ticks
    on: vm
    run: |
      {COUNT.format(step="ticks")}
      {TICK}
    continue_on_error: true
  - id: make
    on: container
    container: bb
    run: {COUNT.format(step="make")}
    continue_on_error: true
  - id: box
    on: container
    container: bb
    run: |
      {COUNT.format(step="box")}
      {TICK}
    fallback: {{on: local}}
    continue_on_error: true
  - id: collect
    download: [payload.bin]
    retry: {{attempts: 4, backoff: 500ms, on: [unavailable]}}
    continue_on_error: true
  - id: late
    on: container
    container: bb
    run: {COUNT.format(step="late")}
    continue_on_error: true
always:
  - id: tidy
    remove: workspace
    retry: {{attempts: 4, backoff: 500ms, on: [unavailable]}}
"""


WHOLE, PART, NONE = "whole", "part", "none"

MAKE = f"""\
version: 1
name: make
containers:
  bb: {{image: "bb:latest", network: none}}
steps:
  - {{id: sync, upload: workspace}}
  - {{id: make, on: container, container: bb, run: "{COUNT.format(step="make")}"}}
always:
  - {{id: tidy, remove: workspace}}
"""
"""A pipeline with one container and nothing else."""


@dataclass(frozen=True)
class PhaseResult:
    """The result of a phase. `ran` and `log` are None if its step is not a command, or writes no log."""

    outcome: Outcome | None
    reason: Reason | None
    ran: int | None
    log: str | None
    message: str


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended."""

    result: RunResult
    ran: dict[str, int]
    """The number of times that each step's command ran."""
    brought: bool
    """Whether the downloaded file is the uploaded one."""
    left: list[str]
    """Leftovers of the run on the VM."""

    def of(self, phase: Phase) -> PhaseResult:
        step = self.result.state.step(phase)
        is_command = phase not in (Phase.UPLOAD, Phase.DOWNLOAD)
        ran = self.ran.get(phase, 0) if is_command else None
        return PhaseResult(step.outcome, step.reason, ran, self._log(phase), step.message)

    def _log(self, phase: Phase) -> str | None:
        attempt = self.result.state.step(phase).attempts[-1:]
        if phase not in (Phase.VM_STEP, Phase.CONTAINER_STEP):
            return None
        if not attempt or not attempt[0].started:
            return NONE
        stdout = _how_much(self.result.record / attempt[0].started.stdout, b"out")
        stderr = _how_much(self.result.record / attempt[0].started.stderr, b"err")
        return stdout if stdout == stderr else f"stdout {stdout}, stderr {stderr}"


def _how_much(log: Path, word: bytes) -> str:
    got = log.read_bytes().removesuffix(TRUNCATED)
    wrote = b"".join(b"%s %d\n" % (word, i) for i in range(1, LINES + 1))
    if got == wrote:
        return WHOLE
    return PART if got and wrote.startswith(got) else f"wrong: {len(got)} of {len(wrote)} bytes"


def play(striker: Striker, folder: Path, pipeline: str = PIPELINE) -> EndedRun:
    """Run a pipeline while a fault strikes it. Fail if it does not end within `LIMIT`."""
    run_id = uuid.uuid4().hex[:12]
    workspace, runs = folder / "workspace", folder / ".system" / "runs"
    workspace.mkdir()
    payload = os.urandom(PAYLOAD_MB << 20)
    (workspace / "payload.bin").write_bytes(payload)
    path = folder / "pipeline.yaml"
    path.write_text(pipeline)
    loaded = pccpipe.load(path)
    project = Project("p", IsolationMode.VM, vm_spec(striker.vm))
    striker.record = runs / run_id
    ended: list[RunResult] = []

    def run() -> None:
        try:
            ended.append(
                pccpipe.run(
                    loaded, run_id=run_id, project=project, workspace=workspace, runs_dir=runs, on_event=striker
                )
            )
        except BaseException as error:  # noqa: BLE001 - in a thread: the test raises it
            striker.errors.append(error)

    striker.connect()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT)
    striker.over()
    assert not thread.is_alive(), f"the run did not end within {LIMIT:g} s"
    for error in striker.errors:
        raise error
    assert not striker.missed()
    (result,) = ended
    artifact = result.record / "artifacts/payload.bin"
    brought = artifact.exists() and artifact.read_bytes() == payload
    return EndedRun(result, striker.ran, brought, leftovers(striker.vm, run_id))


def leftovers(vm: VM, run_id: str) -> list[str]:
    """Return a run's leftovers on a VM: containers, processes, folders."""
    state = f"{vm.root}/.system/run-state/{run_id}"
    tag = f"PCCPIPE_STEP={RunDir(run_id, state).tag}/"
    script = f"""
        docker ps -a --filter label=pccpipe.run={run_id} --format 'container {{{{.Names}}}} {{{{.Status}}}}'
        for path in $(grep -lF {tag} /proc/[0-9]*/environ 2>/dev/null); do
          echo "process $(tr '\\0' ' ' <${{path%environ}}cmdline)"
        done
        ls -d {state} {vm.root}/.system/run-workspaces/{run_id} 2>/dev/null || true"""
    return vm.sh(script).stdout.splitlines()
