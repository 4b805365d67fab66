"""Makes templates, expressions and numbers of checked plain data, with their positions."""

from __future__ import annotations

from typing import cast

from pccpipe.spec import units
from pccpipe.spec.data import mapping
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.model import Value
from pccpipe.spec.position import KeyPath
from pccpipe.spec.source import Source
from pccpipe.values import Json


class ValueBuilder:
    """Make the values of one source."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def template(self, path: KeyPath, value: Json) -> Template:
        return Template(scalar_text(value), self._source.of_value(path))

    def templates(self, path: KeyPath, values: Json) -> dict[str, Template]:
        return {name: self.template((*path, name), value) for name, value in mapping(values).items()}

    def expression(self, path: KeyPath, value: Json) -> Expression:
        return Expression(scalar_text(value), self._source.of_value(path))

    def duration(self, path: KeyPath, value: Json) -> Value[float] | None:
        if value is None:
            return None
        if isinstance(value, str) and "${{" in value:
            return Value(expression=self.expression(path, value))
        return Value(known=units.seconds(cast("str | float", value)))

    def integer(self, path: KeyPath, value: Json) -> Value[int]:
        return Value(expression=self.expression(path, value)) if isinstance(value, str) else Value(whole(value))


def whole(value: Json) -> int:
    """Return a whole number; the schema accepts 3.0 as one."""
    return int(cast("float", value))


def string(value: Json) -> str:
    """Return a value that the schema has found to be text."""
    assert isinstance(value, str)
    return value


def scalar_text(value: Json) -> str:
    """Return a scalar as text: `true` for true, `5` for 5."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
