"""Runs the command in a folder, as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Folder:
    """A user's current folder."""

    path: Path

    def pipeline(self, text: str, name: str = "pipeline.yaml") -> Path:
        path = self.path / name
        path.write_text("version: 1\nname: test\n" + textwrap.dedent(text))
        return path

    def start(self, *arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pccpipe", *map(str, arguments)],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def do(self, *arguments: str | Path, env: dict[str, str] | None = None, limit: float = 60) -> Done:
        """Run the command to its end; it must never print a traceback."""
        return finish(self.start(*arguments, env=env), limit)

    def signalled(
        self, *arguments: str | Path, signals: tuple[signal.Signals, ...], when: Callable[[], object]
    ) -> Done:
        """Run the command, and send it the signals, half a second apart, once `when` holds."""
        process = self.start(*arguments)
        wait_until(when)
        for number, each in enumerate(signals):
            time.sleep(0.5 if number else 0)
            process.send_signal(each)
        return finish(process, 60)


def finish(process: subprocess.Popen[str], limit: float) -> Done:
    try:
        stdout, stderr = process.communicate(timeout=limit)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert "Traceback" not in stdout + stderr, stderr
    return Done(process.returncode, stdout, stderr)


def wait_until(condition: Callable[[], object], limit: float = 20) -> None:
    until = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < until, "the condition did not hold in time"
        time.sleep(0.02)
