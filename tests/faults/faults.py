"""Define the faults of the matrix: how each begins and ends on a VM, and at which moment of a run it strikes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pccpipe.record.events import CommandEnded, Event, Output, StepEnded, StepStarted
from tests.testbed.vm import VM


class Phase(StrEnum):
    """A part of a run; the value is its step of the pipeline."""

    CONNECT = "hello"
    UPLOAD = "sync"
    VM_STEP = "ticks"
    CREATE = "make"
    CONTAINER_STEP = "box"
    DOWNLOAD = "collect"
    CLEANUP = "late"


@dataclass(frozen=True)
class Fault:
    """A fault of a VM. It ends after `seconds`; without them, when the phase's step has ended.

    `at_once` faults strike before the step does anything more; others strike in the middle of its work.
    """

    begin: Callable[[VM], object]
    end: Callable[[VM], object] = lambda _: None
    seconds: float | None = 0.0
    at_once: bool = False


def refuse_and_kill(vm: VM) -> None:
    vm.refuse()
    vm.kill_sessions()


def kill_again_and_again(vm: VM) -> None:
    for _ in range(3):
        vm.kill_sessions()
        time.sleep(0.1)


def restart_sshd(vm: VM) -> None:
    refuse_and_kill(vm)
    vm.accept()


class Striker:
    """Strikes a run with a fault in each of some phases, one after the other; pass it to the run as `on_event`."""

    def __init__(self, vm: VM, fault: Fault, phases: frozenset[Phase] = frozenset(Phase)) -> None:
        self.vm = vm
        self.record = Path()
        """The run's folder, known when the run begins."""
        self.errors: list[BaseException] = []
        self.ran: dict[str, int] = {}
        """The number of times that each step's command ran."""
        self._fault = fault
        self._phases = phases
        self._struck: list[Phase] = []
        self._strike: threading.Thread | None = None
        self._step_ended = threading.Event()

    def __call__(self, event: Event) -> None:
        match event.what:
            case StepStarted(step=Phase.CONNECT):
                return  # struck before the run began
            case StepStarted(step=step):
                self._begins(step)
            case Output(step=Phase.VM_STEP | Phase.CONTAINER_STEP as step):
                self._planned(Phase(step), lambda: time.sleep(0.3))
            case CommandEnded(step=Phase.CLEANUP):
                # The run still has to remove the container, the workspace and everything else.
                self._planned(Phase.CLEANUP)
            case StepEnded(step=step) if self._struck and step == self._struck[-1] != Phase.CLEANUP:
                self._step_ended.set()

    def connect(self) -> None:
        """Strike before the run begins."""
        self._planned(Phase.CONNECT)

    def strike(self, phase: Phase, wait: Callable[[], object] = lambda: None) -> None:
        """Strike now, or when `wait` returns if the fault is not `at_once`; only the first call strikes."""
        if phase in self._struck:
            return
        self.settle()
        self._count()
        self._struck.append(phase)
        self._step_ended.clear()
        if self._fault.at_once:
            self._fault.begin(self.vm)
        self._strike = threading.Thread(target=self._go, args=(wait,), daemon=True)
        self._strike.start()

    def settle(self) -> None:
        """Wait until the last strike is over."""
        if self._strike:
            self._strike.join(30)
            if self._strike.is_alive():
                raise TimeoutError(f"the strike at {self._struck[-1]} does not end")

    def over(self) -> None:
        """Note that the run has ended."""
        self._step_ended.set()
        self.settle()

    def missed(self) -> list[Phase]:
        """Return the phases in which it should have struck and did not."""
        return [phase for phase in Phase if phase in self._phases and phase not in self._struck]

    def _begins(self, step: str) -> None:
        if step not in set(Phase):
            # An `always:` step, which continues during the strike at the cleanup.
            if Phase.CLEANUP not in self._phases:
                self.settle()
                self._count()
            return
        self.settle()
        match Phase(step):
            case Phase.UPLOAD:
                self._planned(Phase.UPLOAD, self._upload_goes_on)
            case Phase.CREATE:
                self._planned(Phase.CREATE, lambda: time.sleep(0.015))
            case Phase.DOWNLOAD:
                self._planned(Phase.DOWNLOAD, self._download_goes_on)
            case _:
                pass

    def _planned(self, phase: Phase, wait: Callable[[], object] = lambda: None) -> None:
        if phase in self._phases:
            self.strike(phase, wait)

    def _go(self, wait: Callable[[], object]) -> None:
        try:
            if not self._fault.at_once:
                wait()
                self._fault.begin(self.vm)
            if self._fault.seconds is None:
                self._step_ended.wait(60)
            else:
                time.sleep(self._fault.seconds)
            self._fault.end(self.vm)
        except BaseException as error:  # noqa: BLE001 - in a thread: the test raises it
            self.errors.append(error)

    def _count(self) -> None:
        folder = f"{self.vm.root}/.system/run-workspaces/{self.record.name}/counts"
        lines = self.vm.sh(f"cat {folder}/* 2>/dev/null || true").stdout.split()
        self.ran = {word: lines.count(word) for word in set(lines)} or self.ran

    def _upload_goes_on(self) -> None:
        # The VM's disk is a folder of this machine.
        folder = self.vm.state / "home/project/.system/run-workspaces" / self.record.name
        _wait_for_bytes(lambda: folder.glob(".payload*"))

    def _download_goes_on(self) -> None:
        _wait_for_bytes(lambda: (self.record / ".artifacts.incoming").glob("payload*"))


def _wait_for_bytes(files: Callable[[], Iterable[Path]]) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if any(file.stat().st_size > 4_000_000 for file in files()):
                return
        time.sleep(0.002)
