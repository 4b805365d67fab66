"""The files that a pipeline names, copied beside its text: a run that is resumed goes on with what it began with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec.structs import replace

from pccpipe.spec.data import listed, mapping
from pccpipe.spec.position import KeyPath
from pccpipe.spec.source import Source
from pccpipe.spec.structure import BUILT_IN_RESULTS
from pccpipe.spec.write import yaml_text
from pccpipe.values import Json


def files_to_copy(data: Json, folder: Path) -> dict[str, Path] | None:
    """Each relative name in a pipeline's data with its file; None if one of them can't be copied by its name.

    That is: a name with `..` or an expression in it, or a folder, such as an image's build context. An expression that
    gives a whole path, the run's folder's or that of an input, is no name of the pipeline's.
    """
    files: dict[str, Path] = {}
    for place, name in _named(data):
        path = PurePosixPath(name)
        if path.is_absolute() or name.startswith("~") or _begins_absolute(name, data):
            continue
        if place[-1] == "context" or ".." in path.parts or "${{" in name or not (folder / name).is_file():
            return None
        files[name] = folder / name
    return files


def with_paths(source: Source) -> Source:
    """A pipeline of several files in which each relative path is a whole one: it begins at the file that has it."""
    data = _copied(source.data)
    for place, name in (*_named(data), *_own_paths(data)):
        if not name.startswith(("~", "${{")) and "\0" not in name:
            folder = Path(source.of_value(place).file).parent.absolute()
            _put(data, place, str(folder / name))
    return replace(source, data=data)


def on_its_own(source: Source) -> tuple[str, dict[str, Path]]:
    """The text of a pipeline of several files as a file that needs none of them, and the files to copy beside it."""
    data = _copied(source.data)
    files: dict[str, Path] = {}
    for place, name in _named(data):
        path = Path(name)
        if path.is_absolute() and "${{" not in name and path.is_file():
            copy = next((each for each, file in files.items() if file == path), f"{len(files) + 1}-{path.name}")
            files[copy] = path
            _put(data, place, copy)
    names = ", which includes ".join((source.file, *source.included))
    return f"# As it ran: {names}\n{yaml_text(data)}", files


def _named(data: Json) -> Iterator[tuple[KeyPath, str]]:
    """Each file and folder that a pipeline's steps name, and where."""
    for key in ("steps", "always", "parallel"):
        for index, step in enumerate(listed(mapping(data).get(key))):
            for place, name in (*_of_step(step), *_named(step)):
                yield (key, index, *place), name


def _of_step(step: Json) -> Iterator[tuple[KeyPath, str]]:
    files, result, build = (mapping(mapping(step).get(key)) for key in ("files", "result", "build"))
    for name, file in files.items():
        for kind, path in mapping(file).items():
            if kind in {"template", "file", "schema"} and isinstance(path, str) and not _is_built_in(kind, path):
                yield ("files", name, kind), path
    schema = result.get("schema")
    if isinstance(schema, str) and not _is_built_in("schema", schema):
        yield ("result", "schema"), schema
    for key in ("context", "dockerfile"):
        if isinstance(path := build.get(key), str):
            yield ("build", key), path


def _is_built_in(kind: str, name: str) -> bool:
    return kind == "schema" and name in BUILT_IN_RESULTS


def _own_paths(data: Json) -> Iterator[tuple[KeyPath, str]]:
    """The paths of this machine that are no part of what a run keeps: of secrets, and those that inputs begin with."""
    for key, kind, value in (("secrets", "from", "path"), ("inputs", "type", "default")):
        for name, spec in mapping(mapping(data).get(key)).items():
            path = mapping(spec).get(value)
            if mapping(spec).get(kind) in ("file", "path") and isinstance(path, str):
                yield (key, name, value), path


def _begins_absolute(name: str, data: Json) -> bool:
    begins = re.match(r"\$\{\{\s*(?:run\.folder|inputs\.(\w+))\s*\}\}", name)
    if not begins or not begins[1]:
        return bool(begins)
    return mapping(mapping(mapping(data).get("inputs")).get(begins[1])).get("type") == "path"


def _copied(data: Json) -> Json:
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(item) for item in data] if isinstance(data, list) else data


def _put(data: Json, path: KeyPath, value: str) -> None:
    for key in path[:-1]:
        data = data[key]  # type: ignore[index]
    data[path[-1]] = value  # type: ignore[index]
