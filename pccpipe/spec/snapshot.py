"""The files that a pipeline names, copied beside its text: a run that is resumed goes on with what it began with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pccpipe.spec.schema import BUILT_IN_RESULTS
from pccpipe.spec.source import Data

_NAMING = frozenset({"template", "schema", "file"})


def files_to_copy(data: Data, folder: Path) -> dict[str, Path] | None:
    """Each relative name in a pipeline's data with its file; None if one of them can't be copied by its name.

    That is: a name with `..` or an expression in it, or a folder, such as an image's build context.
    """
    files: dict[str, Path] = {}
    for name in _names(data):
        path = PurePosixPath(name)
        if name in BUILT_IN_RESULTS or path.is_absolute() or name.startswith("~"):
            continue
        if ".." in path.parts or "${{" in name or not (folder / name).is_file():
            return None
        files[name] = folder / name
    return files


def _names(data: Data) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key in _NAMING and isinstance(value, str):
                yield value
            elif key == "context" and isinstance(value, str):
                yield "${{"
            else:
                yield from _names(value)
    elif isinstance(data, list):
        for item in data:
            yield from _names(item)
