"""Copies of the files that a pipeline names, for the record: a resumed run uses the files that it began with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec.structs import replace

from pccpipe.spec.built_in import may_be_built_in
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.position import KeyPath
from pccpipe.spec.source import Source
from pccpipe.spec.structure import BUILT_IN_RESULTS
from pccpipe.spec.write import yaml_text
from pccpipe.values import Json


def files_to_copy(data: Json, folder: Path) -> dict[str, Path] | None:
    """Return each relative name in a pipeline's data with its file; None if one of them cannot be copied by its name.

    That is a name with `..` or an expression, or a folder, such as an image's build context. An expression that begins
    with an absolute path, of the run's folder or of an input, does not count.
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
    """Make the relative paths of a pipeline absolute, from the folder of the file that contains each."""
    data = _copied(source.data)
    for place, name in (*_named(data), *_own_paths(data)):
        if not name.startswith(("~", "${{")) and "\0" not in name:
            folder = Path(source.of_value(place).file).parent.absolute()
            _put(data, place, str(folder / name))
    return replace(source, data=data)


def on_its_own(source: Source) -> tuple[str, dict[str, Path]]:
    """Return one text for a pipeline of several files, and the files to copy beside it."""
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
    """Yield each file and folder that a pipeline's steps name, with its path in the data."""
    for name, agent in mapping(mapping(data).get("agents")).items():
        use = mapping(agent).get("use")
        if isinstance(use, str) and not may_be_built_in(use):
            yield ("agents", name, "use"), use
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
    prompt = mapping(step).get("prompt")
    if isinstance(prompt, str):
        yield ("prompt",), prompt
    schema = result.get("schema")
    if isinstance(schema, str) and not _is_built_in("schema", schema):
        yield ("result", "schema"), schema
    for key in ("context", "dockerfile"):
        if isinstance(path := build.get(key), str):
            yield ("build", key), path


def _is_built_in(kind: str, name: str) -> bool:
    return kind == "schema" and name in BUILT_IN_RESULTS


def _own_paths(data: Json) -> Iterator[tuple[KeyPath, str]]:
    """Yield the paths on this machine that the record does not copy: of secrets, and of inputs' defaults."""
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
