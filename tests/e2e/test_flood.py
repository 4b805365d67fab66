"""Endless output: the step ends at its time limit, and neither record nor machine stores much of it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pccpipe.limits import UNREAD_OUTPUT
from pccpipe.supervisor.spool import PIECE
from tests.e2e.control import Control, containers, happened, wait_until
from tests.targets.stand import local_shell

LIMIT = 1 << 20


@pytest.fixture(params=["vm", "local"])
def place(request: pytest.FixtureRequest) -> Control:
    """A project with a VM, and one that is all local."""
    control: Control = request.getfixturevalue("control" if request.param == "vm" else "local_control")
    return control


class Site:
    """A control centre, and the keys of a step that make a flood run at one place."""

    def __init__(self, control: Control, where: str) -> None:
        self.control = control
        self.where = where
        self.word = f"50{os.getpid()}{random.randrange(10**6, 10**7)}"
        """What the flood says: no other process has it in its command line, on this machine or on a VM of the bed."""

    def pipeline(self, timeout: str) -> str:
        return f"""
        containers: {{box: {{image: "pcc-runner:latest", network: none}}}}
        steps:
          - {{id: flood, {self.where}, log_limit: {LIMIT}, timeout: {timeout},
               run: "echo first words; exec yes {self.word}"}}
        always:
          - {{id: last, {self.where}, run: echo after}}
        """

    def leftovers(self, run_id: str) -> list[str]:
        """Return the run's processes that still run there."""
        vm = self.control.vm
        if vm is None:
            return local_shell(f"pgrep -fx 'yes {self.word}' || true").split()
        return [*map(str, vm.pids(self.word)), *containers(vm, run_id)]


@pytest.fixture(params=["local", "vm", "run_as", "container"])
def site(request: pytest.FixtureRequest) -> Site:
    """Each kind of place where a step may flood."""
    control: Control = request.getfixturevalue("local_control" if request.param == "local" else "control")
    control.run_as = request.param == "run_as"
    where = "on: container, container: box" if request.param == "container" else "on: vm"
    return Site(control, where)


def the_flood(record: Path) -> tuple[dict[str, Any], Path]:
    """Return the flooding step of the record, and its log."""
    step = json.loads((record / "run.json").read_text())["steps"][0]
    return step, record / step["attempts"][-1]["stdout"]


def check_log(step: dict[str, Any], log: Path) -> None:
    """Check that the log has both ends and the size of the gap, and no more."""
    assert log.stat().st_size < LIMIT + 200
    data = log.read_bytes()
    assert data.startswith(b"first words\n")
    words = rb"\n\.\.\. (?:more than )?([0-9,]+) bytes(?: \([0-9,]+ lines\))? left out here by log_limit \.\.\.\n"
    counted = re.search(words, data)
    assert counted
    assert int(counted[1].replace(b",", b"")) == step["attempts"][-1]["log_dropped"]
    assert sorted(file.name for file in log.parent.iterdir() if "flood" in file.name) == [
        log.name.replace("stdout", "stderr"),
        log.name,
    ]


def test_a_flood_ends_at_its_time_limit_as_timed_out_at_each_place(site: Site) -> None:
    ran = site.control.run(site.pipeline("4s"))
    step, log = the_flood(ran.record)
    assert step["outcome"] == "timed_out", step["message"]
    assert step["seconds"] < 4 + 10
    check_log(step, log)
    assert ran.step("last")["outcome"] == "succeeded"
    assert site.leftovers(ran.record.name) == []


def test_an_interrupt_ends_a_flood_in_seconds(site: Site) -> None:
    process, record = site.control.start(site.pipeline("10m"))
    wait_until(lambda: sum(log.stat().st_size for log in record.glob("logs/flood*")) >= LIMIT / 2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)
    assert time.monotonic() - began < 20
    assert process.returncode == 130
    step, log = the_flood(record)
    assert step["outcome"] == "cancelled"
    check_log(step, log)
    assert site.leftovers(record.name) == []


def check_it_waits_for_a_reader(site: Site, record: Path) -> None:
    """See that the spool of a local flood stays small while no pccpipe reads it."""
    if site.control.vm is None:
        (spool,) = record.parent.parent.rglob(f"{record.name}/commands/flood-1.stdout")
        before = spool.stat().st_size
        time.sleep(1.5)
        assert spool.stat().st_size - before < UNREAD_OUTPUT.most + PIECE


def test_a_run_that_is_killed_in_a_flood_is_resumed(site: Site) -> None:
    process, record = site.control.start(site.pipeline("12s"))
    wait_until(lambda: sum(log.stat().st_size for log in record.glob("logs/flood*")) >= LIMIT / 2)
    time.sleep(1)
    process.kill()
    process.communicate()
    check_it_waits_for_a_reader(site, record)
    began = time.monotonic()
    done = site.control.do("resume", record.name, "--project", str(site.control.folder / "project.yaml"))
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - began < 12 + 60
    step, log = the_flood(record)
    assert step["outcome"] == "timed_out", step["message"]
    check_log(step, log)
    assert site.leftovers(record.name) == []


def test_a_step_that_floods_ends_at_its_time_limit_with_both_ends_of_its_log(place: Control) -> None:
    argv, record = place.command(
        f"""
        steps:
          - id: flood
            on: vm
            log_limit: {LIMIT}
            timeout: 3s
            run: "trap 'echo last words; exit 1' TERM; echo first words; while :; do yes | head -c 10000000; done"
        """,
    )
    ran = subprocess.run(
        argv, capture_output=True, cwd=place.folder, env={**os.environ, **place.env}, timeout=60, check=False
    )
    state = json.loads((record / "run.json").read_text())
    (step,) = state["steps"]
    assert step["outcome"] == "timed_out", step["message"]
    assert step["seconds"] < 3 + 12
    (attempt,) = step["attempts"]
    assert attempt["log_dropped"] > 10 * LIMIT
    log = record / attempt["stdout"]
    assert LIMIT / 2 < log.stat().st_size < LIMIT + 200
    text = log.read_text()
    assert text.startswith("first words\n")
    assert text.endswith("last words\n")
    assert re.search(r"\n\.\.\. [0-9,]+ bytes( \([0-9,]+ lines\))? left out here by log_limit \.\.\.\n", text)
    assert b"bytes left out by log_limit" in ran.stdout + ran.stderr
    kept = sum(file.stat().st_size for file in record.rglob("*") if file.is_file())
    assert kept < 2 * LIMIT


def test_output_far_ahead_of_the_reader_is_skipped(place: Control) -> None:
    run = "yes & yes & yes 0123456789012345678901234567890123456789012345678901234567890123456789"
    argv, record = place.command(
        f'steps: [{{id: flood, on: vm, log_limit: {LIMIT}, timeout: 3s, run: "{run}"}}]',
    )
    subprocess.run(
        argv, capture_output=True, cwd=place.folder, env={**os.environ, **place.env}, timeout=40, check=False
    )
    (step,) = json.loads((record / "run.json").read_text())["steps"]
    assert (step["outcome"], step["seconds"] < 15) == ("timed_out", True), step
    (log,) = record.glob("logs/*stdout.log")
    # Only lines that were read are counted.
    assert re.search(rb"\n\.\.\. [0-9,]+ bytes left out here", log.read_bytes())


@pytest.mark.parametrize("form", ["plain", "jsonl"])
def test_an_unread_pipe_does_not_block_the_run_or_take_memory(local_control: Control, form: str) -> None:
    pipeline = """
    steps:
      - id: both
        parallel:
          - {id: flood, run: "exec yes 50505054", timeout: 4s, continue_on_error: true}
          - {id: beside, run: "sleep 1; echo beside >beside"}
      - {id: after, run: echo after >after}
    """
    process, record = local_control.start(pipeline, "--format", form)
    wait_until(lambda: happened(record, '"event":"run_ended"'), limit=25)
    wait_until(lambda: json.loads((record / "run.json").read_text())["status"] == "succeeded")
    state = {step["path"]: step for step in json.loads((record / "run.json").read_text())["steps"]}
    assert state["both.flood"]["outcome"] == "timed_out"
    assert state["both.beside"]["seconds"] < 1 + 3
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert peak
    assert int(peak[1]) < 200 * 1024
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "characters are not shown: this reader is too slow; the log has them" in out


def test_a_signal_ends_a_finished_run_that_waits_for_its_reader(local_control: Control) -> None:
    process, record = local_control.start("steps: [{id: much, run: seq 100000}]")
    wait_until(lambda: happened(record, '"event":"run_ended"'), limit=25)
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == -signal.SIGINT


def test_a_pccpipe_that_was_suspended_ends_a_flooding_container_in_time(control: Control) -> None:
    site = Site(control, "on: container, container: box")
    process, record = control.start(site.pipeline("10s"))
    wait_until(lambda: sum(log.stat().st_size for log in record.glob("logs/flood*")) >= LIMIT / 2)
    process.send_signal(signal.SIGSTOP)
    time.sleep(20)
    process.send_signal(signal.SIGCONT)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    step, log = the_flood(record)
    assert step["outcome"] == "timed_out", step["message"]
    check_log(step, log)
    assert site.leftovers(record.name) == []


def test_the_logs_of_a_run_stay_within_the_projects_quota(local_control: Control) -> None:
    local_control.settings = "log_quota: 4m\n"
    steps = "".join(f"  - {{id: flood{n}, run: 'yes | head -c 10000000', log_limit: 3m}}\n" for n in range(4))
    ran = local_control.run(f"steps:\n{steps}")
    assert ran.code == 0
    sizes = [(ran.record / f"logs/flood{n}-1.stdout.log").stat().st_size >> 10 for n in range(4)]
    assert sizes == [3072, 1024, 1024, 1024]
    words = [event["message"] for event in ran.events if event["event"] == "warned"]
    assert len(words) == 3
    assert "exceeds the limit of 4 MiB; fix: `log_quota` of the project file" in words[0]


def test_logs_into_an_unread_pipe_take_no_memory_and_end_when_it_is_closed(local_control: Control) -> None:
    ran = local_control.run("steps: [{id: much, run: 'yes | head -c 80000000'}]")
    argv = [sys.executable, "-m", "pccpipe", "logs", ran.record.name, "-f", "--runs-dir", str(ran.record.parent)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.read(8) == b"==> much"
    time.sleep(1)
    assert process.poll() is None
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert peak
    assert int(peak[1]) < 100 * 1024
    process.stdout.close()
    assert process.stderr
    assert b"Traceback" not in process.stderr.read()
    # click's exit status for a reader that is gone.
    assert process.wait(timeout=10) == 1
