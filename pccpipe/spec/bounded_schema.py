"""Checks an untrusted value against a schema, and makes few errors however much is wrong.

jsonschema makes every error of every branch of `anyOf` and `oneOf` before it reports that none matches. A list of
100,000 numbers took 700 MB.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from jsonschema import Draft7Validator, ValidationError
from jsonschema.validators import extend

from pccpipe import limits


def _any_of(validator: Any, branches: Sequence[Any], instance: object, _: object) -> Iterator[ValidationError]:
    context: list[ValidationError] = []
    for index, branch in enumerate(branches):
        errors = _first(validator, instance, branch, index)
        if not errors:
            return
        context += errors
    yield ValidationError(f"{instance!r} is not valid under any of the given schemas", context=context)


def _one_of(validator: Any, branches: Sequence[Any], instance: object, _: object) -> Iterator[ValidationError]:
    context: list[ValidationError] = []
    valid = []
    for index, branch in enumerate(branches):
        errors = _first(validator, instance, branch, index)
        context += errors
        if not errors:
            valid.append(branch)
    if not valid:
        yield ValidationError(f"{instance!r} is not valid under any of the given schemas", context=context)
    elif len(valid) > 1:
        yield ValidationError(f"{instance!r} is valid under more than one of the given schemas: {valid!r}")


def _first(validator: Any, instance: object, branch: object, index: int) -> list[ValidationError]:
    return list(itertools.islice(validator.descend(instance, branch, schema_path=index), limits.RESULT_ERRORS.most))


BoundedValidator = extend(  # type: ignore[no-untyped-call]
    Draft7Validator, {"anyOf": _any_of, "oneOf": _one_of}
)
