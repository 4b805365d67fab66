"""Play one seed: a run, its faults, and the resumes that it needs."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import Plan, Striker
from tests.chaos.pipeline import write_pipeline
from tests.e2e.control import ROOT, Control
from tests.testbed.vm import VM

LIMIT = 100.0
"""The longest time of any run, in seconds, resumes included."""
STATUS_OF_KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Played:
    """A run that has ended."""

    plan: Plan
    code: int
    """The exit status of the process that ended it."""
    record: Path
    workspace: Path
    output: str
    """The output of all its processes."""
    struck: tuple[str, ...]
    """The faults that really struck, and when."""


class Player:
    """Plays a plan in a separate folder."""

    def __init__(self, vm: VM, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.control = Control(folder, vm, run_as=plan.run_as)
        # The run's id identifies leftovers: another process may play the same seed at this moment.
        self.record = folder / ".system" / "runs" / f"chaos-{plan.seed}-{secrets.token_hex(3)}"
        self.output: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = False
        self._lock = threading.Lock()
        self._striker = Striker(vm, plan, self._kill, self._cancel)

    def play(self) -> Played:
        """Run it, strike it, and resume it until it has ended. Raise AssertionError if it does not end."""
        until = time.monotonic() + LIMIT
        self._make_workspace()
        strikes = threading.Thread(target=self._striker.strike_all, args=(self.record / "events.jsonl",), daemon=True)
        strikes.start()
        try:
            code = self._once(self._run_argv(), until)
            while self._is_open(code):
                assert time.monotonic() < until, "it does not end, however often it is resumed"
                if not (self.record / "events.jsonl").exists():
                    # Killed before it had a record: there is nothing to resume.
                    code = self._once(self._run_argv(), until)
                    continue
                code = self._once(self._argv("cancel" if self._cancelled else "resume", self.record.name), until)
            if code == STATUS_OF_KILLED:
                # Killed after its last event: this brings run.json up to date.
                self._once(self._argv("resume", self.record.name), until)
        finally:
            self._striker.over()
            self._kill()
            strikes.join(30)
        self.output.append("\n".join(["", "struck by:", *self._striker.log]))
        return Played(
            self.plan, code, self.record, self.control.workspace, "".join(self.output), tuple(self._striker.log)
        )

    def _is_open(self, code: int) -> bool:
        """Return whether the run can be resumed: its process was killed, or a place was unreachable for too long."""
        journal = self.record / "events.jsonl"
        last = journal.read_text().splitlines()[-1:] if journal.exists() else []
        return not (last and '"event":"run_ended"' in last[0]) and code in (STATUS_OF_KILLED, 2, 3)

    def _once(self, argv: list[str], until: float) -> int:
        with self._lock:
            self._process = process = subprocess.Popen(
                argv,
                cwd=self.control.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            said, _ = process.communicate(timeout=max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            self.output.append(f"$ {' '.join(argv[3:5])}\n{said}\n")
            raise AssertionError("it does not end") from None
        self.output.append(f"$ {' '.join(argv[3:5])}\n{said}exit {process.returncode}\n")
        return process.returncode

    def _run_argv(self) -> list[str]:
        pipeline = self.control.folder / "pipeline.yaml"
        write_pipeline(pipeline)
        return self.control.command(pipeline, run_id=self.record.name)[0]

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pccpipe", *words, "--runs-dir", str(self.record.parent)]

    def _kill(self) -> None:
        with self._lock:
            if self._process and self._process.poll() is None:
                self._process.kill()

    def _cancel(self) -> None:
        self._cancelled = True
        done = subprocess.run(
            self._argv("cancel", self.record.name, "--no-wait"),
            cwd=self.control.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.output.append(f"$ cancel --no-wait\n{done.stdout}{done.stderr}exit {done.returncode}\n")

    def _make_workspace(self) -> None:
        folder = self.control.workspace
        (folder / "app.txt").write_text("one\ntwo\n")
        (folder / "old.txt").write_text("old\n")
        (folder / "data.bin").write_bytes(bytes(range(256)) * 40)
