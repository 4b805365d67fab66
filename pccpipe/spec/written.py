"""Values that end as text keep the text that the author wrote: `1.20` stays 1.20, and `83e2010` is no number."""

from __future__ import annotations

from collections.abc import Iterator

from pccpipe.spec.position import Data, Key
from pccpipe.spec.source import Source

_Path = tuple[Key, ...]
_STEPS = ("steps", "always", "parallel", "before", "after")


def keep_texts(source: Source) -> None:
    """Make texts of a pipeline's variables, build arguments and, where one of them has to be text, matrix values."""
    for path, variables in _variables(source.data, ()):
        for name, value in variables.items():
            variables[name] = _text(source, (*path, name), value)
    for path, matrix in _matrices(source.data, ()):
        for name, values in matrix.items():
            if isinstance(values, list):
                texts = [_text(source, (*path, name, index), value) for index, value in enumerate(values)]
                if not all(_is_canonical(value, text) for value, text in zip(values, texts, strict=True)):
                    matrix[name] = texts


def _text(source: Source, path: _Path, value: Data) -> Data:
    text = source.text_of(path)
    return value if text is None else text


def _is_canonical(value: Data, text: Data) -> bool:
    """Whether a value is no number, or one that is written as it would be shown."""
    return isinstance(value, bool) or not isinstance(value, int | float) or text == str(value)


def _variables(data: Data, path: _Path) -> Iterator[tuple[_Path, dict[str, Data]]]:
    """Each mapping of texts, with its path."""
    if not path:
        yield from _mapping_at(data, (), "env")
        yield from _mapping_at(_get(data, "defaults"), ("defaults",), "env")
        containers = _get(data, "containers")
        for name, container in containers.items() if isinstance(containers, dict) else ():
            yield from _mapping_at(container, ("containers", name), "env")
    for at, step in _steps(data, path):
        yield from _mapping_at(step, at, "env")
        yield from _mapping_at(_get(step, "fallback"), (*at, "fallback"), "env")
        yield from _mapping_at(_get(step, "build"), (*at, "build"), "args")


def _matrices(data: Data, path: _Path) -> Iterator[tuple[_Path, dict[str, Data]]]:
    for at, step in _steps(data, path):
        yield from _mapping_at(step, at, "matrix")


def _steps(data: Data, path: _Path) -> Iterator[tuple[_Path, Data]]:
    """Each step, and what is set of an included one."""
    for key in _STEPS:
        steps = _get(data, key)
        for index, step in enumerate(steps) if isinstance(steps, list) else ():
            yield (*path, key, index), step
            yield from _steps(step, (*path, key, index))
    changes = _get(data, "change") if not path else None
    for name, change in changes.items() if isinstance(changes, dict) else ():
        yield ("change", name, "set"), _get(change, "set")
        yield from _steps(change, ("change", name))


def _mapping_at(data: Data, path: _Path, key: str) -> Iterator[tuple[_Path, dict[str, Data]]]:
    found = _get(data, key)
    if isinstance(found, dict):
        yield (*path, key), found


def _get(data: Data, key: str) -> Data:
    return data.get(key) if isinstance(data, dict) else None
