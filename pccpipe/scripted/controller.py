"""The process that a case's run has for itself: python -m pccpipe.scripted.controller <JOB >/dev/null.

`pccpipe test` gives it the job on stdin. It plays the faults of the case, and may kill itself for that.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue

import msgspec
from msgspec import Struct

from pccpipe.api import load, load_project, local_project, resume, run
from pccpipe.cancel import Cancel
from pccpipe.errors import PccpipeError
from pccpipe.record.codec import event_fields
from pccpipe.record.events import Event
from pccpipe.scripted.case import FaultKind, RunFault
from pccpipe.scripted.script import names_of
from pccpipe.values import Json

PAUSE = 0.5
"""Seconds between two looks for `pccpipe test`."""


class ControllerJob(Struct, frozen=True):
    """A run to begin, or to resume."""

    run_id: str
    runs_dir: str
    resumes: bool
    pipeline: str
    project: str | None
    workspace: str
    inputs: Mapping[str, Json]
    secrets: Mapping[str, str]
    upstreams: Mapping[str, str]
    wait: float
    """Seconds to wait while another run has the VM."""
    faults: tuple[RunFault, ...]
    fired: str
    """The file that counts the faults that came, so that each comes once."""


class FaultPlayer:
    """Plays the faults in their order, as a listener of the run's events."""

    def __init__(self, job: ControllerJob, cancel: Cancel) -> None:
        self._faults = list(job.faults)
        self._fired = Path(job.fired)
        self._cancel = cancel

    def __call__(self, event: Event) -> None:
        fields = event_fields(event)
        step = fields.get("step")
        for fault in [each for each in self._faults if isinstance(step, str) and each.step in names_of(step)]:
            if fault.event == fields.get("event"):
                self._faults.remove(fault)
                self._play(fault)

    def _play(self, fault: RunFault) -> None:
        if fault.do is FaultKind.CUT_CONNECTION and not cut_connections():
            return
        with self._fired.open("a") as fired:
            fired.write(f"{fault.name}\n")
        if fault.do is FaultKind.KILL_CONTROLLER:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.do is FaultKind.CANCEL:
            self._cancel.request("TERM")


def cut_connections() -> int:
    """Shut down this process's TCP connections to other machines; return their number."""
    count = 0
    for path in list(Path("/dev/fd").iterdir()):
        try:
            number = int(path.name)
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as connection:
                peer = connection.getpeername()
                if connection.family in {socket.AF_INET, socket.AF_INET6} and not str(peer[0]).startswith("127."):
                    connection.shutdown(socket.SHUT_RDWR)
                    count += 1
        except OSError:
            continue
    return count


def _obey_signals(cancel: Cancel) -> None:
    """Cancel the run at a TERM. Its handler interrupts the main thread, which may hold any lock: `put` is safe."""
    received: SimpleQueue[int] = SimpleQueue()
    signal.signal(signal.SIGTERM, lambda number, _: received.put(number))

    def obey() -> None:
        while received.get():
            cancel.request("TERM")

    threading.Thread(target=obey, name="pccpipe-signals", daemon=True).start()
    threading.Thread(target=_outlive_nobody, args=(os.getppid(), cancel), name="pccpipe-test", daemon=True).start()


def _outlive_nobody(parent: int, cancel: Cancel) -> None:
    """Cancel the run if `pccpipe test` is gone, and the scripted model with it."""
    while os.getppid() == parent:
        time.sleep(PAUSE)
    cancel.request("TERM")


def main() -> int:
    """Run or resume the run of the job, and return an exit status; a message for a person goes to stderr."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=ControllerJob)
    cancel, parent = Cancel(), os.getppid()
    _obey_signals(cancel)
    player = FaultPlayer(job, cancel)
    try:
        project = load_project(job.project) if job.project else local_project("test")
        if job.resumes:
            resume(
                job.run_id,
                project=project,
                runs_dir=job.runs_dir,
                on_event=player,
                cancel=cancel,
                wait=job.wait,
                environ={},
                secrets=job.secrets,
                upstreams=job.upstreams,
            )
        else:
            run(
                load(job.pipeline),
                run_id=job.run_id,
                project=project,
                workspace=job.workspace,
                inputs=job.inputs,
                runs_dir=job.runs_dir,
                on_event=player,
                cancel=cancel,
                wait=job.wait,
                environ={},
                secrets=job.secrets,
                upstreams=job.upstreams,
            )
    except PccpipeError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if os.getppid() != parent:
            # Nobody else removes the case's workspace.
            shutil.rmtree(Path(job.fired).parent, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
