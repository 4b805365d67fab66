"""Run the default pipeline on the example project: on a VM of the test bed, or locally without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbed import cleanup, images, machine
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / ".demo"
KEY = "sk-demo-the-scripted-model-takes-this-one"


def main() -> int:
    """Run it, and return the run's exit status."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    missing = machine.lacks()
    if missing:
        print("No test-bed VM on this machine:", *missing, "The run uses this machine instead.", sep="\n  ", flush=True)
        return without_vm()
    return on_vm()


def on_vm() -> int:
    """Run it on a VM, with the agents in containers there."""
    cleanup.sweep()
    images.ensure()
    with VM.up() as vm, scripted_model(vm.host_side) as model:
        project: dict[str, object] = {
            "id": "demo",
            "isolation_mode": "vm",
            "vm": {
                "external_ip": vm.host,
                "port": vm.port,
                "user": vm.user,
                "key_path": str(vm.key),
                "known_hosts": str(vm.known_hosts),
                "root": vm.root,
                "run_as": vm.run_as,
            },
        }
        return run(project, model, {})


def without_vm() -> int:
    """Run it without a VM: every step runs on this machine, Codex in its own sandbox."""
    codex = install_codex()
    project: dict[str, object] = {"id": "demo", "isolation_mode": "local"}
    with scripted_model("127.0.0.1") as model:
        return run(project, model, {"PATH": f"{codex}{os.pathsep}{os.environ['PATH']}"})


def install_codex() -> Path:
    """Return the folder of a `codex` in the version of docker/Dockerfile.pcc-runner; install it if it is missing."""
    pinned = next(
        line.partition("=")[2].strip()
        for line in (ROOT / "docker/Dockerfile.pcc-runner").read_text().splitlines()
        if line.startswith("ARG CODEX_VERSION=")
    )
    npm = shutil.which("npm")
    if npm is None:
        sys.exit(
            "Without a VM the agent runs on this machine, and Codex is installed by npm: install Node.js 20 first."
        )
    tools = ROOT / ".demo-codex"
    subprocess.run([npm, "install", "--silent", "--prefix", tools, f"@openai/codex@{pinned}"], check=True)
    return tools / "node_modules" / ".bin"


@contextmanager
def scripted_model(address: str) -> Iterator[ModelServer]:
    server = ModelServer(address, key=KEY, scenario=json.loads((HERE / "scenario.json").read_text()))
    try:
        yield server
    finally:
        server.close()


def run(project: dict[str, object], model: ModelServer, environment: dict[str, str]) -> int:
    """Run `pccpipe run`, as a user would."""
    project_file = WORK / "pccpipe.yaml"
    project_file.write_text(json.dumps(project, indent=1) + "\n")
    command = [
        *(str(Path(sys.executable).with_name("pccpipe")), "run", str(ROOT / "pipelines/default-run.yaml")),
        *("--run-id", "demo", "--project", str(project_file), "--workspace", str(HERE / "project")),
        *("--runs-dir", str(WORK / "runs"), "--input", f"work_order={HERE / 'work-order.md'}"),
        *("--input", "test=sh test.sh", "--input", f"endpoint={model.url}/v1"),
    ]
    print("$", " ".join(command), flush=True)
    ended = subprocess.run(command, env={**os.environ, **environment, "OPENAI_API_KEY": KEY}, check=False)
    patch = WORK / "runs" / "demo" / "diff.patch"
    if patch.exists():
        print(f"\n{patch.relative_to(ROOT)}:\n{patch.read_text()}")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
