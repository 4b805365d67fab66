"""A step's result: the bytes that it left, made into JSON that its schema holds for, or a message that says why not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pccpipe.errors import ResultError
from pccpipe.secrets.mask import Masker
from pccpipe.values import Json

LONGEST_NAME = 200
"""Bytes of each name in a result's path: some are added while it is written."""
LONGEST_PATH = 1000

_RECORDS_OWN = frozenset(
    {
        *("events.jsonl", "run.json", "pipeline.yaml", "pipeline-files", "artifacts", "logs"),
        *("workspace", "workspace-sent", "workspace.json", "lock", "cancel-requests"),
    }
)
"""Names in a run's folder that no step may write to."""


def result_target(path: str, run_dir: Path) -> Path:
    """Where `result: path:` leads in the run's folder. Raises ResultError if no file of its own can be there."""
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\0" in path:
        raise ResultError(f"the result's path {path!r} must be a relative path without `..`")
    if parts[0] in _RECORDS_OWN:
        raise ResultError(f"the result's path {path!r} is the record's own: `{parts[0]}` is taken")
    if any(len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME for part in parts) or len(path) > LONGEST_PATH:
        raise ResultError(f"the result's path is too long: {path[:80]!r}...")
    target = run_dir.joinpath(*parts)
    if target.is_dir():
        raise ResultError(f"the result's path {path!r} is a folder of the record")
    for folder in target.relative_to(run_dir).parents:
        if os.path.lexists(run_dir / folder) and not (run_dir / folder).is_dir():
            raise ResultError(f"the result's path {path!r} goes through {str(folder)!r}, which is a file")
    return target


def masked_result(data: bytes, masker: Masker) -> tuple[bytes, bool]:
    """The bytes of a result as they may be kept, and whether there was a secret in them.

    Looked for in the bytes, and in what they say as JSON: `\\u0073k-...` is a key as well.
    """
    masked = masker.data(data)
    if masked != data:
        return masked, True
    try:
        value: Json = json.loads(data)
    except (ValueError, RecursionError):
        return data, False
    if (clean := masker.json(value)) == value:
        return data, False
    return json.dumps(clean, indent=1, ensure_ascii=False).encode("utf-8", "replace"), True


def parse_result(data: bytes, name: str, schema: Mapping[str, object] | None) -> Json:
    """The JSON in `data`, checked. Raises ResultError with the place in the JSON and what is wrong there."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ResultError(f"{name} is not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise ResultError(f"{name} is empty")
    try:
        value: Json = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{name} is not valid JSON: {error}") from None
    if schema is not None:
        _check(value, name, schema)
    return value


def _refuse_constant(word: str) -> Json:
    raise ValueError(f"{word} is not JSON")


def _check(value: Json, name: str, schema: Mapping[str, object]) -> None:
    # Imported here: a pipeline without results need not pay for it (jsonschema: 56 ms).
    from jsonschema import Draft7Validator

    errors = sorted(Draft7Validator(dict(schema)).iter_errors(value), key=lambda error: error.json_path)
    if errors:
        shown = "; ".join(f"{error.json_path}: {_shorten(error.message)}" for error in errors[:5])
        more = f" (and {len(errors) - 5} more)" if len(errors) > 5 else ""
        raise ResultError(f"{name} does not match its schema: {shown}{more}")


def _shorten(message: str, limit: int = 200) -> str:
    return message if len(message) <= limit else f"{message[: limit // 2]} ... {message[-limit // 2 :]}"
