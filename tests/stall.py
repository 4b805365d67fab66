"""Measure how long work holds the interpreter lock, and how much memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

from pccpipe import limits

ROOT = Path(__file__).resolve().parent.parent

_MEASURED = """
import json, resource, sys, threading, time

def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

class Ticks:
    longest = 0.0
    def __enter__(self):
        self.over = False
        self.thread = threading.Thread(target=self._tick, daemon=True)
        self.thread.start()
        time.sleep(0.01)
        return self
    def __exit__(self, *_):
        self.over = True
        self.thread.join()
    def _tick(self):
        while not self.over:
            # The processor time of this process between two ticks: a busy machine does not count.
            before = time.process_time()
            time.sleep(0.0005)
            self.longest = max(self.longest, time.process_time() - before)

{setup}
_before = _peak()
with Ticks() as _ticks:
    try:
{work}
        _said = ""
    except Exception as error:
        _said = f"{type(error).__name__}: {error}"[:300]
json.dump({"longest": _ticks.longest, "memory": _peak() - _before, "said": _said}, sys.stdout)
"""


def measured(setup: str, work: str) -> tuple[float, int, str]:
    """Run Python code in a separate process.

    Returns the longest processor time that it spent while another of its threads waited, the bytes by which its memory
    grew after `setup`, and the error that `work` raised, if any.
    """
    # On a busy machine the other thread may wait for other reasons; a program that holds the lock does so each time.
    found = _measured_once(setup, work)
    for _ in range(2):
        if found[0] < limits.PAUSE:
            break
        found = min(found, _measured_once(setup, work))
    return found


def _measured_once(setup: str, work: str) -> tuple[float, int, str]:
    code = _MEASURED.replace("{setup}", textwrap.dedent(setup)).replace(
        "{work}", textwrap.indent(textwrap.dedent(work), " " * 8)
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT, timeout=120)
    found = json.loads(done.stdout)
    return found["longest"], found["memory"], found["said"]
