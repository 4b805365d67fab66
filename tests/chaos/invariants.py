"""Check the rules for a run, whatever struck it; each broken rule is a line."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from pccpipe.detached.ended import TRUNCATED
from pccpipe.executor.judge import LOST_OUTPUT
from pccpipe.record.state import load_state, state_text
from tests.chaos.pipeline import COMMANDS, MARKS, output
from tests.chaos.play import STATUS_OF_KILLED, Played
from tests.faults.scene import leftovers
from tests.testbed.vm import VM

CODES = {
    "succeeded": {0},
    "failed": {1},
    "timed_out": {1},
    "unavailable": {3},
    "lost": {3},
    # `pccpipe cancel` ends a run whose process is gone by itself.
    "cancelled": {130, 143, 0},
}


HEARD = 45.0
"""The longest time, in seconds, until pccpipe knows the end of a command that takes half a second.

Faults last 3 s, a pause between two tries 10 s, and after 15 s of silence pccpipe asks the command's place.
"""


def violations(played: Played, vm: VM) -> list[str]:
    """Return each rule that the run breaks, in words."""
    checks = (_ended, _order, _heard, _fold, _marks, _logs, _diff)
    return [*(words for check in checks for words in check(played)), *_left(played, vm)]


def _events(played: Played) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (played.record / "events.jsonl").read_bytes().splitlines()]


def _ended(played: Played) -> Iterator[str]:
    state = json.loads((played.record / "run.json").read_text())
    outcome = state["outcome"]
    # A run that was killed after its last event has still ended.
    if played.code not in CODES.get(outcome, ()) and played.code != STATUS_OF_KILLED:
        yield f"exit status {played.code}, but the record says {outcome}"
    if "cancel" not in played.plan.kinds and outcome == "cancelled":
        yield "it was cancelled by nobody"
    if not played.plan.kinds & {"cancel", "engine"} and outcome != "succeeded":
        yield f"it should have succeeded, and is {outcome}: {state['message']}"
    if "Traceback" in played.output or "internal error" in played.output:
        yield "it showed a traceback"


def _order(played: Played) -> Iterator[str]:
    events = _events(played)
    numbers = [event["seq"] for event in events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the journal's numbers are {numbers}"
    if [event["event"] for event in events].count("run_ended") != 1 or events[-1]["event"] != "run_ended":
        yield "the journal does not end with one run_ended"
    yield from _order_of_steps(events)


def _order_of_steps(events: list[dict[str, Any]]) -> Iterator[str]:
    last: dict[str, str] = {}
    over: set[str] = set()
    for event in events:
        step, kind = str(event.get("step")), event["event"]
        if step in over and kind != "warned":
            yield f"{kind} of {step} after its end"
        if kind == "step_ended":
            over.add(step)
        attempt = f"attempt {event.get('attempt')} of {step}"
        if kind == "command_started" and attempt in last:
            yield f"{attempt} began twice"
        if kind == "command_ended" and last.get(attempt) != "command_started":
            yield f"{attempt} ended without having begun, or twice"
        if kind in {"command_started", "command_ended"}:
            last[attempt] = kind
    yield from (f"{attempt} never ended" for attempt, kind in last.items() if kind == "command_started")


def _heard(played: Played) -> Iterator[str]:
    for event in _events(played):
        if event["event"] == "command_ended" and event["seconds"] > HEARD:
            yield f"the end of {event['step']} was heard after {event['seconds']:.0f} s"


def _fold(played: Played) -> Iterator[str]:
    if (played.record / "run.json").read_text() != state_text(load_state(played.record)):
        yield "run.json is not the fold of the events"


def _attempts(played: Played) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return the attempts by the id of their step, each with its path."""
    state = json.loads((played.record / "run.json").read_text())
    found: defaultdict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for step in state["steps"]:
        name = step["path"].rpartition(".")[2].partition("[")[0]
        found[name] += [(step["path"], attempt) for attempt in step["attempts"]]
    return found


def _marks(played: Played) -> Iterator[str]:
    marks = _marks_there(played)
    if marks is None:
        return
    for name in COMMANDS:
        # The command of an unavailable attempt never began.
        began = [attempt for _, attempt in _attempts(played)[name] if attempt["had"]]
        certain = [attempt for attempt in began if attempt["outcome"] in {"succeeded", "failed"}]
        # A dying engine may end a container before its command wrote its mark.
        certain = [attempt for attempt in certain if attempt["exit_code"] in {0, 3}]
        if not len(certain) <= marks[name] <= len(began):
            yield f"{name} ran {marks[name]} times; of {len(began)} attempts {len(certain)} came to their end"


def _marks_there(played: Played) -> Counter[str] | None:
    """Return how often each command really ran, by the VM's files at the end; None if the VM was unreachable."""
    last = _attempts(played)["last"]
    if not last or last[-1][1]["outcome"] != "succeeded":
        return None
    marks: Counter[str] = Counter()
    for line in (played.record / last[-1][1]["stdout"]).read_text().splitlines():
        name, _, count = line.partition(":")
        marks[name.removeprefix(f"{MARKS}/")] = int(count)
    return marks


def _logs(played: Played) -> Iterator[str]:
    said = (played.record / "events.jsonl").read_text().splitlines()
    for name in COMMANDS:
        for path, attempt in _attempts(played)[name]:
            # An engine that died may lose a container's output, if the record says so.
            if any(LOST_OUTPUT in line and f'"{path}"' in line for line in said):
                continue
            for stream in ("stdout", "stderr"):
                if not attempt["had"] or not attempt[stream]:
                    continue
                whole = output(name, stream)
                got = (played.record / attempt[stream]).read_bytes().removesuffix(TRUNCATED)
                is_whole = attempt["outcome"] == "succeeded" or attempt["exit_code"] == 3
                if got != whole if is_whole else not whole.startswith(got):
                    how_much = f"{len(got)} bytes of {len(whole)}"
                    yield f"{stream} of {path} ({attempt['outcome']}) is {how_much}: ...{got[-60:]!r}"


def _diff(played: Played) -> Iterator[str]:
    steps = {step["path"]: step for step in json.loads((played.record / "run.json").read_text())["steps"]}
    if any(steps.get(name, {}).get("outcome") != "succeeded" for name in ("tree", "change")):
        return
    there = (played.record / steps["tree"]["attempts"][-1]["stdout"]).read_text()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["cp", "-r", f"{played.workspace}/.", name], check=True)
        applied = subprocess.run(
            ["git", "apply", "--unsafe-paths", f"--directory={name}", str(played.record / "diff.patch")],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if applied.returncode:
            yield f"the diff does not apply: {applied.stderr}"
            return
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        sums = {f"./{path}": sha256((folder / path).read_bytes()).hexdigest() for path in files}
    seen = dict(reversed(line.split("  ", 1)) for line in there.splitlines())
    if seen != sums:
        different = sorted(name for name in seen.keys() | sums.keys() if seen.get(name) != sums.get(name))
        yield f"the diff is not what the VM has: {different}"


def _left(played: Played, vm: VM) -> Iterator[str]:
    run_id = played.record.name
    yield from (f"left on the VM: {line}" for line in leftovers(vm, run_id))
    lease = vm.sh(f"ls -la {vm.root}/.system/run-lease 2>/dev/null || true").stdout
    if run_id in lease:
        yield f"left on the VM: the lease {lease}"
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"PCCPIPE_STEP={run_id}-".encode() in environ.read_bytes() and not _is_inside(environ):
                yield f"left here: process {environ.parent.name}"
        except OSError:
            continue
    copies = [".workspace.old", ".workspace.incoming", ".workspace.outgoing", ".artifacts.incoming"]
    warnings = "".join(json.loads((played.record / "run.json").read_text())["warnings"])
    if "no diff has all of them" not in warnings:
        copies += ["workspace", "workspace-sent"]
    yield from (f"left in the record: {name}" for name in copies if (played.record / name).exists())


def _is_inside(environ: Path) -> bool:
    """Return whether a process belongs to a VM: `_left` looks for those inside the VM."""
    try:
        return (environ.parent / "ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    except OSError:
        return True
