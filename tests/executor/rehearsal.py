"""Play a pipeline with scripted targets and a workspace that only records its calls."""

from __future__ import annotations

import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pccpipe.cancel import Cancel, Halt
from pccpipe.errors import ActionError, Unavailable
from pccpipe.executor.context import RunContext, Serials
from pccpipe.executor.executor import execute
from pccpipe.executor.replay import Replay
from pccpipe.outcome import IsolationMode, Place
from pccpipe.record.events import CommandStarted, Event, Happening, StepEnded
from pccpipe.record.run_events import RunEnding
from pccpipe.record.state import RunState, state_of
from pccpipe.secrets.prices import Prices
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.values import Secrets
from pccpipe.service import ServiceCommand
from pccpipe.spec.inputs import resolve_inputs
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Build
from pccpipe.spec.project_model import Project, Vm
from pccpipe.target import Command
from pccpipe.targets.dummy import DummyTarget, Play
from pccpipe.targets.dummy_services import DummyServices, ServicePlay
from pccpipe.values import Json
from pccpipe.workspace.base import Changed, CopyEnd, Downloaded, Sent, Side

H = TypeVar("H")
Script = Callable[[Command], Play]


class Notes:
    """A journal that keeps events in memory."""

    def __init__(self, on_event: Callable[[Happening], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._on_event = on_event
        self.happenings: list[Happening] = []

    def append(self, happening: Happening, when_synced: Callable[[], None] | None = None) -> Event:
        with self._lock:
            self.happenings.append(happening)
        if when_synced:
            when_synced()
        if self._on_event:
            self._on_event(happening)
        return Event(len(self.happenings), time.time(), happening)

    def of(self, kind: type[H]) -> list[H]:
        return [happening for happening in self.happenings if isinstance(happening, kind)]


@dataclass
class NotedWorkspace:
    """A workspace that does nothing and records its calls."""

    local_folder: Path
    calls: list[str] = field(default_factory=list)
    vm_gone: Unavailable | None = None
    broken: ActionError | None = None
    lasts: float = 0.0
    """Seconds that each transfer takes."""
    removal_lasts: float = 0.0
    missing: frozenset[str] = frozenset()
    """The paths that a download does not find."""
    label: str = ""

    def folder_on(self, side: Side) -> str:
        return f"/own/{self.label}" if self.label else ""

    def own(self, name: str, *, is_disposable: bool) -> NotedCopy:
        self.calls.append(f"own {name}{'' if is_disposable else ' of an agent'}")
        return NotedCopy(self.local_folder, self.calls, self.vm_gone, self.broken, label=name)

    def resume(self) -> None:
        self._call("resume")

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.vm_gone:
            raise self.vm_gone
        if self.broken:
            raise self.broken

    has_git = False

    def has_undiffed_changes(self, halt: Halt | None = None) -> bool:
        return False

    def upload(self, exclude: Sequence[str], halt: Halt, *, with_git: bool = False) -> Sent:
        self._call("upload")
        halt.wait(self.lasts)
        return Sent(1, 1, "tar", 0.0)

    def prepare(self, side: Side, halt: Halt, *, or_last_known: bool = False) -> Sent | None:
        self.calls.append(f"prepare {side.value}{' or last known' if or_last_known else ''}")
        halt.wait(self.lasts)
        return None

    def ensure_local(self, halt: Halt) -> bool:
        return False

    def mark_changed(self, side: Side) -> None:
        self.calls.append(f"touched {side.value}")

    def download(
        self, paths: Sequence[str], into: Path, halt: Halt, *, exclude: Sequence[str] = (), by_name: bool = False
    ) -> Downloaded:
        without = "".join(f" !{pattern}" for pattern in exclude)
        self._call(f"download {' '.join(paths)}{without}{' by name' if by_name else ''}")
        halt.wait(self.lasts)
        missing = tuple(path for path in paths if path in self.missing)
        return Downloaded(1, 1, missing, (), without_files=missing)

    def diff(self, patch: Path, halt: Halt) -> Changed:
        self._call(f"diff {patch.name}")
        return Changed(1, 1, 0)

    def remove(self, halt: Halt) -> tuple[str, ...]:
        self._call("remove")
        halt.wait(self.removal_lasts)
        return ()


class NotedCopy(NotedWorkspace):
    """A step's own copy; it begins its lines with its name."""

    def prepare(self, side: Side, halt: Halt, *, or_last_known: bool = False) -> Sent | None:
        self.calls.append(f"{self.label}: prepare {side.value}")
        return None

    def mark_changed(self, side: Side) -> None:
        """Note nothing."""

    def download(
        self, paths: Sequence[str], into: Path, halt: Halt, *, exclude: Sequence[str] = (), by_name: bool = False
    ) -> Downloaded:
        self.calls.append(f"{self.label}: download into {into.name}")
        return Downloaded(1, 1, (), ())

    def end(self, halt: Halt) -> CopyEnd:
        self.calls.append(f"{self.label}: end")
        return CopyEnd()


class DummyTargets(dict[Place, DummyTarget]):
    had_vm = False
    vm_history: str | None = None
    fenced: str | None = None
    remembered = 0

    def __init__(self, targets: Mapping[Place, DummyTarget]) -> None:
        super().__init__(targets)
        self.services = DummyServices()

    def gives_sign(self, place: Place) -> bool:
        return True

    def remember_vm(self) -> None:
        self.remembered += 1

    def leave(self) -> None:
        for target in self.values():
            target.leave()

    def close(self) -> list[str]:
        return [left for target in self.values() for left in target.close()]


class NoImages:
    def build(self, build: Build, image: str, args: object, log: Path, halt: Halt) -> bool:
        return True


@dataclass
class Played:
    ending: RunEnding
    notes: Notes
    targets: DummyTargets
    workspace: NotedWorkspace
    run_dir: Path

    @property
    def state(self) -> RunState:
        """Return the run's state after its last event."""
        return state_of([Event(1, 0.0, self.ending)])

    @property
    def ends(self) -> list[tuple[str, str]]:
        """Return (path, outcome) of each step, in the order of their ends."""
        return [(end.step, end.outcome.value) for end in self.notes.of(StepEnded)]

    @property
    def order(self) -> list[str]:
        """Return the steps whose commands began, in that order, with their places."""
        return [f"{event.step}@{event.had.place.value}" for event in self.notes.of(CommandStarted)]

    def end_of(self, path: str) -> StepEnded:
        (end,) = [end for end in self.notes.of(StepEnded) if end.step == path]
        return end


@dataclass
class Stage:
    """The settings of a rehearsal: change some, then `stage.play(yaml)`."""

    folder: Path
    script: Script = lambda command: Play()
    mode: IsolationMode = IsolationMode.VM
    fallback_allowed: bool = True
    secrets: dict[str, str] = field(default_factory=dict)
    cancel: Cancel = field(default_factory=Cancel)
    on_event: Callable[[Happening], None] | None = None
    vm_gone: Unavailable | None = None
    broken: ActionError | None = None
    transfers_last: float = 0.0
    removal_lasts: float = 0.0
    missing: frozenset[str] = frozenset()
    had_vm: bool = False
    vm_history: str | None = None
    run_as: str | None = None
    lost_after: float = 600.0
    accepted: frozenset[str] = frozenset()
    services: Callable[[ServiceCommand], ServicePlay] = lambda service: ServicePlay()
    proxy: Proxy = field(default_factory=Proxy)
    prices: Prices | None = None

    def targets(self) -> DummyTargets:
        targets = DummyTargets({place: DummyTarget(place, self.script) for place in Place})
        targets.services = DummyServices(self.services)
        targets.had_vm, targets.vm_history = self.had_vm, self.vm_history
        return targets

    def play(
        self,
        text: str,
        notes: Notes | None = None,
        targets: DummyTargets | None = None,
        replay: Replay | None = None,
        **inputs: Json,
    ) -> Played:
        """Play a pipeline; with the notes, targets and replay of a killed run, play the rest of it."""
        path = self.folder / "pipeline.yaml"
        path.write_text("version: 1\nname: rehearsal\n" + textwrap.dedent(text))
        pipeline = load_pipeline(path)
        run_dir = self.folder / "run"
        run_dir.mkdir(exist_ok=True)
        notes = notes or Notes(self.on_event)
        targets = targets or self.targets()
        workspace = NotedWorkspace(self.folder, [], self.vm_gone, self.broken, self.transfers_last, self.removal_lasts)
        workspace.missing = self.missing
        parts = RunContext(
            run_id="rehearsal-1",
            run_dir=run_dir,
            pipeline=pipeline,
            project=Project("p", self.mode, Vm("192.0.2.1", "pcc", run_as=self.run_as), lost_after=self.lost_after),
            targets=targets,
            workspace=workspace,
            images=NoImages(),
            journal=notes,
            secrets=Secrets(self.secrets),
            cancel=self.cancel,
            fallback_allowed=self.fallback_allowed,
            serials=Serials(),
            replay=replay or Replay(),
            proxy=self.proxy,
            prices=self.prices,
            accepted_fallbacks=self.accepted,
        )
        ending = execute(parts, resolve_inputs(pipeline, inputs))
        return Played(ending, notes, targets, workspace, run_dir)
