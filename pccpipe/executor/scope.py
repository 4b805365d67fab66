"""The scope of expressions: inputs, the latest turn of each step, the round, the matrix, the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe.outcome import Outcome, Place
from pccpipe.record.events import StepEnded
from pccpipe.service import ServiceAddress
from pccpipe.spec.absent import NoResult
from pccpipe.values import Json


class Answers(Mapping[str, object]):
    """The answers that a step's agent got, by key. Agents choose the keys, so a missing one is an empty value."""

    def __init__(self, given: Mapping[str, Json]) -> None:
        self._given = given

    def with_more(self, given: Mapping[str, Json]) -> Answers:
        return Answers({**self._given, **given})

    def __getitem__(self, key: str) -> object:
        return self._given.get(key, NoResult())

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


class StepView(Struct, frozen=True):
    """The latest turn of a step, as `steps.ID` in an expression."""

    _ended: StepEnded | None = None
    """Begins with `_`, so that no expression reads it."""
    result: object = field(default_factory=NoResult)
    last_result: object = field(default_factory=NoResult)
    """The latest result, also if the step was skipped or failed after it."""
    results: list[object] = field(default_factory=list)
    """Of a step with a matrix: `matrix`, `outcome`, `exit_code` and `result` of each leg, in order."""
    answers: Answers = field(default_factory=lambda: Answers({}))
    """All answers that the step's agent got in this run."""
    unattested: bool = False
    """A command on the VM could have forged the result."""
    read_log: Callable[[str], str] | None = None
    """Reads the end of `output`, `stdout` or `stderr` from the log; None if no command ran."""
    is_running: bool = False
    """Its command runs in the background."""

    @property
    def outcome(self) -> str:
        unended = "running" if self.is_running else "not_run"
        return self._ended.outcome.value if self._ended else unended

    @property
    def exit_code(self) -> int | None:
        return self._ended.exit_code if self._ended else None

    @property
    def succeeded(self) -> bool:
        return self.outcome == Outcome.SUCCEEDED

    @property
    def failed(self) -> bool:
        return self.outcome in {Outcome.FAILED, Outcome.TIMED_OUT}

    @property
    def output(self) -> str:
        return self._log("output")

    @property
    def stdout(self) -> str:
        return self._log("stdout")

    @property
    def stderr(self) -> str:
        return self._log("stderr")

    def _log(self, which: str) -> str:
        return self.read_log(which) if self.read_log else ""


class ServiceView(Struct, frozen=True):
    """A service beside a step: its name, and its address for commands at a place."""

    name: str
    at: Callable[[Place], ServiceAddress | None]

    def names(self, place: Place) -> dict[str, object]:
        """Return the names below `services.NAME` for a command at a place; none if it cannot reach the service."""
        address = self.at(place)
        if address is None:
            return {}
        names: dict[str, object] = {"host": address.host}
        if address.ports:
            ports = {str(own): port for own, port in address.ports.items()}
            names |= {"port": next(iter(ports.values())), "ports": ports}
        return names


class RunView(Struct, frozen=True):
    """`run` in an expression. Status and outcome are `running` until the `always:` steps."""

    id: str
    isolation_mode: str
    folder: str
    """The run's folder on this machine, with its results, logs and `diff.patch`."""
    status: str = "running"
    outcome: str = "running"


class ProjectView(Struct, frozen=True):
    id: str


class Scope(Struct, frozen=True):
    """The names of expressions at one position; immutable, but for `steps` and `forged`, which all scopes share.

    Assigning to a key of a dict is atomic, so steps of a `parallel` group may do it side by side.
    """

    inputs: Mapping[str, Json]
    run: RunView
    project: ProjectView
    steps: dict[str, StepView]
    iteration: int | None = None
    matrix: Mapping[str, object] | None = None
    target: str | None = None
    services: Mapping[str, ServiceView] = field(default_factory=dict)
    """The services beside the step or a group around it."""
    forged: list[str] = field(default_factory=list)
    """The ids of the steps whose unattested results ended a loop, for all steps after it; shared as `steps` is."""

    def in_round(self, number: int) -> Scope:
        return replace(self, iteration=number)

    def in_leg(self, values: Mapping[str, Json], missing: Mapping[str, object]) -> Scope:
        """Return the scope of a leg; `missing` has the names that it may read although it has no such value."""
        return replace(self, matrix={**missing, **(self.matrix or {}), **values})

    def on(self, target: str) -> Scope:
        return replace(self, target=target)

    def ended(self, outcome: Outcome, status: str) -> Scope:
        return replace(self, run=replace(self.run, outcome=outcome.value, status=status))

    @property
    def names(self) -> dict[str, object]:
        """Return the names for an expression; a name without a value at this position is undefined."""
        names: dict[str, object] = {
            "inputs": self.inputs,
            "run": self.run,
            "project": self.project,
            "steps": self.steps,
        }
        if self.services:
            place = Place(self.target) if self.target else Place.CONTAINER
            names["services"] = {name: view.names(place) for name, view in self.services.items()}
        for name, value in (("iteration", self.iteration), ("matrix", self.matrix), ("target", self.target)):
            if value is not None:
                names[name] = value
        return names
