"""Read a step's result: check its path, mask it, parse it as JSON and validate it against its schema."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import cast

from pccpipe import limits
from pccpipe.apart import apart
from pccpipe.errors import LimitExceeded, ResultError
from pccpipe.executor.input_request import check_request
from pccpipe.json_reader import NotJson, read_json
from pccpipe.layout import OF_RECORD
from pccpipe.outcome import Code
from pccpipe.secrets.mask import Masker
from pccpipe.values import Json

_SHOWN_ERRORS = limits.RESULT_ERRORS.most - 1


def result_target(path: str, run_dir: Path) -> Path:
    """Return the file of `result: path:` in the run's folder. Raises ResultError if it cannot be a file of its own."""
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\0" in path:
        raise ResultError(f"the result's path {path!r} must be a relative path without `..`")
    if parts[0] in OF_RECORD:
        raise ResultError(f"the result's path {path!r} is the record's own: `{parts[0]}` is taken")
    if (
        any(len(part.encode("utf-8", "surrogatepass")) > limits.RESULT_NAME.most for part in parts)
        or len(path) > limits.RESULT_PATH.most
    ):
        raise ResultError(f"the result's path is too long: {path[:80]!r}...")
    target = run_dir.joinpath(*parts)
    if target.is_dir():
        raise ResultError(f"the result's path {path!r} is a folder of the record")
    for folder in target.relative_to(run_dir).parents:
        if os.path.lexists(run_dir / folder) and not (run_dir / folder).is_dir():
            raise ResultError(f"the result's path {path!r} goes through {str(folder)!r}, which is a file")
    return target


def masked_result(data: bytes, name: str, masker: Masker) -> tuple[bytes, bool]:
    """Mask the secrets in the bytes of a result; return them, and whether they had a secret.

    Secrets are searched in the bytes, and in the values that they have as JSON: `\\u0073k-...` is a key as well.
    """
    masked = masker.data(data)
    if masked != data:
        return masked, True
    try:
        value = read_json(data, name)
    except (NotJson, LimitExceeded):
        return data, False
    if (clean := masker.json(value)) == value:
        return data, False
    return json.dumps(clean, indent=1, ensure_ascii=False).encode("utf-8", "replace"), True


def parse_result(data: bytes, name: str, schema: Mapping[str, object] | None) -> Json:
    """Parse and validate the JSON in `data`. Raises ResultError, which names the place in the JSON and the error."""
    if not data.strip():
        raise ResultError(f"{name} is empty", Code.NO_RESULT)
    try:
        value = read_json(data, name)
    except NotJson as error:
        raise ResultError(_prose(data, name) or str(error), Code.BAD_RESULT) from None
    except LimitExceeded as error:
        raise ResultError(error.message, Code.RESULT_TOO_LARGE) from None
    if schema is not None:
        _check(value, name, schema)
    check_request(value)
    return value


_SAID = 200
"""Characters that a message quotes of a text that is not JSON."""


def _prose(data: bytes, name: str) -> str:
    """Return the sentence for an agent's answer in prose; empty for text that looks like JSON."""
    text = data[: 8 * _SAID].decode("utf-8", "ignore").strip()
    if not text[:1].isalpha() or text.startswith(("true", "false", "null", "NaN", "Infinity")):
        return ""
    words = " ".join(text.split())
    said = words if len(words) <= _SAID else f"{words[:_SAID]}..."
    return f'{name} is not valid JSON, so there is no result. It says: "{said}"'


def _check(value: Json, name: str, schema: Mapping[str, object]) -> None:
    if _may_take_long(schema):
        document: dict[str, Json] = {"value": value, "schema": cast(Json, schema)}
        work = [json.dumps(document).encode()]
        try:
            found = b"".join(apart(errors_apart, work, f"{name} (against its schema)")).decode()
        except LimitExceeded as error:
            raise ResultError(error.message, Code.RESULT_TOO_LARGE) from None
    else:
        found = _errors(value, schema)
    if found:
        raise ResultError(f"{name} does not match its schema: {found}", Code.BAD_RESULT)


def errors_apart(data: bytes) -> bytes:
    """Return the errors of a document that has a value and its schema, for a process of its own."""
    document = json.loads(data)
    return _errors(document["value"], document["schema"]).encode("utf-8", "replace")


def _errors(value: Json, schema: Mapping[str, object]) -> str:
    """Return the first errors of a value in one sentence; empty if there are none."""
    # Imported here, because jsonschema takes 56 ms, and most pipelines do not use it.
    from pccpipe.spec.bounded_schema import BoundedValidator

    # Taken one by one, because the message of each error has a copy of the invalid value.
    errors = list(itertools.islice(BoundedValidator(dict(schema)).iter_errors(value), limits.RESULT_ERRORS.most))
    shown = "; ".join(f"{error.json_path}: {shorten(error.message)}" for error in errors[:_SHOWN_ERRORS])
    return f"{shown} (and more)" if len(errors) > _SHOWN_ERRORS else shown


_SLOW = frozenset({"pattern", "patternProperties", "uniqueItems", "format", "$ref"})
"""Keys of a schema whose check may take unlimited time on a text or list that an agent chose."""


def _may_take_long(schema: object) -> bool:
    match schema:
        case Mapping():
            return not _SLOW.isdisjoint(schema) or any(_may_take_long(inner) for inner in schema.values())
        case list():
            return any(_may_take_long(inner) for inner in schema)
        case _:
            return False


def shorten(message: str, limit: int = 200) -> str:
    """Return a message cut in its middle."""
    return message if len(message) <= limit else f"{message[: limit // 2]} ... {message[-limit // 2 :]}"
