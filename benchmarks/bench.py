"""Pipelines and commands to measure, on one VM of the test bed."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measure import Usage, run
from tests.testbed.vm import VM

SECRETS = {f"SECRET_{number}": f"sk-{number:02}-{'qwertyuiopasdfghjklzxcvbnm'[number % 9 :]}" for number in range(20)}
OUTPUT_LINE = "some line of output that a test has written"


class Bench:
    """Makes pipelines and runs them with the command, each time as a new process and a new run.

    Args:
        program: the `pccpipe` to measure.
    """

    def __init__(self, vm: VM, folder: Path, program: str) -> None:
        self.vm = vm
        self.folder = folder
        self.program = program
        self._numbers = itertools.count(1)
        self._project = folder / "project.yaml"
        self._project.write_text(
            f"id: bench\nisolation_mode: vm\nvm:\n  external_ip: {vm.host}\n  user: {vm.user}\n"
            f"  key_path: {vm.key}\n  known_hosts: {vm.known_hosts}\n"
        )
        self.workspace = folder / "workspace"
        self.workspace.mkdir(exist_ok=True)

    def pipeline(self, name: str, steps: Sequence[str], *, secrets: Sequence[str] = ()) -> Path:
        """Write a pipeline of these steps, each a YAML flow mapping."""
        path = self.folder / f"{name}.yaml"
        declared = "".join(f"  {secret}: {{from: env}}\n" for secret in secrets)
        head = "version: 1\nname: bench\ncontainers: {box: {image: 'bb:latest', network: none}}\n"
        path.write_text(
            head
            + (f"secrets:\n{declared}" if secrets else "")
            + "steps:\n"
            + "".join(f"  - {step}\n" for step in steps)
        )
        return path

    def steps(self, on: str, count: int) -> Path:
        """Write a pipeline with `count` steps of `true`."""
        container = "container: box, " if on == "container" else ""
        steps = [f'{{id: s{number}, on: {on}, {container}run: "true"}}' for number in range(count)]
        return self.pipeline(f"{on}-{count}", steps)

    def output(self, on: str, megabytes: int, secrets: Sequence[str]) -> Path:
        """Write a pipeline with one step that prints `megabytes`, in lines."""
        container = "container: box, " if on == "container" else ""
        script = f"yes '{OUTPUT_LINE}' | head -c {megabytes}000000"
        step = f'{{id: s, on: {on}, {container}log_limit: 2g, secrets: [{", ".join(secrets)}], run: "{script}"}}'
        return self.pipeline(f"output-{on}-{megabytes}-{len(secrets)}", [step], secrets=secrets)

    def run(self, pipeline: Path) -> Usage:
        """Run a whole `pccpipe run`, from Python's start to its end."""
        argv = [self.program, "run", str(pipeline), "--run-id", f"bench{next(self._numbers)}-{os.getpid()}"]
        argv += ["--project", str(self._project), "--workspace", str(self.workspace)]
        return run([*argv, "--runs-dir", str(self.folder / "runs")], SECRETS)

    def wall(self, pipeline: Path) -> Callable[[], float]:
        return lambda: self.run(pipeline).wall


def own_program() -> str:
    """Return the `pccpipe` of this environment."""
    return str(Path(sys.executable).with_name("pccpipe"))
