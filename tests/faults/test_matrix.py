"""Play every fault of the test bed at every phase of a run, and check the result.

A row is one run: its fault strikes in each phase, one after the other, and ends before the next. In every row, a
command that began ran once, a stream's log has exactly the bytes that the command wrote, a step whose command began
is never `unavailable`, and at the end nothing of the run is on the VM.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.problems import ApiCall
from pccpipe.outcome import Outcome, Reason
from tests.faults.faults import Fault, Phase, Striker, kill_again_and_again, refuse_and_kill, restart_sshd
from tests.faults.scene import MAKE, PART, WHOLE, EndedRun, PhaseResult, play
from tests.testbed.vm import VM


@dataclass(frozen=True)
class Allowed:
    """An allowed result of a phase.

    It has its step's outcome and reason, the number of times that its command ran, and how much of its log there is.
    """

    outcomes: frozenset[Outcome]
    ran: int = 1
    log: frozenset[str] = frozenset({WHOLE})
    reasons: frozenset[Reason | None] = frozenset({None})

    def allows(self, result: PhaseResult) -> bool:
        return (
            result.outcome in self.outcomes
            and result.reason in self.reasons
            and result.ran in (self.ran, None)
            and result.log in {None, *self.log}
        )


@dataclass(frozen=True)
class AnyOf:
    """Several allowed results, of which the instant decides."""

    results: tuple[Allowed, ...]

    def allows(self, result: PhaseResult) -> bool:
        return any(allowed.allows(result) for allowed in self.results)


def away(*reasons: Reason) -> Allowed:
    """Return the result of a step whose place was unavailable: nothing ran."""
    return Allowed(frozenset({Outcome.UNAVAILABLE}), ran=0, reasons=frozenset(reasons))


DONE = Allowed(frozenset({Outcome.SUCCEEDED}))
LOST = Allowed(frozenset({Outcome.LOST}), log=frozenset({PART}))
ENDED = Allowed(frozenset({Outcome.FAILED, Outcome.LOST}), log=frozenset({PART}))
"""The fault ended it in the middle, and pccpipe knows that only if the engine remembers it."""
CUT = Allowed(frozenset({Outcome.FAILED}), log=frozenset({PART}))
NO_SPACE = away(Reason.NO_DISK_SPACE)
GONE = away(Reason.SSH_REFUSED, Reason.SSH_CLOSED, Reason.SSH_UNREACHABLE)
STOPPED = away(Reason.ENGINE_MISSING, Reason.ENGINE_STOPPED)

Row = tuple[Fault, tuple[Allowed | AnyOf, ...]]
ALL_DONE = (DONE,) * len(Phase)


def slowed(vm: VM) -> None:
    vm.slow(100, 5)


def healthy(vm: VM) -> None:
    vm.slow(0)


def nothing(vm: VM) -> None: ...


MATRIX: dict[str, Row] = {
    # connect, upload, VM step, container create, container step, download, cleanup
    "black hole": (Fault(VM.cut, VM.heal, 1.3), ALL_DONE),
    "link down": (Fault(VM.unplug, VM.plug, 1.3), ALL_DONE),
    "connection refused": (Fault(VM.refuse, VM.accept, 1.0), ALL_DONE),
    "connection refused, sessions killed": (Fault(refuse_and_kill, VM.accept, 1.0), ALL_DONE),
    "sessions killed": (Fault(kill_again_and_again), ALL_DONE),
    "sshd restarted": (Fault(restart_sshd), ALL_DONE),
    "100 ms and 5 % loss": (Fault(slowed, healthy, 1.5), ALL_DONE),
    "engine stopped by TERM": (
        Fault(lambda vm: vm.stop_docker("TERM"), VM.start_docker, 1.0, at_once=True),
        (DONE, DONE, DONE, STOPPED, ENDED, DONE, DONE),
    ),
    "engine stopped by KILL": (
        # When the engine comes back, it ends the containers that continued without it.
        Fault(lambda vm: vm.stop_docker("KILL"), VM.start_docker, 1.0, at_once=True),
        (DONE, DONE, DONE, STOPPED, ENDED, DONE, DONE),
    ),
    "engine paused": (Fault(VM.pause_docker, VM.resume_docker, 1.5, at_once=True), ALL_DONE),
    "VM rebooted": (Fault(VM.reboot), (DONE, DONE, LOST, AnyOf((DONE, GONE, ENDED)), ENDED, DONE, DONE)),
    "disk full": (
        Fault(VM.fill, VM.unfill, None, at_once=True),
        (NO_SPACE, NO_SPACE, CUT, NO_SPACE, DONE, DONE, DONE),
    ),
    "disk full half way through": (
        Fault(lambda vm: vm.fill(10), VM.unfill, None, at_once=True),
        # The rest would not be enough for an agent's work.
        (DONE, NO_SPACE, DONE, NO_SPACE, DONE, DONE, DONE),
    ),
    "VM's clock an hour behind": (Fault(nothing), ALL_DONE),
    "VM's clock an hour ahead": (Fault(nothing), ALL_DONE),
}
CLOCKS = {"VM's clock an hour behind": 3600, "VM's clock an hour ahead": -3600}
"""Seconds to move the controller's clock: the VM has the machine's own clock, and only the difference matters."""


@pytest.mark.parametrize("name", MATRIX)
def test_matrix(name: str, vms: Callable[..., VM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, results = MATRIX[name]
    # Each row has its own VM: a run that a fault cut off at its end keeps its lease for a minute.
    vm = vms(home_mb=110 if "disk" in name else None)
    if name in CLOCKS:
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + CLOCKS[name])
    struck = play(Striker(vm, fault), tmp_path)
    wrong = {
        phase.name: struck.of(phase)
        for phase, allowed in zip(Phase, results, strict=True)
        if not allowed.allows(struck.of(phase))
    } | wrong_at_the_end(struck)
    assert not wrong


def wrong_at_the_end(struck: EndedRun) -> dict[str, object]:
    """Return what is wrong: a run must reach its end, download its file, not fall back, and leave nothing."""
    result = struck.result
    # The only allowed warning is about output that the VM could not keep.
    lost = [words for words in result.state.warnings if "the end of its output is lost" in words]
    step = struck.of(Phase.VM_STEP)
    is_cut = (step.outcome, step.log) == (Outcome.FAILED, PART)
    wrong: dict[str, object] = {
        "END": "" if result.outcome is Outcome.SUCCEEDED else f"{result.outcome}: {result.message}",
        "FILE": "" if struck.brought else "the downloaded file is not the uploaded one",
        "DOWNGRADES": result.state.downgrades,
        "WARNINGS": [words for words in result.state.warnings if words not in lost],
        "LOST": "" if len(lost) == is_cut else f"the log is {'' if is_cut else 'not '}cut, and the warnings are {lost}",
        "LEFT": struck.left,
    }
    return {word: what for word, what in wrong.items() if what}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(refuse_and_kill, VM.accept, 6, at_once=True), id="connection"),
        pytest.param(Fault(lambda vm: vm.stop_docker("KILL"), VM.start_docker, 6, at_once=True), id="engine"),
    ],
)
def test_a_started_command_is_never_unavailable_however_long_its_place_does_not_answer(
    fault: Fault, fresh_vm: VM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault strikes when the engine has started the container and pccpipe does not know it yet."""
    ask = DockerEngine.ask

    def ask_and_strike(self: DockerEngine, call: ApiCall, *arguments: Any, **named: Any) -> Any:
        answer = ask(self, call, *arguments, **named)
        if call is ApiCall.START:
            striker.strike(Phase.CREATE)
        return answer

    monkeypatch.setattr(DockerEngine, "ask", ask_and_strike)
    striker = Striker(fresh_vm, fault, frozenset())
    struck = play(striker, tmp_path, MAKE)
    result = struck.of(Phase.CREATE)
    assert result.ran == 1
    # An engine that was dead when the container ended can only report 255.
    assert result.outcome in {Outcome.SUCCEEDED, Outcome.FAILED, Outcome.LOST}
    assert not [line for line in struck.left if line.startswith(("container", "process"))]


def test_a_run_with_only_containers_leaves_nothing(fresh_vm: VM, tmp_path: Path) -> None:
    struck = play(Striker(fresh_vm, Fault(nothing), frozenset()), tmp_path, MAKE)
    assert struck.result.outcome is Outcome.SUCCEEDED
    assert struck.left == []
