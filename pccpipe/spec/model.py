"""A pipeline as data: frozen, typed, checked.

Text with `${{ }}` in it is a `Template`. A `Value[T]` is a value, or an `Expression` that the executor evaluates in
the step's turn. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe.errors import ExpressionError
from pccpipe.limits import LOG
from pccpipe.outcome import Outcome, Place
from pccpipe.spec.agent_task import Agent, AgentTask, FileInput, with_secret
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.matrix import Matrix, Scalar
from pccpipe.spec.position import Position
from pccpipe.spec.problem import did_you_mean
from pccpipe.spec.ready import Ready
from pccpipe.spec.secret import Secret
from pccpipe.spec.services import Service
from pccpipe.spec.source import Change
from pccpipe.target import ContainerSettings

T = TypeVar("T", int, float, str)

LETTERS = {"errexit": "e", "nounset": "u", "xtrace": "x"}
"""Options of a shell, and their letters, which every sh accepts. `pipefail` has no letter; only bash has it."""
DEFAULT_OPTIONS: Mapping[str, tuple[str, ...]] = {"sh": ("errexit",), "bash": ("errexit", "pipefail"), "": ()}
"""Default options by dialect: a script stops at its first failing command, as in GitHub Actions, GitLab and others."""


class Value(Struct, Generic[T], frozen=True):
    """A known value, or an expression that gives it later."""

    known: T | None = None
    expression: Expression | None = None


class InputType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    PATH = "path"
    """A file or folder on this machine, relative to the current folder with --input, else to the pipeline's folder."""
    LIST = "list"


class Input(Struct, frozen=True):
    name: str
    type: InputType
    position: Position
    description: str = ""
    default: Scalar | tuple[Scalar, ...] | None = None
    """Default value; None: the input is required."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Scalar, ...] = ()


class Container(Struct, frozen=True):
    """A container as the pipeline describes it, with `extends:` filled in."""

    name: str
    image: Template
    position: Position
    settings: ContainerSettings
    """All but its image, which may be an expression."""
    env: Mapping[str, Template] = field(default_factory=dict)
    egress: tuple[str, ...] = ()
    """The domains that the container reaches through the proxy."""

    def of_image(self, image: str) -> ContainerSettings:
        """Return the settings with the evaluated name of the image."""
        return replace(self.settings, image=image)


class ContainerChoice(Struct, frozen=True):
    """A container that the values of a matrix name."""

    name: Template
    among: Mapping[str, Container]

    def container(self, names: Mapping[str, object]) -> Container:
        """Return the named container. Raises ExpressionError if there is none."""
        name = self.name.render(names)
        if name not in self.among:
            hint = did_you_mean(name, self.among)
            message = f"there is no container `{name[:100]}`{f': {hint}' if hint else ''}"
            raise ExpressionError(self.name.position, self.name.source, message)
        return self.among[name]


class ResultSpec(Struct, frozen=True):
    """The JSON that a step leaves at `$PCC_OUT/<last part of path>`; pccpipe copies it to `path` in the record."""

    path: Template
    schema: str | None
    """A built-in schema's name, or the path of a schema file beside the pipeline; None: any JSON."""
    schema_json: Mapping[str, object] | None
    position: Position


class Retry(Struct, frozen=True):
    """The number of attempts of a step, and the outcomes that lead to another. The wait doubles after each."""

    attempts: int = 1
    backoff: float = 1.0
    outcomes: frozenset[Outcome] = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.UNAVAILABLE})
    exit_codes: frozenset[int] = frozenset()
    """The exit codes of `failed` that lead to another; empty: each failure does."""
    max_backoff: float | None = None
    """The longest wait; None: it doubles without an end."""

    def wait_before(self, number: int) -> float:
        """Return the wait before the next attempt but `number` ones: 0 for the second attempt."""
        doubled = self.backoff * float(1 << number)
        return doubled if self.max_backoff is None else min(doubled, self.max_backoff)


class Host(Struct, frozen=True):
    """The settings of a run step that a fallback may change."""

    on: Place
    run: Template
    shell: str = "sh"
    """The program that runs the script, with options: `sh`, `python3 -u`."""
    shell_options: tuple[str, ...] = ()
    """The shell's options for the script, by their names in `set -o`."""
    cwd: Template | None = None
    env: Mapping[str, Template] = field(default_factory=dict)
    container: Container | None = None
    choice: ContainerChoice | None = None
    """Set until a leg of a matrix chooses the container."""

    def chosen(self, names: Mapping[str, object]) -> Host:
        """Return it with the container that a leg's values name. Raises ExpressionError."""
        return self if self.choice is None else replace(self, container=self.choice.container(names), choice=None)

    @property
    def containers(self) -> tuple[Container, ...]:
        """All containers that it may run in."""
        return tuple(self.choice.among.values()) if self.choice else (self.container,) if self.container else ()

    @property
    def command_line(self) -> str:
        """Return the shell with its options; the script's file comes after them."""
        letters = "".join(LETTERS[option] for option in self.shell_options if option in LETTERS)
        words = (f"-{letters}" if letters else "", "-o pipefail" if "pipefail" in self.shell_options else "")
        return " ".join(filter(None, (self.shell, *words)))


class Budget(Struct, frozen=True):
    """The most that calls of a model may take, through the proxy; None for no limit."""

    tokens: Value[int] | None = None
    usd: Value[float] | None = None
    """Money, by estimate."""
    asks: bool = False
    """True if the run waits for a person when it is used up."""
    most_tokens: int | None = None
    """The most that a person may raise it to, by a policy."""
    most_usd: float | None = None


class Run(Struct, frozen=True):
    """Runs a command on a target, or an agent."""

    where: Host
    fallback: Host | None = None
    """The settings to run with when the first place is unavailable."""
    secrets: tuple[str, ...] = ()
    files: tuple[FileInput, ...] = ()
    result: ResultSpec | None = None
    isolation_required: bool = False
    as_login: bool = False
    """True if it runs as the login even on a VM with `run_as`."""
    log_limit: int = LOG.most
    """The most bytes of its output that the record keeps."""
    max_tokens: Value[int] | None = None
    """Tokens of the model, through the proxy, for all attempts of one turn."""
    budget: Budget | None = None
    """For all turns of the step together."""
    agent: AgentTask | None = None
    background: bool = False
    """True if it runs on beside the next steps, and ends with its group."""
    ready: Ready | None = None
    """The check that a background command is ready; None: it is at once."""

    def in_leg(self, names: Mapping[str, object]) -> Run:
        """Return it with the containers that a leg's values name. Raises ExpressionError."""
        if not self.where.choice and not (self.fallback and self.fallback.choice):
            return self
        fallback = self.fallback.chosen(names) if self.fallback else None
        return replace(self, where=self.where.chosen(names), fallback=fallback)

    @property
    def all_secrets(self) -> tuple[str, ...]:
        """The secrets that its command may get, by any of its agents."""
        secrets = self.secrets
        for agent in self.agent.agents if self.agent else ():
            secrets = with_secret(secrets, agent.secret)
        return secrets

    def by(self, agent: Agent) -> Run:
        """Return the same work of an agent step by another of its agents."""
        assert self.agent is not None
        return replace(
            self,
            secrets=with_secret(self.agent.secrets, agent.secret),
            agent=replace(self.agent, agent=agent),
        )


class Upload(Struct, frozen=True):
    """Makes the run's own copy of the workspace, and uploads it if the project has a VM."""

    exclude: tuple[str, ...] = ()
    fall_back_locally: bool = False
    """True with `fallback: {on: local}`: without the VM, the copy on this machine is enough."""
    isolation_required: bool = False
    with_git: bool = False
    """True with `git: base`: the copies get a git repository with one commit of what was sent."""


class Download(Struct, frozen=True):
    """Copies files of the workspace into the run's `artifacts/`."""

    paths: tuple[Template, ...]
    """Names and patterns of files and folders."""
    exclude: tuple[str, ...] = ()
    required: bool = False
    """True if the step fails when a path brings no file."""
    by_name: bool = False
    """True in the record of an earlier version, in which no path was a pattern."""


class Diff(Struct, frozen=True):
    """Writes the difference between the uploaded workspace and its current state, computed on this machine."""

    path: Template


class Remove(Struct, frozen=True):
    """Removes the run's copy of the workspace from the VM."""


class Build(Struct, frozen=True):
    """Builds an image on the engine from a folder on this machine."""

    image: Template
    context: Path
    dockerfile: Path
    args: Mapping[str, Template]
    only_if_missing: bool


class Repeat(Struct, frozen=True):
    """Runs its steps in rounds until the condition holds; FAILED if it does not hold after `max` rounds."""

    max: Value[int]
    until: Expression | None
    steps: tuple[Step, ...]


class Parallel(Struct, frozen=True):
    """Runs its steps in parallel, at most `max_parallel` at a time; ends after the last of them."""

    steps: tuple[Step, ...]
    max_parallel: int
    fail_fast: bool = False
    """The first failure cancels the other steps."""


class Group(Struct, frozen=True):
    """Runs its steps in order, once."""

    steps: tuple[Step, ...]


Body: TypeAlias = Run | Upload | Download | Diff | Remove | Build | Repeat | Parallel | Group


class Step(Struct, frozen=True):
    id: str
    body: Body
    position: Position
    changes: tuple[Change, ...] = ()
    """Changes by including files, the innermost first."""
    name: str = ""
    description: str = ""
    condition: Expression | None = None
    timeout: Value[float] | None = None
    retry: Retry = Retry()
    continue_on_error: bool = False
    continue_exit_codes: frozenset[int] = frozenset()
    """With `continue_on_error`: the exit codes after which alone the run continues; empty: after any end."""
    fails_as: str | None = None
    """The run's status when this step's failure ends the run; None: the outcome."""
    matrix: Matrix | None = None
    matrix_parallel: int = 1
    fail_fast: bool = False
    """Of a matrix: the first failure of a leg cancels the others."""
    services: Mapping[str, Service] = field(default_factory=dict)
    """The containers that live beside it, by name; each leg of a matrix has its own."""
    own_workspace: bool = False
    """It works in a copy of the workspace, as it was when the step, or its leg of the matrix, began."""
    needs: tuple[str, ...] = ()
    """Of a step of a `parallel:` group: the ids of the steps that end before it starts."""
    always: tuple[Step, ...] = ()
    """Of a group: the steps that run last, however its others ended."""

    @property
    def own_steps(self) -> tuple[Step, ...]:
        """The steps of a group without its `always:`; none of another step."""
        return self.body.steps if isinstance(self.body, Repeat | Parallel | Group) else ()

    @property
    def inner(self) -> tuple[Step, ...]:
        """The steps of a group, with its `always:`."""
        return (*self.own_steps, *self.always)


class Pipeline(Struct, frozen=True):
    path: Path
    text: str
    """Text for the record: the file's own, or an equal text that includes no other file."""
    name: str
    inputs: Mapping[str, Input]
    secrets: Mapping[str, Secret]
    env: Mapping[str, Template]
    steps: tuple[Step, ...]
    always: tuple[Step, ...]
    description: str = ""
    timeout: Value[float] | None = None
    budget: Budget | None = None
    """For all steps of a run together."""
    files: Mapping[str, Path] | None = None
    """The files that `text` names, by name; None if a copy could not keep the names."""
    included: tuple[str, ...] = ()
    """The included files, the nearest first."""
    agents: Mapping[str, Agent] = field(default_factory=dict)
    removed: Mapping[str, Position] = field(default_factory=dict)
    """Positions of the changes that remove included steps, by id."""

    def all_steps(self) -> Iterator[Step]:
        """Yield every step in the order of the file, including those in groups and under `always:`."""
        return with_inner((*self.steps, *self.always))


def with_inner(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the steps, and those in their groups."""
    for step in steps:
        yield step
        yield from with_inner(step.inner)
