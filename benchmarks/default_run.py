"""Measure pccpipe's own part of a whole default run, by the gaps between its events."""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.report import Row
from tests.e2e.control import DEMO, KEY, ROOT, Control
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM

COMMANDS = "the agents' and the tests' own commands"


def rows(vm: VM, folder: Path) -> list[Row]:
    """Measure one run with the real Codex CLI and a scripted model, part by part; the last row is pccpipe's own."""
    control = Control(folder, vm)
    shutil.copytree(DEMO / "project", control.workspace, dirs_exist_ok=True)
    with ModelServer(vm.host_side, key=KEY, scenario=json.loads((DEMO / "scenario.json").read_text())) as model:
        began = time.time()
        ran = control.run(
            ROOT / "pipelines/default-run.yaml",
            *("--input", f"work_order={DEMO / 'work-order.md'}", "--input", "test=sh test.sh"),
            *("--input", f"endpoint={model.url}/v1"),
        )
        ended = time.time()
    assert ran.code == 0, ran.stderr
    parts: dict[str, float] = defaultdict(float)
    kinds: dict[str, str] = {}
    last = began
    inside = False
    for event in ran.events:
        if event["event"] == "step_started":
            kinds[event["step"]] = event["kind"] if event["kind"] != "run" else f"a command's way, on: {event['asked']}"
        parts[COMMANDS if inside else _part(event, kinds)] += event["time"] - last
        if event["event"] in {"command_started", "command_ended"}:
            inside = event["event"] == "command_started"
        last = event["time"]
    parts["to the process's end"] += ended - last
    own = sum(seconds for part, seconds in parts.items() if part != COMMANDS)
    found = [Row(f"default run: {part}", f"{seconds:.2f} s") for part, seconds in sorted(parts.items(), key=_seconds)]
    return [*found, Row("default run: pccpipe's own, in all", f"{own:.2f} s", "at most 1.5 s", own <= 1.5)]


def _seconds(part: tuple[str, float]) -> float:
    return -part[1]


def _part(event: dict[str, object], kinds: dict[str, str]) -> str:
    """Name the part of a run that ends with this event, unless a command ran."""
    match event["event"]:
        case "run_started":
            return "start: Python, the pipeline, the record"
        case "run_ended":
            return "clearing up"
        case "step_started":
            return "login, lease, conditions"
        case _:
            return kinds.get(str(event.get("step")), "between steps")
