"""Finds problems in the matrix of a step, and in what its values choose: containers, images and names of files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import PccpipeError
from pccpipe.spec.absent import NoResult
from pccpipe.spec.build_matrix import build_matrix, is_sound
from pccpipe.spec.containers import extended, settings
from pccpipe.spec.data import items, mapping
from pccpipe.spec.expression import Template
from pccpipe.spec.matrix import PARTS, Leg, Matrix, Scalar, duplicates, text_of, work
from pccpipe.spec.names import ANY_NAME, MatrixNames, Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.problem import did_you_mean
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json


class MatrixChecker:
    """Check the matrices of steps.

    Args:
        data: the whole pipeline.
        older: accept what earlier versions accepted.
    """

    def __init__(self, values: ValueChecker, data: Mapping[str, Json], *, older: bool) -> None:
        self._values = values
        self._inputs = mapping(data.get("inputs"))
        self._containers = mapping(data.get("containers"))
        self._older = older

    def inside(self, path: KeyPath, data: Json, visible: Visible) -> Visible:
        """Check the matrix of a step; return the names that exist in its legs."""
        if data is None:
            return visible
        at = (*path, "matrix")
        self._expressions(at, data, visible)
        if not is_sound(data):
            return replace(visible, matrix=ANY_NAME)
        matrix = build_matrix(self._values.source, at, data)
        names, legs = _names(matrix), matrix.known
        if not self._older:
            if isinstance(matrix.exclude, tuple):
                self._excluded(at, matrix, matrix.exclude, legs)
            self._repeated(at, matrix, legs)
        any_name = names is ANY_NAME or visible.matrix is ANY_NAME
        around = (each.without(names) for each in visible.matrices)
        return replace(
            visible,
            matrix=ANY_NAME if any_name else (*visible.matrix, *names),
            matrices=(*around, MatrixNames(_telling(matrix, legs), legs)),
            texts=(visible.texts - set(names)) | _texts(matrix, names),
        )

    def _expressions(self, path: KeyPath, data: Json, visible: Visible) -> None:
        given = {(): data} if isinstance(data, str) else {(name,): part for name, part in mapping(data).items()}
        for key, text in given.items():
            if isinstance(text, str):
                self._values.expression((*path, *key), text, visible)
                self._input((*path, *key), text)

    def _input(self, path: KeyPath, text: str) -> None:
        """Find an input of another type where the matrix needs a list."""
        named = re.fullmatch(r"\s*\$\{\{\s*inputs\.(\w+)\s*\}\}\s*", text)
        kind = mapping(self._inputs.get(named[1])).get("type") if named else None
        if not named or not isinstance(kind, str):
            return
        if kind != "list":
            message = f"the input `{named[1]}` is of type `{kind}`, and a matrix needs a list"
            self._values.say(path, message, "declare it with `type: list`")
        elif path[-1] in ("matrix", *PARTS):
            message = f"the input `{named[1]}` is a list of values: they need a name"
            self._values.say(path, message, f"such as `matrix: {{node: ${{{{ inputs.{named[1]} }}}}}}`")

    def _excluded(self, path: KeyPath, matrix: Matrix, exclude: Sequence[Leg], legs: Sequence[Leg] | None) -> None:
        """Find entries of `exclude:` that match no combination, and such that leave none."""
        wrong = False
        for index, entry in enumerate(exclude):
            for name, value in entry.items():
                at, values = (*path, "exclude", index, name), matrix.values.get(name)
                if values is None:
                    wrong = True
                    hint = did_you_mean(name, matrix.values) or "it is compared with the values before `include:`"
                    self._values.say(at, f"the matrix has no values `{name}` to exclude", hint, at_key=True)
                elif isinstance(values, tuple) and not any(text_of(value) == text_of(each) for each in values):
                    wrong = True
                    known = [text_of(each) for each in values]
                    message = f"no combination has `{name}: {text_of(value)}`: this excludes nothing"
                    self._values.say(at, message, did_you_mean(text_of(value), known) or f"known: {', '.join(known)}")
        if exclude and not wrong and legs == ():
            self._values.say((*path, "exclude"), "all combinations are excluded", "keep one of them", at_key=True)

    def _repeated(self, path: KeyPath, matrix: Matrix, legs: Sequence[Leg] | None) -> None:
        """Find values and legs that are there twice."""
        found = False
        for name, values in matrix.values.items():
            for index, value in _again(values if isinstance(values, tuple) else ()):
                found = True
                self._values.say(
                    (*path, name, index), f"`{name}` has `{text_of(value)}` twice", "leave one of them out"
                )
        if legs is None or found:
            return
        # The legs that `include:` adds are the last ones.
        entries = matrix.include if isinstance(matrix.include, tuple) else ()
        for index, name in duplicates(legs):
            entry = next(
                (number for number, each in enumerate(entries) if number and dict(each) == dict(legs[index])), None
            )
            at = path if entry is None else (*path, "include", entry)
            self._values.say(at, f"two legs are the same: {name}", "leave one of them out")

    def choice(self, path: KeyPath, text: str, visible: Visible) -> None:
        """Check a `container:` that the matrix chooses."""
        from pccpipe.spec import jinja

        if not self._values.text(path, text, Visible(matrix=visible.matrix)):
            return
        if any(chain[0] != "matrix" for chain in jinja.references(text, is_expression=False)):
            self._values.say(path, "the name of a container may read only `matrix`", "a policy must know all of them")
            return
        for name in self.chosen(path, text, visible):
            if name not in self._containers:
                message = f"there is no container `{name}`, which a leg of the matrix chooses"
                hint = did_you_mean(name, self._containers) or "declare it under `containers:`"
                self._values.say(path, message, hint)

    def images(self, path: KeyPath, containers: Iterable[str], visible: Visible) -> None:
        """Find an image that reads a matrix which the step does not have."""
        from pccpipe.spec import jinja

        for name in containers if visible.matrix is not ANY_NAME else ():
            image = settings(self._containers, extended(self._containers, name)).get("image")
            chains = jinja.references(image, is_expression=False) if isinstance(image, str) and "${{" in image else ()
            for chain in chains:
                if chain[0] == "matrix" and not (visible.matrix and set(chain[1:2]) <= set(visible.matrix)):
                    message = f"the image of `{name}` reads `{'.'.join(chain[:2])}`, which this step does not have"
                    hint = did_you_mean(chain[1], visible.matrix) if len(chain) > 1 else ""
                    self._values.say(path, message, hint or "name another container, or add a `matrix:` with it")
                    return

    def chosen(self, path: KeyPath, text: str, visible: Visible) -> Sequence[str]:
        """Return the names that a `container:` has in the legs, as far as they are known before the run."""
        if "${{" not in text:
            return (text,)
        from pccpipe.spec import jinja

        read = {chain[1] for chain in jinja.references(text, is_expression=False) if len(chain) > 1}
        legs = [each.legs for each in visible.matrices if each.legs is None or read & each.names_of_legs]
        if any(each is None for each in legs) or not read or not read <= set(visible.matrix):
            return ()
        template, found = Template(text, self._values.source.of_value(path)), dict[str, None]()
        narrow = ({tuple((name, leg[name]) for name in read if name in leg) for leg in each or ()} for each in legs)
        for combination in itertools.product(*map(_sorted, narrow)):
            values = {**{name: NoResult() for name in read}, **dict(itertools.chain(*combination))}
            try:
                found[template.render({"matrix": values})] = None
            except PccpipeError:
                return ()  # the step says so in its turn
        return list(found)


def _sorted(values: set[tuple[tuple[str, Scalar], ...]]) -> list[tuple[tuple[str, Scalar], ...]]:
    return sorted(values, key=str)


def count(data: Json) -> int:
    """Return at most how many legs a matrix of plain data has; values that are not known yet count once."""
    if not isinstance(data, dict):
        return 1
    product = 1 if any(name not in PARTS for name in data) else 0
    for name, values in data.items():
        product *= len(items(values)) if name not in PARTS else 1
    return product + len(items(data.get("include")))


def is_too_much(data: Json) -> bool:
    """Say whether it takes too much work to put the legs of a matrix of plain data together."""
    values = {name: items(given) or [None] for name, given in mapping(data).items() if name not in PARTS}
    entries = [map(mapping, items(mapping(data).get(part))) for part in PARTS]
    return work(values, *entries) > limits.MATRIX_WORK.most


def missing_name(text: str, visible: Visible) -> str | None:
    """Return a name of the matrix that a file's name lacks, so that two legs would write one file."""
    for each in visible.matrices:
        named = {name for name in each.names_of_legs if _reads(text, name)}
        if each.legs is None:
            missing = sorted(each.telling - {name for name in each.telling if _reads(text, name)})
            if missing:
                return missing[0]
            if not each.telling and "matrix" not in text:
                return ""
            continue
        seen: dict[tuple[str, ...], Leg] = {}
        for leg in each.legs:
            key = tuple(text_of(leg[name]) if name in leg else "" for name in sorted(named))
            other = seen.setdefault(key, leg)
            differing = sorted(name for name in each.telling if str(leg.get(name)) != str(other.get(name)))
            if other is not leg and differing:
                return differing[0]
    return None


def _reads(text: str, name: str) -> bool:
    return bool(re.search(rf"\bmatrix\b(?:\.{re.escape(name)}\b|\[|\s*\|)", text))


def _names(matrix: Matrix) -> tuple[str, ...] | frozenset[str]:
    """Return all names of the values of its legs."""
    if matrix.whole or not isinstance(matrix.include, tuple):
        return ANY_NAME
    return tuple(dict.fromkeys((*matrix.values, *(name for entry in matrix.include for name in entry))))


def _telling(matrix: Matrix, legs: Sequence[Leg] | None) -> frozenset[str]:
    """Return the names by which legs differ."""
    if legs is not None:
        return frozenset(_names(matrix))
    return frozenset(name for name, values in matrix.values.items() if not isinstance(values, tuple) or len(values) > 1)


def _texts(matrix: Matrix, names: tuple[str, ...] | frozenset[str]) -> set[str]:
    """Return the names whose values are all text."""
    if names is ANY_NAME:
        return set()
    entries = matrix.include if isinstance(matrix.include, tuple) else ()
    known = {
        name: [*_tuple(matrix.values.get(name)), *(each[name] for each in entries if name in each)] for name in names
    }
    given = {name for name, values in matrix.values.items() if not isinstance(values, tuple)}
    return {
        name for name, values in known.items() if name not in given and all(isinstance(each, str) for each in values)
    }


def _tuple(values: object) -> tuple[Scalar, ...]:
    return values if isinstance(values, tuple) else ()


def _again(values: Sequence[Scalar]) -> Iterator[tuple[int, Scalar]]:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if text_of(value) in seen:
            yield index, value
        seen.add(text_of(value))
