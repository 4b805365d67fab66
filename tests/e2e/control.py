"""Run the command as a user does, and read the record that it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fake_mac import FakeMac
from tests.testbed.vm import VM

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
KEY = "sk-test-6f1d0c4b2a9e4d57"


@dataclass(frozen=True)
class Ran:
    """A finished `pccpipe run`."""

    code: int
    stdout: str
    stderr: str
    record: Path

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.record / "run.json").read_text())
        return state

    def step(self, path: str) -> dict[str, Any]:
        found = [step for step in self.state["steps"] if step["path"] == path]
        assert len(found) == 1, (path, [step["path"] for step in self.state["steps"]])
        step: dict[str, Any] = found[0]
        return step

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.record / "events.jsonl").read_text().splitlines()]

    @property
    def lines(self) -> list[str]:
        """Return the lines of the journal."""
        return (self.record / "events.jsonl").read_text().splitlines()

    def log(self, path: str, stream: str = "stdout") -> str:
        """Return the whole log of a step's last attempt."""
        name: str = self.step(path)["attempts"][-1][stream]
        return (self.record / name).read_text()


@dataclass
class Control:
    """A control centre's folder: a workspace, a project file, the runs."""

    folder: Path
    vm: VM | None = None
    env: dict[str, str] = field(default_factory=lambda: {"OPENAI_API_KEY": KEY})
    mode: str = "local"
    """The isolation mode of a project without a VM."""
    run_as: bool = False
    """Whether code on the VM runs as the account of the test bed's VMs."""
    settings: str = ""
    """More lines of the project file."""
    count: int = 0
    mac: FakeMac | None = None
    """The controller that its commands run on, if not this machine."""

    @property
    def workspace(self) -> Path:
        folder = self.folder / "workspace"
        folder.mkdir(exist_ok=True)
        return folder

    def project_file(self) -> Path:
        path = self.folder / "project.yaml"
        if self.vm is None:
            path.write_text(f"id: p\nisolation_mode: {self.mode}\n{self.settings}")
        else:
            path.write_text(
                f"id: p\nisolation_mode: vm\n{self.settings}"
                f"vm:\n  external_ip: {self.vm.host}\n  user: {self.vm.user}\n"
                f"  key_path: {self.vm.key}\n  known_hosts: {self.vm.known_hosts}\n  root: {self.vm.root}\n"
                + (f"  run_as: {self.vm.run_as}\n" if self.run_as else "")
            )
        return path

    def command(self, pipeline: str | Path, *arguments: str, run_id: str | None = None) -> tuple[list[str], Path]:
        if isinstance(pipeline, str):
            path = self.folder / "pipeline.yaml"
            path.write_text("version: 1\nname: test\n" + textwrap.dedent(pipeline))
            pipeline = path
        self.count += 1
        run_id = run_id or f"run{self.count}-{os.urandom(4).hex()}"
        runs = self.folder / ".system" / "runs"
        argv = [
            *(sys.executable, "-m", "pccpipe", "run", str(pipeline), "--run-id", run_id),
            *("--project", str(self.project_file()), "--workspace", str(self.workspace)),
            *("--runs-dir", str(runs), *arguments),
        ]
        return argv, runs / run_id

    def start(
        self, pipeline: str | Path, *arguments: str, run_id: str | None = None
    ) -> tuple[subprocess.Popen[str], Path]:
        argv, record = self.command(pipeline, *arguments, run_id=run_id)
        process = subprocess.Popen(
            self._on_controller(argv),
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return process, record

    def do(self, command: str, *arguments: str, limit: float = 90) -> subprocess.CompletedProcess[str]:
        """Run another command on the runs of this control centre."""
        # selfcheck creates its own folder of runs.
        runs = () if command == "selfcheck" else ("--runs-dir", str(self.folder / ".system" / "runs"))
        return subprocess.run(
            self._on_controller([sys.executable, "-m", "pccpipe", command, *arguments, *runs]),
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )

    def _on_controller(self, argv: list[str]) -> list[str]:
        return self.mac.argv(argv) if self.mac else argv

    def _environment(self) -> dict[str, str]:
        mac = self.mac.env if self.mac else {}
        path = os.pathsep.join([*filter(None, [mac.get("PYTHONPATH")]), str(ROOT)])
        return {**os.environ, **mac, "PYTHONPATH": path, **self.env}

    def run(
        self,
        pipeline: str | Path,
        *arguments: str,
        run_id: str | None = None,
        meanwhile: Callable[[subprocess.Popen[str], Path], None] | None = None,
        limit: float = 90,
    ) -> Ran:
        """Run a pipeline to its end; call `meanwhile` once the run has begun."""
        process, record = self.start(pipeline, *arguments, run_id=run_id)
        try:
            if meanwhile:
                meanwhile(process, record)
            stdout, stderr = process.communicate(timeout=limit)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()
        assert "Traceback" not in stderr, stderr
        return Ran(process.returncode, stdout, stderr, record)


def wait_until(condition: Callable[[], object], limit: float = 30, pause: float = 0.05) -> None:
    """Wait until a condition is true, with a time limit."""
    until = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < until, "it did not become true in time"
        time.sleep(pause)


def happened(record: Path, text: str) -> bool:
    """Say whether the run's journal has the text already."""
    events = record / "events.jsonl"
    return events.exists() and text in events.read_text()


def containers(vm: VM, run_id: str = "") -> list[str]:
    """Return the names of all containers on a VM that pccpipe created, or of those of one run."""
    label = f"pccpipe.run={run_id}" if run_id else "pccpipe.run"
    return vm.sh(f"docker ps -a --filter label={label} --format '{{{{.Names}}}}'").stdout.split()
