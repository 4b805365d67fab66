"""Draw from a seed which faults strike a run, and when."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.testbed.vm import VM

EVENTS = 75
"""About the number of events of an undisturbed run."""
KINDS = ("kill", "kill", "kill", "sessions", "sessions", "refuse", "engine", "cancel")


@dataclass(frozen=True)
class Strike:
    """One fault: it begins `after` seconds after the journal has this number of `events`, and ends after `seconds`."""

    kind: str
    events: int
    after: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The faults of a seed, in order."""

    seed: int
    strikes: tuple[Strike, ...]
    run_as: bool

    @property
    def kinds(self) -> set[str]:
        return {strike.kind for strike in self.strikes}


def plan(seed: int) -> Plan:
    """Draw the faults of a seed: at most one cancel, as the last fault."""
    dice = random.Random(seed)
    strikes = [
        Strike(dice.choice(KINDS), dice.randint(0, EVENTS), dice.uniform(0, 0.4), dice.uniform(0.3, 3.0))
        for _ in range(dice.randint(1, 4))
    ]
    strikes.sort(key=lambda strike: strike.events)
    cancels = [strike for strike in strikes if strike.kind == "cancel"]
    others = [strike for strike in strikes if strike.kind != "cancel"]
    return Plan(seed, (*others, *cancels[:1]), dice.random() < 0.3)


@dataclass
class Striker:
    """Strikes as a plan says. The player does `kill` and `cancel`."""

    vm: VM
    plan: Plan
    kill: Callable[[], None]
    cancel: Callable[[], None]
    log: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def strike_all(self, journal: Path) -> None:
        """Wait for each moment and strike; return when the last fault or the run has ended."""
        for strike in self.plan.strikes:
            while not self._over.is_set() and _lines(journal) < strike.events:
                time.sleep(0.01)
            if self._over.wait(strike.after):
                return
            self.log.append(f"{strike.kind} at {_lines(journal)} events, {strike.seconds:.1f} s")
            self._strike(strike)

    def over(self) -> None:
        """Note that the run has ended: no fault begins any more."""
        self._over.set()

    def _strike(self, strike: Strike) -> None:
        match strike.kind:
            case "kill":
                self.kill()
            case "cancel":
                self.cancel()
            case "sessions":
                self.vm.kill_sessions()
            case "refuse":
                self.vm.refuse()
                self.vm.kill_sessions()
                time.sleep(strike.seconds)
                self.vm.accept()
            case "engine":
                self.vm.stop_docker("KILL")
                time.sleep(strike.seconds / 2)
                self.vm.start_docker()
            case _:
                raise ValueError(strike.kind)


def _lines(journal: Path) -> int:
    try:
        return journal.read_bytes().count(b"\n")
    except OSError:
        return 0
