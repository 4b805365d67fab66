"""A step's matrix: its values, and the legs that they make.

`include:` and `exclude:` mean what they mean in GitHub Actions. `exclude:` comes first: it removes each combination
that has all its values. An entry of `include:` then adds its further keys to each combination that has the others, and
never changes a value of a combination. An entry that fits no combination is a leg of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import TypeAlias

from msgspec import Struct, field

from pccpipe import limits
from pccpipe.errors import ExpressionError
from pccpipe.spec.expression import Expression

Scalar: TypeAlias = "str | int | float | bool"
Leg: TypeAlias = Mapping[str, Scalar]

PARTS = ("include", "exclude")
"""The keys of a matrix that name no values."""
LONGEST_LABEL = 200
"""Characters of a leg's values in the path of its step."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_INT64 = range(-(2**63), 2**63)
"""The whole numbers that an event can hold."""


class Matrix(Struct, frozen=True):
    """The values of a step's legs. An expression gives its values in the step's turn."""

    values: Mapping[str, tuple[Scalar, ...] | Expression] = field(default_factory=dict)
    include: tuple[Leg, ...] | Expression = ()
    exclude: tuple[Leg, ...] | Expression = ()
    whole: Expression | None = None
    """Gives a mapping with all of that, or a list of legs."""

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The expressions that give values, in order."""
        parts = (self.whole, *self.values.values(), self.include, self.exclude)
        return tuple(part for part in parts if isinstance(part, Expression))

    @property
    def known(self) -> tuple[Leg, ...] | None:
        """The legs; None if an expression gives some of their values."""
        return None if self.expressions else self.legs({})

    def legs(self, names: Mapping[str, object]) -> tuple[Leg, ...]:
        """Return the legs in order. Raises ExpressionError for values that no leg can have."""
        written = {name: part for name, part in self.values.items() if not isinstance(part, Expression)}
        given = {name: part for name, part in self.values.items() if isinstance(part, Expression)}
        if self.whole:
            return _Given(self.whole).legs(self.whole.evaluate(names))
        values = {name: _Given(part).values(name, part.evaluate(names)) for name, part in given.items()}
        include, exclude = (
            _Given(part).entries(kind, part.evaluate(names)) if isinstance(part, Expression) else part
            for kind, part in (("include", self.include), ("exclude", self.exclude))
        )
        ordered = {name: values[name] if name in values else written[name] for name in self.values}
        if self.expressions:
            return _Given(self.expressions[0]).combined(ordered, include, exclude)
        return combined(ordered, include, exclude)


def work(values: Mapping[str, Sequence[object]], *entries: Iterable[Sized]) -> int:
    """Return how many names and values `combined` puts together or compares."""
    return math.prod(map(len, values.values())) * (
        len(values) + sum(1 + len(entry) for part in entries for entry in part)
    )


def combined(values: Mapping[str, Sequence[Scalar]], include: Sequence[Leg], exclude: Sequence[Leg]) -> tuple[Leg, ...]:
    """Return the legs: the combinations of all values in order, then those that `include` adds."""
    product = itertools.product(*values.values()) if values else ()
    combinations = [dict(zip(values, combination, strict=True)) for combination in product]
    legs = [leg for leg in combinations if not any(_has(leg, entry) for entry in exclude)]
    originals = [dict(leg) for leg in legs]
    added: list[Leg] = []
    for entry in include:
        shared = {name: value for name, value in entry.items() if name in values}
        fitting = [leg for leg, original in zip(legs, originals, strict=True) if _has(original, shared)]
        for leg in fitting:
            leg.update({name: value for name, value in entry.items() if name not in values})
        if not fitting:
            added.append(dict(entry))
    return (*legs, *added)


def _has(leg: Leg, entry: Leg) -> bool:
    return all(name in leg and text_of(leg[name]) == text_of(value) for name, value in entry.items())


def text_of(value: Scalar) -> str:
    """Return a value as a leg prints it: 18 and "18" are the same leg."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def label(leg: Leg) -> str:
    """Return a leg's name in the path of its step: `node=20,os=alpine`.

    Values are strangers' text, so nothing in them ends the name, adds a line or makes it long; a hash then tells it
    from others.
    """
    text = ",".join(f"{name}={_in_path(value)}" for name, value in leg.items())
    if len(text) <= LONGEST_LABEL and all(_in_path(value) == str(value) for value in leg.values()):
        return text
    values = "\0".join(f"{name}={value}" for name, value in leg.items())
    return f"{text[:LONGEST_LABEL]}~{hashlib.sha256(values.encode(errors='surrogatepass')).hexdigest()[:8]}"


def labels(matrix: Matrix, legs: Sequence[Leg]) -> list[str]:
    """Return the names of legs: without the keys that `include:` adds, if the others tell all legs apart."""
    short = [label({name: leg[name] for name in matrix.values if name in leg}) for leg in legs]
    return short if "" not in short and len(set(short)) == len(short) else [label(leg) for leg in legs]


def _in_path(value: Scalar) -> str:
    return "".join(character if character.isprintable() and character not in "[]," else "_" for character in str(value))


def written_label(leg: Leg) -> str:
    """Return a leg's name as the records of earlier versions have it."""
    return ",".join(f"{name}={value}" for name, value in leg.items())


def described(matrix: Matrix) -> str:
    """Return a matrix in words: `node: 18, 20; os: each of inputs.systems; 1 excluded, 2 included`."""
    if matrix.whole:
        return f"each of {_bare(matrix.whole)}"
    words = [
        f"{name}: each of {_bare(values)}"
        if isinstance(values, Expression)
        else f"{name}: {', '.join(map(text_of, values))}"
        for name, values in matrix.values.items()
    ]
    for part, done in ((matrix.exclude, "excluded"), (matrix.include, "included")):
        if part:
            words.append(f"{done}: {_bare(part) if isinstance(part, Expression) else '; '.join(map(_entry, part))}")
    return "; ".join(words)


def _entry(leg: Leg) -> str:
    return ", ".join(f"{name} {text_of(value)}" for name, value in leg.items())


def _bare(expression: Expression) -> str:
    return expression.source.strip().removeprefix("${{").removesuffix("}}").strip()


def duplicates(legs: Iterable[Leg]) -> Iterator[tuple[int, str]]:
    """Yield the index and the label of each leg whose label an earlier one has."""
    seen: set[str] = set()
    for index, leg in enumerate(legs):
        if (name := label(leg)) in seen:
            yield index, name
        seen.add(name)


class _Given(Struct, frozen=True):
    """Reads what an expression gave: an input, or a stranger's data."""

    expression: Expression

    def legs(self, data: object) -> tuple[Leg, ...]:
        """Return the legs of a whole matrix: a mapping as in the file, or a list of legs."""
        if isinstance(data, list):
            return self.combined({}, self.entries("the matrix", data), ())
        if not isinstance(data, dict):
            raise self._wrong(f"a matrix must be a mapping or a list of legs, not {_shown(data)}")
        values = {self._name(name): self.values(name, given) for name, given in data.items() if name not in PARTS}
        include, exclude = (self.entries(part, data.get(part, [])) for part in PARTS)
        return self.combined(values, include, exclude)

    def values(self, name: str, data: object) -> tuple[Scalar, ...]:
        if not isinstance(data, list):
            raise self._wrong(f"`{name}` must be a list, not {_shown(data)}")
        return tuple(self._scalar(name, value) for value in data)

    def entries(self, what: str, data: object) -> tuple[Leg, ...]:
        if not isinstance(data, list) or not all(isinstance(entry, dict) and entry for entry in data):
            raise self._wrong(f"{what} must be a list of mappings such as {{node: 20}}, not {_shown(data)}")
        return tuple({self._name(name): self._scalar(name, value) for name, value in each.items()} for each in data)

    def combined(
        self, values: Mapping[str, Sequence[Scalar]], include: Sequence[Leg], exclude: Sequence[Leg]
    ) -> tuple[Leg, ...]:
        """Return the legs, within the limits of what a stranger may ask for."""
        most = limits.MATRIX_LEGS.most
        # Before they are combined: ten lists of ten values make ten thousand million.
        if math.prod(map(len, values.values())) > limits.STEPS.most or max(len(include), len(exclude)) > most:
            raise self._wrong(limits.MATRIX_LEGS.exceeded())
        if work(values, include, exclude) > limits.MATRIX_WORK.most:
            raise self._wrong(limits.MATRIX_WORK.exceeded())
        parts = [({name: value} for value in given) for name, given in values.items()]
        self._check_text(leg for each in (*parts, include) for leg in each)
        legs = combined(values, include, exclude)
        if len(legs) > most:
            raise self._wrong(limits.MATRIX_LEGS.exceeded())
        self._check_text(legs)
        for _, name in duplicates(legs):
            raise self._wrong(f"two legs have the same values: {name}")
        return legs

    def _check_text(self, legs: Iterable[Leg]) -> None:
        if (
            sum(len(name) + len(text_of(value)) for leg in legs for name, value in leg.items())
            > limits.MATRIX_TEXT.most
        ):
            raise self._wrong(limits.MATRIX_TEXT.exceeded())

    def _name(self, name: object) -> str:
        if not isinstance(name, str) or not _NAME.match(name) or name in PARTS:
            raise self._wrong(f"invalid name of a matrix's value: {_shown(name)}")
        return name

    def _scalar(self, name: str, value: object) -> Scalar:
        usable = (
            isinstance(value, bool)
            or (isinstance(value, int) and value in _INT64)
            or (isinstance(value, float) and math.isfinite(value))
            or (isinstance(value, str) and _is_text(value))
        )
        if not usable:
            raise self._wrong(f"a value of `{name}` must be text, a number, true or false, not {_shown(value)}")
        assert isinstance(value, str | int | float)
        return value

    def _wrong(self, message: str) -> ExpressionError:
        return ExpressionError(self.expression.position, self.expression.source, message)


def _is_text(value: str) -> bool:
    """Say whether a record can hold the text: it has no NUL and no half a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _shown(data: object) -> str:
    match data:
        case bool() | int() | float():
            return "a number or a boolean"
        case str():
            return "this text" if not data.isprintable() or len(data) > 40 else f"the text `{data}`"
        case list():
            return "this list"
        case dict():
            return "a mapping"
        case _:
            return "nothing"
