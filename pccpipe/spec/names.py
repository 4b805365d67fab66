"""The names that an expression may use at its place in the pipeline."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe.spec import foreign_text, habits
from pccpipe.spec.matrix import Leg
from pccpipe.spec.position import Position
from pccpipe.spec.problem import did_you_mean

STEP_NAMES = (
    "outcome",
    "succeeded",
    "failed",
    "exit_code",
    "result",
    "results",
    "last_result",
    "answers",
    "output",
    "stdout",
    "stderr",
)
SERVICE_NAMES = ("host", "port", "ports")
RUN_NAMES = ("id", "status", "outcome", "isolation_mode", "folder")
_LINES = 500
"""The lines after the beginning of a value that are searched for its names."""


class _AnyName(frozenset[str]):
    def __contains__(self, name: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


ANY_NAME = _AnyName()
"""Every name: stands for the names of a section that is wrong itself."""


class Declared(Struct, frozen=True):
    """The names that the whole pipeline declares."""

    inputs: Collection[str]
    steps: Collection[str]
    removed: Mapping[str, Position] = field(default_factory=dict)
    """Positions of the changes that remove included steps, by id."""
    statuses: frozenset[str] = frozenset()
    """The statuses of a run that `fails_as:` adds."""
    backgrounds: Collection[str] = ()
    """The ids of the steps that run in the background: one is `running` while the next ones have their turns."""
    matrices: Collection[str] = ()
    """The ids of the steps with their own `matrix:`."""
    without_result: Collection[str] = ()
    """The ids of the steps that leave no result."""
    result_keys: Mapping[str, Collection[str]] = field(default_factory=dict)
    """All possible keys of a step's result, by the step's id, if its schema allows no others."""


class MatrixNames(Struct, frozen=True):
    """One matrix around a place: the names by which its legs differ, and the legs if they are known."""

    telling: frozenset[str]
    legs: tuple[Leg, ...] | None = None

    @property
    def names_of_legs(self) -> frozenset[str]:
        """The names that its legs have; of unknown legs, those that tell them apart."""
        return self.telling if self.legs is None else frozenset(name for leg in self.legs for name in leg)

    def without(self, names: Collection[str]) -> MatrixNames:
        """Return it without the names that an inner matrix has too."""
        return replace(self, telling=self.telling - set(names))


class Visible(Struct, frozen=True):
    """The names that exist at one place of the pipeline."""

    steps: AbstractSet[str] = frozenset()
    own: str | None = None
    """The id of the step itself. After its agent asked a person, its next turn sees the answers."""
    iteration: bool = False
    matrix: Collection[str] = ()
    matrices: tuple[MatrixNames, ...] = ()
    """Of the step and of the groups around it, the outermost first."""
    texts: frozenset[str] = frozenset()
    """The names of the matrix whose values are text."""
    target: bool = False
    services: Mapping[str, Collection[str]] = {}
    """The ports of the services beside the step or a group around it, by name."""
    files: tuple[str, ...] | None = None
    """The names of the step's files, where `files` exists: in a prompt."""


def reference_problems(chain: Sequence[str], visible: Visible, declared: Declared) -> Iterator[tuple[str, str]]:
    """Yield each problem of a name with its attributes, `("steps", "test", "outcome")`, and a hint."""
    root, rest = chain[0], chain[1:]
    match root:
        case "inputs":
            if rest and rest[0] not in declared.inputs:
                hint = did_you_mean(rest[0], declared.inputs) or "declare it under `inputs:`"
                yield f"there is no input `{rest[0]}`", hint
        case "steps":
            yield from _step_problems(rest, visible, declared)
        case "run":
            if rest and rest[0] not in RUN_NAMES:
                yield f"`run` has no `{rest[0]}`", did_you_mean(rest[0], RUN_NAMES)
        case "project":
            if rest and rest[0] != "id":
                yield f"`project` has no `{rest[0]}`", "it has `id`"
        case "iteration":
            if not visible.iteration:
                yield "`iteration` exists only inside a `repeat:`", ""
        case "matrix":
            if not visible.matrix:
                yield "`matrix` exists only in a step with a `matrix:`", ""
            elif rest and rest[0] not in visible.matrix:
                yield f"the matrix has no `{rest[0]}`", did_you_mean(rest[0], visible.matrix)
        case "target":
            if not visible.target:
                yield "`target` exists only in a step with `run:`", ""
        case "services":
            yield from _service_problems(rest, visible.services)
        case "secrets":
            hint = 'list it in the step\'s `secrets:`, and write "$NAME" in `run:`'
            yield "an expression cannot use a secret", hint
        case "files":
            if visible.files is None:
                yield "`files` exists only in the `prompt:` of an agent", ""
            elif rest and rest[0] not in visible.files:
                hint = did_you_mean(rest[0], visible.files) or "add it to the step's `files:`"
                yield f"the step has no file `{rest[0]}`", hint
        case "range":
            pass
        case _:
            places = {
                "iteration": visible.iteration,
                "matrix": bool(visible.matrix),
                "target": visible.target,
                "files": visible.files is not None,
                "services": bool(visible.services),
            }
            known = ["inputs", "steps", "run", "project", *(name for name, exists in places.items() if exists)]
            hint = foreign_text.name_hint(tuple(chain))
            if not hint:
                is_word = root in habits.STEP_OUTCOMES
                hint = f"quote text: '{root}'" if is_word else did_you_mean(root, known)
            yield f"`{root}` is not defined", hint


def is_cut_by_minus(chain: Sequence[str], declared: Declared) -> bool:
    """Say whether `steps.my-step` was read as `steps.my` minus `step`."""
    return (
        len(chain) == 2
        and chain[0] == "steps"
        and chain[1] not in declared.steps
        and any(name.startswith(f"{chain[1]}-") for name in declared.steps)
    )


def place_of(chain: Sequence[str], lines: Sequence[str], start: Position) -> Position:
    """Return the position of a name with its attributes from `start` on; `start` if it is not found."""
    pattern = re.compile(r"(?<![\w.])" + r"\W{1,6}".join(re.escape(name) for name in chain[:2]) + r"(?!\w)")
    return find(pattern, lines, start)


def find(pattern: re.Pattern[str], lines: Sequence[str], start: Position, number: int = 0) -> Position:
    """Return the position of the n-th match (from 0) from `start` on; `start` if there is none."""
    for index in range(start.line - 1, min(len(lines), start.line + _LINES)):
        begin = start.column - 1 if index == start.line - 1 else 0
        for match in pattern.finditer(lines[index], begin):
            if number == 0:
                return Position(start.file, index + 1, match.start() + 1)
            number -= 1
    return start


def _service_problems(rest: Sequence[str], services: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    if not services:
        yield "there are no `services:` beside this step", "put `services:` on the step, or on a group around it"
        return
    if not rest:
        return
    name, *more = rest
    if name not in services:
        yield f"there is no service `{name}`", did_you_mean(name, services)
    elif more and more[0] not in SERVICE_NAMES:
        yield f"a service has no `{more[0]}`", did_you_mean(more[0], SERVICE_NAMES)
    elif more[:1] in (["port"], ["ports"]) and not services[name]:
        yield f"the service `{name}` has no `ports:`", "list its port there, such as `ports: [5432]`"
    elif more[:1] == ["ports"] and len(more) > 1 and more[1] not in services[name]:
        yield f"the `ports:` of the service `{name}` lack {more[1]}", "add it there"


def _step_problems(rest: Sequence[str], visible: Visible, declared: Declared) -> Iterator[tuple[str, str]]:
    if not rest:
        return
    name = rest[0]
    if is_cut_by_minus(("steps", *rest), declared):
        whole = next(step for step in declared.steps if step.startswith(f"{name}-"))
        yield f"there is no step `{name}`", f"for `{whole}` write steps['{whole}']: a `-` is read as minus"
        return
    if name not in declared.steps and name in declared.removed:
        yield f"the step `{name}` is removed, at {declared.removed[name]}", "change this reference, or keep the step"
        return
    if name not in declared.steps:
        yield f"there is no step `{name}`", did_you_mean(name, declared.steps)
        return
    if name == visible.own and name not in visible.steps:
        if not {"answers", "last_result"} & set(rest[1:2]):
            yield f"`{name}` is this step: it can use only its own `answers` and `last_result`", ""
    elif name not in visible.steps and declared.steps is not ANY_NAME:
        yield f"the step `{name}` runs later: it has no outcome here yet", f"move `{name}` before this step"
    if len(rest) > 1 and rest[1] not in STEP_NAMES:
        hint = foreign_text.attribute_hint(name, tuple(rest[1:])) or did_you_mean(rest[1], STEP_NAMES)
        yield f"a step has no `{rest[1]}`", hint
    if rest[1:2] == ("results",) and name not in declared.matrices and declared.steps is not ANY_NAME:
        yield f"`{name}` has no `results`: it has no matrix", f"read `steps.{name}.result`"
    if rest[1:2] in (("result",), ("last_result",)):
        if name in declared.matrices:
            hint = f"read `steps.{name}.results`: a list with the `result` of each leg"
            yield f"`{name}` has no result: each leg of its matrix has its own", hint
        elif len(rest) > 2 and name in declared.result_keys and rest[2] not in declared.result_keys[name]:
            hint = did_you_mean(rest[2], declared.result_keys[name])
            yield f"the result of `{name}` has no `{rest[2]}`: its schema does not allow one", hint
