"""The legs of a pipeline's matrices, as far as a policy can know them before a run: it judges each image of theirs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from pccpipe import limits
from pccpipe.errors import PccpipeError
from pccpipe.spec.absent import NoResult
from pccpipe.spec.build_matrix import build_matrix, is_sound
from pccpipe.spec.check_matrix import count, is_too_much
from pccpipe.spec.containers import extended
from pccpipe.spec.data import mapping
from pccpipe.spec.expression import Template
from pccpipe.spec.matrix import Leg, Matrix
from pccpipe.spec.position import KeyPath
from pccpipe.spec.source import Source
from pccpipe.values import Json

LegNames: TypeAlias = Mapping[str, object]
"""The values of a leg, with those of the legs around it."""
LegsOf: TypeAlias = Callable[[], "Sequence[LegNames] | None"]


class KnownLegs:
    """The legs of each step.

    Args:
        steps: the path of each step in a container, and its `container:`.
        inputs: the run's; None at load: legs that depend on them are judged when they are known.
    """

    def __init__(self, source: Source, steps: Sequence[tuple[KeyPath, str]], inputs: Mapping[str, Json] | None) -> None:
        self._source = source
        self._data = mapping(source.data)
        self._steps = steps
        self._inputs = inputs
        self._left = limits.STEPS.most
        """Legs that may still be made: the check of the pipeline's meaning comes later, and refuses more."""

    def at(self, path: KeyPath) -> Sequence[LegNames] | None:
        """Return the legs in which a step runs; None if the run itself gives some of their values."""
        found: list[LegNames] = [{}]
        for data, matrix in self._matrices(path):
            legs = None if count(data) > limits.STEPS.most or is_too_much(data) else self._legs(matrix)
            if legs is None or len(found) * len(legs) > self._left:
                return None
            missing = {name: NoResult() for leg in legs for name in leg}
            found = [{**missing, **around, **leg} for around in found for leg in legs]
        self._left -= len(found)
        return found

    def of_image(self, container: str) -> Sequence[LegNames] | None:
        """Return the legs that run in the image of a container; None as `at` does."""
        return None if self._by_image is None else self._by_image.get(container, ())

    @functools.cached_property
    def _by_image(self) -> Mapping[str, Sequence[LegNames]] | None:
        found: dict[str, list[LegNames]] = {}
        for path, chosen in self._steps:
            legs = self.at(path)
            if legs is None:
                return None
            for leg in legs:
                found.setdefault(self._image_of(self._name(path, chosen, leg)), []).append(leg)
        return found

    def _matrices(self, path: KeyPath) -> Iterator[tuple[Json, Matrix]]:
        data: Json = self._data
        for index, key in enumerate(path):
            data = data[key]  # type: ignore[index]
            given = mapping(data).get("matrix")
            if given is not None and is_sound(given):
                yield given, build_matrix(self._source, (*path[: index + 1], "matrix"), given)

    def _legs(self, matrix: Matrix) -> Sequence[Leg] | None:
        from pccpipe.spec import jinja

        chains = [chain for each in matrix.expressions for chain in jinja.references(each.source, is_expression=True)]
        if any(chain[0] != "inputs" for chain in chains):
            return None
        if chains and self._inputs is None:
            return ()
        try:
            return matrix.legs({"inputs": self._inputs})
        except PccpipeError:
            return ()  # the step fails with it, and begins nothing

    def _name(self, path: KeyPath, chosen: str, leg: LegNames) -> str:
        try:
            return Template(chosen, self._source.of_value(path)).render({"matrix": leg})
        except PccpipeError:
            return ""

    def _image_of(self, container: str) -> str:
        """Return the container whose image a container has."""
        containers = mapping(self._data.get("containers"))
        return next((name for name in extended(containers, container) if "image" in mapping(containers[name])), "")


def narrowed(legs: Sequence[LegNames], chains: Iterable[Sequence[str]]) -> Sequence[LegNames]:
    """Return legs that differ in what a text reads of `matrix`: one of each kind."""
    read = {chain[1] if len(chain) > 1 else "" for chain in chains if chain[0] == "matrix"}
    if not read:
        return ({},)
    return tuple(
        {str([leg.get(name, leg if not name else None) for name in sorted(read)]): leg for leg in legs}.values()
    )
