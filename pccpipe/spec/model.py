"""A pipeline as data: frozen, typed, already checked. No behaviour beyond its own data.

Text with `${{ }}` in it is a `Template`; a value that may be given as an expression is `Value[T]`, either the value
itself or an `Expression` that the engine evaluates when the step's turn comes. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe.limits import LOG, RUN_LOGS
from pccpipe.outcome import IsolationMode, Outcome, Place
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.position import Position
from pccpipe.spec.source import Change
from pccpipe.target import ContainerSettings

T = TypeVar("T", int, float, str)

LETTERS = {"errexit": "e", "nounset": "u", "xtrace": "x"}
"""Options of a shell by the letters that every sh takes. `pipefail` has none, and is bash's."""
DEFAULT_OPTIONS: Mapping[str, tuple[str, ...]] = {"sh": ("errexit",), "bash": ("errexit", "pipefail")}
"""A script stops at its first failing command, as those of GitHub Actions, GitLab and others do."""

Scalar: TypeAlias = "str | int | float | bool"


class Value(Struct, Generic[T], frozen=True):
    """A value that is known now, or an expression that gives it later."""

    known: T | None = None
    expression: Expression | None = None


class InputType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    PATH = "path"
    """A file or folder on this machine; relative to the current folder when given with --input, else to the
    pipeline's.
    """


class Input(Struct, frozen=True):
    name: str
    type: InputType
    position: Position
    description: str = ""
    default: Scalar | None = None
    """None: it must be given."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Scalar, ...] = ()


class SecretSource(StrEnum):
    ENV = "env"
    FILE = "file"
    COMMAND = "command"


class Via(StrEnum):
    DIRECT = "direct"
    PROXY = "proxy"
    """The value stays in this process; a step gets a token for the proxy in its place."""


class Secret(Struct, frozen=True):
    """Where a secret's value comes from: the variable, the file's path or the command line in `source_name`."""

    name: str
    source: SecretSource
    source_name: str
    position: Position
    via: Via = Via.DIRECT
    upstream: Template | None = None
    """With `via: proxy` the base URL of the API that the value is the key to."""
    allow: tuple[str, ...] = ()
    """With `via: proxy` what may be asked of it: `POST /responses`."""
    models: tuple[Template, ...] = ()
    """The models that may be asked; all, if there are none."""
    service_tiers: tuple[str, ...] = ()
    hosted_tools: tuple[str, ...] = ()
    """What the provider may do for the agent beside answering, by name."""


class Container(Struct, frozen=True):
    """A container as the pipeline describes it, with `extends:` filled in."""

    name: str
    image: Template
    position: Position
    settings: ContainerSettings
    """All but its image, which may be an expression."""
    env: Mapping[str, Template] = field(default_factory=dict)
    egress: tuple[str, ...] = ()
    """The domains that it reaches through the proxy."""

    def of_image(self, image: str) -> ContainerSettings:
        """Return what to ask of the target, with the image's name evaluated."""
        return replace(self.settings, image=image)


class FileKind(StrEnum):
    TEXT = "text"
    """The text itself, a template."""
    TEMPLATE = "template"
    """A file beside the pipeline, a template."""
    FILE = "file"
    """A file as it is."""
    SCHEMA = "schema"
    """A result's JSON Schema, by the name or path that `result: schema:` takes."""
    PATCH = "patch"
    """A patch that `diff:` made, behind the list of its files; cut if it is long."""


class FileInput(Struct, frozen=True):
    """A file that a command finds in `PCC_IN`."""

    name: str
    kind: FileKind
    content: Template
    """For TEXT and TEMPLATE what to render (without shell quoting); for FILE, SCHEMA and PATCH the path or name."""


class ResultSpec(Struct, frozen=True):
    """The JSON that a step leaves at `$PCC_OUT/<last part of path>`; it comes home to `path` in the run's folder."""

    path: Template
    schema: str | None
    """A built-in schema's name, or the path of a schema file beside the pipeline; None: any JSON."""
    schema_json: Mapping[str, object] | None
    position: Position


class Retry(Struct, frozen=True):
    """How often a step is tried in all, and after which outcomes again. The wait doubles after each try."""

    attempts: int = 1
    backoff: float = 1.0
    outcomes: frozenset[Outcome] = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.UNAVAILABLE})


class Host(Struct, frozen=True):
    """All that a fallback may change of a run step."""

    on: Place
    run: Template
    shell: str = "sh"
    shell_options: tuple[str, ...] = ()
    """The shell's options that are on for the script, by their names of `set -o`."""
    cwd: Template | None = None
    env: Mapping[str, Template] = field(default_factory=dict)
    container: Container | None = None

    @property
    def command_line(self) -> str:
        """The shell with its options, to which the script's file is added."""
        letters = "".join(LETTERS[option] for option in self.shell_options if option in LETTERS)
        words = (f"-{letters}" if letters else "", "-o pipefail" if "pipefail" in self.shell_options else "")
        return " ".join(filter(None, (self.shell, *words)))


class Run(Struct, frozen=True):
    """Runs a command on a target."""

    where: Host
    fallback: Host | None = None
    """Where and what to run instead when the first place is unavailable."""
    secrets: tuple[str, ...] = ()
    files: tuple[FileInput, ...] = ()
    result: ResultSpec | None = None
    isolation_required: bool = False
    as_login: bool = False
    """On a VM with `run_as` it runs as the login all the same."""
    log_limit: int = LOG.most
    """Bytes that are kept of its output."""
    max_tokens: Value[int] | None = None
    budget: Value[int] | None = None
    """Tokens for all turns of the step together."""
    """Of the model, through the proxy, in all attempts of one turn."""


class Upload(Struct, frozen=True):
    """Makes the run's own copy of the workspace, and brings it to the VM if the project has one."""

    exclude: tuple[str, ...] = ()
    fall_back_locally: bool = False
    """`fallback: {on: local}`: without the VM, the copy at home is enough."""
    isolation_required: bool = False


class Download(Struct, frozen=True):
    """Brings files of the workspace home, into the run's `artifacts/`."""

    paths: tuple[Template, ...]


class Diff(Struct, frozen=True):
    """Writes `diff.patch`: what was sent against what is there now, made on the host's side."""

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
    """Runs its steps again and again, until the condition holds; FAILED when `max` rounds did not get there."""

    max: Value[int]
    until: Expression | None
    steps: tuple[Step, ...]


class Parallel(Struct, frozen=True):
    """Runs its steps side by side, at most `max_parallel` at a time; all of them end before it does."""

    steps: tuple[Step, ...]
    max_parallel: int


Body: TypeAlias = Run | Upload | Download | Diff | Remove | Build | Repeat | Parallel


class Step(Struct, frozen=True):
    id: str
    body: Body
    position: Position
    changes: tuple[Change, ...] = ()
    """What including files do to it, the innermost first."""
    name: str = ""
    description: str = ""
    condition: Expression | None = None
    timeout: Value[float] | None = None
    retry: Retry = Retry()
    continue_on_error: bool = False
    fails_as: str | None = None
    """The run's status when this step's failure ends the run, instead of the outcome's own word."""
    matrix: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    matrix_parallel: int = 1


class Pipeline(Struct, frozen=True):
    path: Path
    text: str
    """For the record: the file's text, or one that says the same without the files that it includes."""
    name: str
    inputs: Mapping[str, Input]
    secrets: Mapping[str, Secret]
    env: Mapping[str, Template]
    steps: tuple[Step, ...]
    always: tuple[Step, ...]
    description: str = ""
    timeout: Value[float] | None = None
    files: Mapping[str, Path] | None = None
    """The files that `text` names, by name; None if they can't be copied so that the names still lead to them."""
    included: tuple[str, ...] = ()
    """The files that it includes, the next one first."""
    removed: Mapping[str, Position] = field(default_factory=dict)
    """Where included steps are taken out, by id."""

    def all_steps(self) -> Iterator[Step]:
        """Every step, also those inside of groups and under `always:`, in the order of the file."""
        return _with_inner((*self.steps, *self.always))


def _with_inner(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if isinstance(step.body, Repeat | Parallel):
            yield from _with_inner(step.body.steps)


class Vm(Struct, frozen=True):
    """How a project's VM is reached. Paths of keys are on this machine, `root` is on the VM."""

    external_ip: str
    user: str
    port: int = 22
    key_path: Path | None = None
    known_hosts: Path | None = None
    """None: ~/.ssh/known_hosts."""
    root: str = "/home/project"
    proxy_jump: str | None = None
    """The hosts to go through, in order: `[USER@]HOST[:PORT]`, with commas between them."""
    jump_key_path: Path | None = None
    """None: `key_path`."""
    run_as: str | None = None
    """The account that `on: vm` steps run as there; None: the login itself."""
    shared_home: tuple[str, ...] = ()
    """Folders there that steps of the `run_as` account may read."""
    engine_socket: str | None = None
    """The socket of its engine; None: the system's, else the login's own."""


class Project(Struct, frozen=True):
    """The project file. Without one, everything is local."""

    id: str
    isolation_mode: IsolationMode
    vm: Vm | None = None
    isolation_required: bool = False
    lost_after: float = 600.0
    """Seconds for which the VM, or the engine, may stay away before a step that runs there is lost."""
    log_quota: int = RUN_LOGS.most
    """Bytes that all logs of a run may take together."""
    path: Path | None = None
    local: bool = False
    """Whether all runs on this machine because the operator says so, and not the file."""

    @property
    def title(self) -> str:
        """The project and its file, in words."""
        return f"project {self.id} ({self.path or 'no project file'})"
