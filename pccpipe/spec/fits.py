"""Says whether data fits one of our JSON Schemas, and nothing else.

The schema library takes 60 ms to load, and is ten times slower on a large file; pccpipe uses it only for files that do
not fit. A schema becomes functions here, one for each keyword that our schemas use; another keyword is a KeyError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from pccpipe.values import Json

Fits: TypeAlias = "Callable[[Json], bool]"
Schema: TypeAlias = "Mapping[str, Any] | bool"

_SAYS_NOTHING = frozenset(
    {
        *("$schema", "$id", "$comment", "title", "description", "default", "examples", "defaultSnippets"),
        *("definitions", "then", "else"),
    }
)


def compiled(schema: Mapping[str, Any]) -> Fits:
    """Return a function that says whether a value certainly fits the schema (draft 7)."""
    return _Compiler(schema).fits(schema)


class _Compiler:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._named: dict[str, Fits] = {}

    def fits(self, schema: Schema) -> Fits:
        if isinstance(schema, bool):
            return lambda _: schema
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        checks = [
            _KEYWORDS[keyword](self, value, schema) for keyword, value in schema.items() if keyword not in _SAYS_NOTHING
        ]
        if len(checks) == 1:
            return checks[0]

        def fits_all(data: Json) -> bool:
            for check in checks:  # noqa: SIM110 - `all` with a generator takes twice as long
                if not check(data):
                    return False
            return True

        return fits_all

    def _reference(self, name: str) -> Fits:
        """Compile another part of the schema when it is first needed, because it may refer to itself."""

        def fits(data: Json) -> bool:
            if name not in self._named:
                part: Any = self._root
                for key in name.removeprefix("#/").split("/"):
                    part = part[key]
                self._named[name] = self.fits(part)
            return self._named[name](data)

        return fits

    def type_(self, wanted: str | Sequence[str], _: Schema) -> Fits:
        checks = [_TYPES[name] for name in ([wanted] if isinstance(wanted, str) else wanted)]
        return checks[0] if len(checks) == 1 else lambda data: any(check(data) for check in checks)

    def enum(self, values: Sequence[Json], _: Schema) -> Fits:
        # JSON's 1 and true differ, although Python's are equal.
        known = [(isinstance(value, bool), value) for value in values]
        return lambda data: (isinstance(data, bool), data) in known

    def properties(self, schemas: Mapping[str, Schema], _: Schema) -> Fits:
        checks = {name: self.fits(schema) for name, schema in schemas.items()}

        def fits(data: Json) -> bool:
            if isinstance(data, dict):
                for name, value in data.items():
                    check = checks.get(name)
                    if check is not None and not check(value):
                        return False
            return True

        return fits

    def additional_properties(self, wanted: Schema, schema: Mapping[str, Any]) -> Fits:
        known = frozenset(schema.get("properties", ()))
        patterns = [re.compile(pattern).search for pattern in schema.get("patternProperties", ())]
        check = self.fits(wanted)
        return lambda data: (
            not isinstance(data, dict)
            or data.keys() <= known
            or all(
                check(value)
                for name, value in data.items()
                if name not in known and not any(search(name) for search in patterns)
            )
        )

    def pattern_properties(self, schemas: Mapping[str, Schema], _: Schema) -> Fits:
        checks = [(re.compile(pattern).search, self.fits(schema)) for pattern, schema in schemas.items()]
        return lambda data: (
            not isinstance(data, dict)
            or all(check(value) for name, value in data.items() for search, check in checks if search(name))
        )

    def property_names(self, wanted: Schema, _: Schema) -> Fits:
        check = self.fits(wanted)
        return lambda data: not isinstance(data, dict) or all(map(check, data))

    def required(self, names: Sequence[str], _: Schema) -> Fits:
        wanted = frozenset(names)
        return lambda data: not isinstance(data, dict) or data.keys() >= wanted

    def items(self, wanted: Schema, _: Schema) -> Fits:
        check = self.fits(wanted)
        return lambda data: not isinstance(data, list) or all(map(check, data))

    def unique_items(self, wanted: bool, _: Schema) -> Fits:
        return lambda data: (
            not (wanted and isinstance(data, list)) or all(item not in data[:index] for index, item in enumerate(data))
        )

    def pattern(self, wanted: str, _: Schema) -> Fits:
        search = re.compile(wanted).search
        return lambda data: not isinstance(data, str) or search(data) is not None

    def all_of(self, schemas: Sequence[Schema], _: Schema) -> Fits:
        checks = [self.fits(schema) for schema in schemas]
        return lambda data: all(check(data) for check in checks)

    def any_of(self, schemas: Sequence[Schema], _: Schema) -> Fits:
        checks = [self.fits(schema) for schema in schemas]
        return lambda data: any(check(data) for check in checks)

    def not_(self, wanted: Schema, _: Schema) -> Fits:
        check = self.fits(wanted)
        return lambda data: not check(data)

    def if_(self, condition: Schema, schema: Mapping[str, Any]) -> Fits:
        check = self.fits(condition)
        then, otherwise = self.fits(schema.get("then", True)), self.fits(schema.get("else", True))
        return lambda data: then(data) if check(data) else otherwise(data)


def _bounded(kind: type | tuple[type, ...], measure: Callable[[Any], Any], holds: Callable[[Any, Any], bool]) -> _Make:
    """Make a keyword that bounds a number or a size; values of another kind fit."""

    def make(_: _Compiler, bound: float, __: Schema) -> Fits:
        return lambda data: not isinstance(data, kind) or isinstance(data, bool) or holds(measure(data), bound)

    return make


_Make: TypeAlias = "Callable[[_Compiler, Any, Any], Fits]"


def _itself(value: float) -> float:
    return value


def _at_least(value: float, bound: float) -> bool:
    return value >= bound


def _at_most(value: float, bound: float) -> bool:
    return value <= bound


_KEYWORDS: Mapping[str, _Make] = {
    "type": _Compiler.type_,
    "enum": _Compiler.enum,
    "const": lambda compiler, value, schema: compiler.enum([value], schema),
    "properties": _Compiler.properties,
    "additionalProperties": _Compiler.additional_properties,
    "patternProperties": _Compiler.pattern_properties,
    "propertyNames": _Compiler.property_names,
    "required": _Compiler.required,
    "items": _Compiler.items,
    "uniqueItems": _Compiler.unique_items,
    "pattern": _Compiler.pattern,
    "allOf": _Compiler.all_of,
    "anyOf": _Compiler.any_of,
    "not": _Compiler.not_,
    "if": _Compiler.if_,
    "minimum": _bounded((int, float), _itself, _at_least),
    "maximum": _bounded((int, float), _itself, _at_most),
    "exclusiveMinimum": _bounded((int, float), _itself, lambda value, bound: bool(value > bound)),
    "minLength": _bounded(str, len, _at_least),
    "maxLength": _bounded(str, len, _at_most),
    "minItems": _bounded(list, len, _at_least),
    "maxItems": _bounded(list, len, _at_most),
    "minProperties": _bounded(dict, len, _at_least),
    "maxProperties": _bounded(dict, len, _at_most),
}

_TYPES: Mapping[str, Fits] = {
    "string": lambda data: isinstance(data, str),
    "integer": lambda data: (
        (isinstance(data, int) and not isinstance(data, bool)) or (isinstance(data, float) and data.is_integer())
    ),
    "number": lambda data: isinstance(data, int | float) and not isinstance(data, bool),
    "boolean": lambda data: isinstance(data, bool),
    "array": lambda data: isinstance(data, list),
    "object": lambda data: isinstance(data, dict),
    "null": lambda data: data is None,
}
