"""A case of a test file, as data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from pccpipe.scripted.script import ScriptTurn
from pccpipe.values import Json


class FaultKind(StrEnum):
    KILL_CONTROLLER = "kill_controller"
    CUT_CONNECTION = "cut_connection"
    CANCEL = "cancel"


class RunFault(Struct, frozen=True):
    """A fault, once, after an event of a step."""

    step: str
    do: FaultKind
    event: str = "command_started"

    @property
    def name(self) -> str:
        return f"{self.do.value} at {self.step} ({self.event})"


class Expectation(Struct, frozen=True):
    """What must come of a run; None is not checked."""

    outcome: str | None = None
    status: str | None = None
    code: str | None = None
    message: str | None = None
    rounds: Mapping[str, int] = {}
    steps: Mapping[str, str] = {}
    results: Mapping[str, Json] = {}
    calls: Mapping[str, int] = {}
    prompts: Mapping[str, tuple[str, ...]] = {}
    agents: Mapping[str, str] = {}
    downgraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] | None = None
    changed: tuple[str, ...] | None = None
    patch: tuple[str, ...] = ()


class ScriptedCase(Struct, frozen=True):
    """One run of a pipeline against a script."""

    name: str
    folder: Path
    """The folder of the test file: paths of inputs begin there."""
    pipeline: Path
    project: Path | None
    inputs: Mapping[str, Json]
    workspace: Path | Mapping[str, str]
    """A folder to copy, or files with their text."""
    timeout: float
    script: Mapping[str, tuple[ScriptTurn, ...]]
    faults: tuple[RunFault, ...]
    answers: Mapping[str, str]
    resumes: int
    """How often the run is resumed if it waits for a model."""
    expect: Expectation
