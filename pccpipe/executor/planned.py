"""The plan of a run as data: which step would run where."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from pccpipe.outcome import Place
from pccpipe.spec.model import Container, Pipeline, Step
from pccpipe.spec.project_model import Project
from pccpipe.target import ContainerSettings
from pccpipe.values import Json


class PlannedContainer(Struct, frozen=True):
    written: Container
    """As the pipeline describes it."""
    settings: ContainerSettings
    """With its image, as far as that can be known."""


class Way(Struct, frozen=True):
    """A place where a run step would run, and its command there."""

    place: Place
    host: str
    command: str
    """With shell-quoted values, as far as they can be known."""
    shell: str
    shell_options: tuple[str, ...]
    cwd: str | None
    env: Mapping[str, str]
    container: PlannedContainer | None
    choice: str = ""
    """The `container:` of a leg whose values are not known yet."""


class PlannedStep(Struct, frozen=True):
    path: str
    """As the run will name it, without the rounds of a `repeat`."""
    depth: int
    kind: str
    step: Step
    always: bool
    condition: str | None
    """As written, or `false`/`true` when that can be known."""
    timeout: str | None
    """Seconds as a number, or the expression."""
    of_group: bool = False
    """True under the `always:` of the group around it."""
    does: str = ""
    """The action or the group in words: paths, rounds, how many steps at once."""
    asked: Place | None = None
    ways: tuple[Way, ...] = ()
    """Of a run step: its first place, then its fallback if that is allowed."""
    result: str | None = None
    unattested: bool = False
    """A command on the VM could forge its result."""


class Plan(Struct, frozen=True):
    pipeline: Pipeline
    project: Project
    inputs: Mapping[str, Json]
    steps: tuple[PlannedStep, ...]
    warnings: tuple[str, ...]
    upstreams: Mapping[str, str]
    """The base URL of the API of each secret that stays on the controller, by the secret's name."""
