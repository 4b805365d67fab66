"""Rows of the table, a function for each. An aim is a ratio to another program, or the seconds of a quiet machine."""

from __future__ import annotations

import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import bare_engine, default_run, hostile, peers
from benchmarks.bench import OUTPUT_LINE, SECRETS, Bench
from benchmarks.measure import Usage, in_turn, run, wall
from benchmarks.report import Bars, Row
from pccpipe import limits
from tests.testbed.place import STATE

ROOT = Path(__file__).resolve().parent.parent
COUNT = 20
MANY = 10 * COUNT
UPLOADS = "/home/project/.system/run-workspaces"

Found = tuple[list[Row], list[Bars]]


def vm_steps(bench: Bench, rounds: int) -> Found:
    programs = peers.environment(STATE)
    others = peers.true_steps(programs, bench.vm, bench.folder, COUNT)
    times = in_turn({"pccpipe": bench.wall(bench.steps("vm", COUNT)), **others}, rounds)
    ours = times["pccpipe"]
    fastest = min((times[name] for name in ("Fabric", "Ansible raw", "pyinfra")), key=lambda each: each.median)
    work = f"{COUNT} steps of `true` on the VM, whole process"
    rows = [
        _most(work, ours.median, 0.40, "s"),
        _most(f"the same, to {fastest.name} ({fastest.median:.2f} s)", ours.ratio_to(fastest), 1 / 2.5, ""),
    ]
    return rows, [Bars(f"{COUNT} commands on a VM, connect and record included", tuple(times.values()))]


def local_steps(bench: Bench, rounds: int) -> Found:
    others = peers.local_true_steps(peers.environment(STATE), bench.folder, COUNT)
    times = in_turn({"pccpipe": bench.wall(bench.steps("local", COUNT)), **others}, rounds)
    row = _most(f"{COUNT} steps of `true` here, whole process", times["pccpipe"].median, 0.25, "s")
    return [row], [Bars(f"{COUNT} commands on this machine", tuple(times.values()))]


def vm_step(bench: Bench, rounds: int) -> Found:
    return [_most("one more vm step", _one_more(bench, "vm", rounds), 3, "ms")], []


def local_step(bench: Bench, rounds: int) -> Found:
    bare = 1000 * statistics.median(wall(["sh", "-c", "true"]) for _ in range(MANY))
    work = f"one more local step, beside `sh -c true` from Python ({bare:.2f} ms)"
    return [_most(work, _one_more(bench, "local", rounds), 2.5, "ms")], []


def container_step(bench: Bench, rounds: int) -> Found:
    few, many = 2, 12
    jobs = {"few": bench.wall(bench.steps("container", few)), "many": bench.wall(bench.steps("container", many))}
    with bare_engine.connection(bench.vm) as engine:
        times = in_turn({**jobs, "bare": lambda: bare_engine.cycle(engine)}, rounds)
    each, bare = (times["many"].median - times["few"].median) / (many - few), times["bare"].median
    work = f"one more container step ({1000 * each:.0f} ms), to bare create, start, wait, remove ({1000 * bare:.0f} ms)"
    return [_most(work, each / bare, 1.1, "")], []


def log_vm(bench: Bench, rounds: int) -> Found:
    return _log(bench, "vm", rounds)


def log_container(bench: Bench, rounds: int) -> Found:
    return _log(bench, "container", rounds)


def masking(bench: Bench, rounds: int) -> Found:
    lines = 1_000_000
    script = f"yes '{OUTPUT_LINE[:20]}' | head -n {lines}"
    jobs = {}
    for secrets in ([], list(SECRETS)):
        step = f'{{id: s, on: local, secrets: [{", ".join(secrets)}], run: "{script}"}}'
        pipeline = bench.pipeline(f"lines-{len(secrets)}", [step], secrets=secrets)
        jobs[f"{len(secrets)} secrets"] = lambda pipeline=pipeline: bench.run(pipeline).cpu
    times = in_turn(jobs, rounds)
    with_secrets, without = times["20 secrets"], times["0 secrets"]
    work = f"{lines} short lines, 20 secrets to none ({without.median:.2f} s), CPU"
    return [_most(work, with_secrets.ratio_to(without), 1.5, "")], []


def upload(bench: Bench, rounds: int) -> Found:
    """Measure 5,000 small files, for the first time and again; pccpipe's figure is the step's own."""
    _uploads_into_memory(bench)
    for number in range(5000):
        file = bench.workspace / f"d{number % 50}" / f"f{number}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{number}\n" * 800)
    pipeline = bench.pipeline("upload", ["{id: first, upload: workspace}", "{id: again, upload: workspace}"])
    theirs = peers.uploads(bench.vm, bench.workspace, f"{UPLOADS}/peer")

    def with_step(name: str) -> Callable[[], float]:
        return lambda: _step_seconds(bench, pipeline, name)

    def fresh(argv: list[str]) -> Callable[[], float]:
        def upload_again() -> float:
            bench.vm.sh(f"rm -rf {UPLOADS}/peer-*")
            return wall(argv)

        return upload_again

    first = in_turn({"pccpipe": with_step("first"), **{name: fresh(argv) for name, argv in theirs.items()}}, rounds)
    again = in_turn({"pccpipe": with_step("again"), "rsync": lambda: wall(theirs["rsync"])}, rounds)
    rows = [
        _most(
            f"upload of 5,000 files, first time ({first['pccpipe'].median:.2f} s), to tar over ssh",
            first["pccpipe"].ratio_to(first["tar over ssh"]),
            1.2,
            "",
        ),
        _most("upload again, nothing changed", again["pccpipe"].median, 0.26, "s"),
    ]
    bars = [Bars("5,000 files to a VM, first time", tuple(first.values())), Bars("and again", tuple(again.values()))]
    return rows, bars


def upload_large(bench: Bench, rounds: int) -> Found:
    _uploads_into_memory(bench)
    large = bench.workspace / "large.bin"
    with large.open("wb") as file:
        subprocess.run(["head", "-c", "200000000", "/dev/urandom"], stdout=file, check=True)
    pipeline = bench.pipeline("large", ["{id: first, upload: workspace}"])
    raw = f"{shlex.join(peers.ssh(bench.vm))} 'cat >{UPLOADS}/large' <{shlex.quote(str(large))}"
    jobs = {"pccpipe": lambda: _step_seconds(bench, pipeline, "first"), "ssh": lambda: wall(["sh", "-c", raw])}
    times = in_turn(jobs, rounds)
    large.unlink()
    work = f"upload of 200 MB ({times['pccpipe'].median:.2f} s), to raw ssh"
    return [_most(work, times["pccpipe"].ratio_to(times["ssh"]), 1.1, "")], []


def start_up(bench: Bench, rounds: int) -> Found:
    default = str(ROOT / "pipelines/default-run.yaml")
    large = str(bench.steps("vm", 5000))
    rows = []
    for name, words, most in (
        ("`pccpipe --version`", ["--version"], 60),
        ("`pccpipe validate` of the default pipeline", ["validate", default], 150),
        ("`pccpipe validate` of 5,000 steps", ["validate", large], 1000),
    ):
        median = statistics.median(run([bench.program, *words]).cpu for _ in range(rounds))
        rows.append(_most(f"{name}, CPU", 1000 * median, most, "ms"))
    return rows, []


def round_trips(bench: Bench, rounds: int) -> Found:
    """Measure the round trips of a step, by the time of one more step when a round trip takes 200 ms."""
    few, many = bench.steps("vm", 1), bench.steps("vm", 6)
    bench.vm.slow(100)
    try:
        times = in_turn({"few": bench.wall(few), "many": bench.wall(many)}, min(rounds, 3))
    finally:
        bench.vm.slow(0)
    trips = (times["many"].median - times["few"].median) / 5 / 0.2
    return [_most("round trips of one more vm step, at 100 ms each way", trips, 2, "")], []


def large_run(bench: Bench, rounds: int) -> Found:
    """Measure a local run of many steps: a step's time and memory among many others, and showing 10,000 of them."""
    small, large = bench.run(bench.steps("local", 500)), bench.run(bench.steps("local", 2000))
    begin = bench.run(bench.steps("local", 1))
    growth = (large.wall - begin.wall) / (small.wall - begin.wall) / 4
    kept = (large.peak - begin.peak) / 2000 / 1000
    runs = bench.folder / "shown"
    subprocess.run([sys.executable, "-m", "benchmarks.record", str(runs), "10000"], check=True, cwd=ROOT)
    show = [bench.program, "show", "large", "--runs-dir", str(runs)]
    shown = statistics.median(run(show).cpu for _ in range(rounds))
    return [
        _most("time of a step among 2,000, to one among 500", growth, 1.2, ""),
        Row("memory of one more step", f"{kept:.1f} kB"),
        _most("`pccpipe show` of 10,000 steps, CPU", 1000 * shown, 500, "ms"),
    ], []


def list_of_runs(bench: Bench, rounds: int) -> Found:  # noqa: ARG001
    """Measure a list of 20,000 ended runs; `benchmarks.record` measures itself."""
    argv = [sys.executable, "-m", "benchmarks.record", str(bench.folder / "listed"), "20000", "runs"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    first, again = (float(word) for word in done.stdout.split()[-2:])
    return [_most(f"`list_runs` over 20,000 ended runs (the first time {first:.1f} s)", again, 0.3, "s")], []


def many_runs(bench: Bench, rounds: int) -> Found:  # noqa: ARG001
    """Measure 50 runs at once in one process, on four VMs; `benchmarks.runs` measures itself."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.runs", "50"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    memory, threads, cpu = (float(word) for word in done.stdout.split()[-3:])
    return [
        _most("50 runs at once in one process: memory of one more", memory, 15, "MB"),
        _most("the same: threads of one more", threads, 2, ""),
        _most("the same: CPU, to the runs one by one", cpu, 1.3, ""),
    ], []


def whole_default_run(bench: Bench, rounds: int) -> Found:  # noqa: ARG001
    return default_run.rows(bench.vm, bench.folder), []


def hostile_inputs(_bench: Bench, _rounds: int) -> Found:
    """Measure the worst of a list of inputs that no honest side sends, each in a separate process."""
    found = hostile.measure_all()
    memory, stall = max(found, key=lambda each: each.memory), max(found, key=lambda each: each.stall)
    work = f"of {len(found)} hostile inputs, beyond the input itself: "
    rows = [
        _most(f"{work}most memory ({memory.name})", memory.memory / 1e6, limits.MARGIN / 1e6, "MB"),
        _most(f"{work}longest hold of the interpreter ({stall.name})", 1000 * stall.stall, 1000 * limits.PAUSE, "ms"),
    ]
    return rows, []


ROWS: Mapping[str, Callable[[Bench, int], Found]] = {
    "vm-steps": vm_steps,
    "vm-step": vm_step,
    "local-steps": local_steps,
    "local-step": local_step,
    "container-step": container_step,
    "log-vm": log_vm,
    "log-container": log_container,
    "masking": masking,
    "upload": upload,
    "upload-large": upload_large,
    "start-up": start_up,
    "round-trips": round_trips,
    "large-run": large_run,
    "list-of-runs": list_of_runs,
    "many-runs": many_runs,
    "default-run": whole_default_run,
    "hostile": hostile_inputs,
}
SHORT = ("start-up", "vm-step", "local-step")


def _most(work: str, value: float, most: float, unit: str) -> Row:
    """Return a row whose figure must be at most `most`."""
    unit = f" {unit}" if unit else ""
    return Row(work, f"{value:.2f}{unit}", f"at most {most:g}{unit}", value <= most)


def _one_more(bench: Bench, on: str, rounds: int) -> float:
    """Return the milliseconds of one more step."""
    times = in_turn({"few": bench.wall(bench.steps(on, COUNT)), "many": bench.wall(bench.steps(on, MANY))}, rounds)
    return 1000 * (times["many"].median - times["few"].median) / (MANY - COUNT)


def _uploads_into_memory(bench: Bench) -> None:
    """Mount a memory disk for uploads.

    ext4 checks each inode freed in the last minutes before it makes a file (`recently_deleted` in its ialloc.c). After
    the removal of the last round's files, that would be most of the measured time.
    """
    make = f"install -d -o {bench.vm.user} $(dirname {UPLOADS}) {UPLOADS}"
    bench.vm.sh(f"mountpoint -q {UPLOADS} || {{ {make} && mount -t tmpfs -o mode=777 tmpfs {UPLOADS}; }}")


def _log(bench: Bench, on: str, rounds: int) -> Found:
    megabytes = 1000
    pipeline, small = bench.output(on, megabytes, ["SECRET_1"]), bench.output(on, 1, ["SECRET_1"])
    most: list[Usage] = []

    def ours() -> float:
        most.append(bench.run(pipeline))
        return most[-1].wall - bench.run(small).wall

    script = f"yes '{OUTPUT_LINE}' | head -c {megabytes}000000"
    if on == "container":
        script = f"docker run --rm --network none bb:latest sh -c {shlex.quote(script)}"
    name = "ssh" if on == "vm" else "docker run"
    times = in_turn({"pccpipe": ours, name: lambda: wall([*peers.ssh(bench.vm), script])}, min(rounds, 3))
    rate, theirs = megabytes / times["pccpipe"].median, megabytes / times[name].median
    work = f"log of {megabytes} MB from a {on}, masked and written, beside {name} ({theirs:.0f} MB/s)"
    peak = max(usage.peak for usage in most) / 1e6
    if on == "vm":
        row = Row(work, f"{rate:.0f} MB/s", "at least 150 MB/s", rate >= 150)
    else:
        row = Row(work, f"{rate / theirs:.2f} of it", "at least 0.9", rate / theirs >= 0.9)
    return [row, _most(f"the same: memory, with {on}", peak, 100, "MB")], []


def _step_seconds(bench: Bench, pipeline: Path, step: str) -> float:
    """Return a step's seconds from the record."""
    bench.vm.sh(f"rm -rf {UPLOADS}/*")
    bench.run(pipeline)
    newest = max((bench.folder / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
    ended = re.search(
        rf'"event":"step_ended","step":"{step}".*?"seconds":([0-9.e-]+)', (newest / "events.jsonl").read_text()
    )
    assert ended
    return float(ended[1])
