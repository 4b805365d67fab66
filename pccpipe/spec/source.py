"""YAML text with positions: YAML 1.2's core types, and limits that keep a small file from becoming a large one.

PyYAML reads YAML 1.1, where `on` is true and `012` is ten: only its parser is used, the types are those of
https://yaml.org/spec/1.2.2/#103-core-schema.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import yaml
from msgspec import Struct, field

from pccpipe.values import Json

Key: TypeAlias = "str | int"
Data: TypeAlias = Json

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_PLAIN = "plain"
"""The tag of a scalar without quotes and without a tag of its own."""
MAX_NODES = 100_000
"""Counted with every alias expanded: 279 bytes of aliases can be a million values."""


class Position(Struct, frozen=True, order=True):
    """A place in a file; line and column from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class BadYaml(Exception):
    """The text is no YAML that we take."""

    line = ""
    """The text of the line, where there is text."""
    others: tuple[BadYaml, ...] = ()
    """What else is wrong behind it, where the text could be read on."""
    source: Source | None = None
    """The file without what is wrong, where the rest is to be looked at all the same."""

    def __init__(self, position: Position, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.position = position
        self.message = message
        self.hint = hint


class Change(Struct, frozen=True):
    """What an including file does to a step that it includes."""

    position: Position
    keys: tuple[str, ...]
    """The step's keys that it sets or takes away."""


class Source(Struct, frozen=True):
    """A read file, or one together with those that it includes: its plain data, and where each part of it stands."""

    file: str
    text: str
    lines: tuple[str, ...]
    data: Data
    _keys: dict[tuple[Key, ...], Position]
    _values: dict[tuple[Key, ...], Position]
    included: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The lines of the files that parts of the data come from, by file; the next one first."""
    changes: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)
    """By the step's id."""
    removed: Mapping[str, Position] = field(default_factory=dict)
    """Where the steps are taken out that are here no more, by id."""

    def of_key(self, path: tuple[Key, ...]) -> Position:
        """Where the last key of the path stands, or the nearest thing around it that there is."""
        while path and path not in self._keys:
            if path in self._values:
                return self._values[path]
            path = path[:-1]
        return self._keys.get(path) or self._values.get((), Position(self.file, 1, 1))

    def of_value(self, path: tuple[Key, ...]) -> Position:
        """Where the value at the path begins, or the nearest thing around it that there is."""
        while path and path not in self._values:
            path = path[:-1]
        return self._values.get(path, Position(self.file, 1, 1))

    def below(self, path: tuple[Key, ...]) -> frozenset[Position]:
        """Where the value at the path is, and all that is in it."""
        places = (*self._keys.items(), *self._values.items())
        return frozenset(at for each, at in places if each[: len(path)] == path and at != self._keys.get(path))

    def line(self, number: int) -> str:
        """The text of a line, from 1; empty if there is none."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def lines_of(self, position: Position) -> tuple[str, ...]:
        """The lines of the file that the position is in."""
        return self.included.get(position.file, self.lines)


def read_source(path: Path) -> Source:
    """Read a YAML file. Raises OSError, BadYaml."""
    with path.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    return parse_source(data, str(path))


def parse_source(data: bytes, file: str) -> Source:
    """Parse YAML text. Raises BadYaml with the position of what is wrong."""
    start = Position(file, 1, 1)
    if len(data) > MAX_BYTES:
        raise BadYaml(start, f"the file has more than {MAX_BYTES} bytes", "is it the right file?")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        at = _end_of(before, file)
        if b"\0" in data[:4096]:
            raise BadYaml(at, "the file is binary, no text") from None
        raise BadYaml(at, f"the file is no UTF-8 text: here is the byte 0x{data[error.start]:02X}") from None
    try:
        return _parsed(text, file)
    except BadYaml as bad:
        lines = _lines(text)
        if bad.position.line > len(lines):  # the end of the text is behind its last line
            bad.position = Position(file, len(lines), len(lines[-1]) + 1)
        for each in (bad, *bad.others):
            each.line = lines[each.position.line - 1]
        raise


def _parsed(text: str, file: str) -> Source:
    start = Position(file, 1, 1)
    try:
        node = yaml.compose(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        raise _bad_syntax(error, file, text) from None
    except yaml.reader.ReaderError as error:
        code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "?")
        offset = max(text.find(chr(code)), 0)  # libyaml's own position is one of bytes
        at = _end_of(text[:offset], file)
        hint = f'in double quotes it can be written as "\\u{code:04X}"' if code < 0xD800 else ""
        raise BadYaml(at, f"the character U+{code:04X} may not stand in YAML", hint) from None
    if node is None:
        raise BadYaml(start, "the file is empty")
    builder = _Builder(file)
    value = builder.build(node, (), 0)
    source = Source(file, text, tuple(_lines(text)), value, builder.keys, builder.values)
    if builder.wrong:
        bad, *others = builder.wrong
        bad.others, bad.source = tuple(others), source
        raise bad
    return source


def _lines(text: str) -> list[str]:
    """The lines of a text as libyaml counts them, which has fewer breaks than Python."""
    lines = _BREAK.split(text)
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines


def _end_of(text: str, file: str) -> Position:
    lines = _BREAK.split(text)
    return Position(file, len(lines), len(lines[-1]) + 1)


def _bad_syntax(error: yaml.MarkedYAMLError, file: str, text: str) -> BadYaml:
    mark = error.problem_mark or error.context_mark
    lines = _lines(text)
    problem, hint = error.problem or "this is no YAML", ""
    begins = error.context_mark
    rest = [lines[mark.line][mark.column :], *lines[mark.line + 1 :]] if mark and mark.line < len(lines) else []
    is_end = not "".join(rest).strip()
    if mark and _character(mark, lines) == "\t":
        problem, hint = "a tab cannot indent YAML", "use spaces"
    elif "expected a single document" in str(error):
        problem, hint = "a second document begins here", "one file holds one: leave out `---` and what follows it"
    elif "mapping values are not allowed" in problem:
        problem = "a `:` cannot stand here"
        hint = "is a text with `: ` in it to be quoted, or the line to be indented otherwise?"
    elif begins and is_end and str(error.context).endswith(("flow sequence", "flow mapping", "quoted scalar")):
        mark, problem = begins, f"this `{_character(begins, lines)}` is never closed"
    elif "nesting depth" in problem:
        problem = f"this is nested over {MAX_DEPTH} deep"
    elif begins and "flow" in str(error.context):
        problem, hint = "something else is expected here", _opened(begins, lines)
    elif "did not find expected key" in problem or "expected '-' indicator" in problem:
        problem = "this line does not belong to what is above it"
        hint = "is it indented as its neighbours are? Has a text above it a quote in its midst?"
    elif "could not find expected ':'" in problem and begins:
        mark, problem = begins, "a `key: value` is expected here"
        hint = "has the key its `: `, and is the line indented as its neighbours are?"
    elif "cannot start any token" in problem:
        problem, hint = "a text cannot begin with this character", "quote the whole text"
    elif "undefined alias" in problem:
        problem, hint = "there is no anchor for this alias", "a text that begins with `*` needs quotes"
    elif "escape character" in problem:
        problem, hint = "there is no such escape in double quotes", "in single quotes a `\\` is itself"
    position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
    return BadYaml(position, f"this is no valid YAML: {problem}", hint)


def _opened(mark: yaml.Mark, lines: Sequence[str]) -> str:
    bracket = _character(mark, lines)
    close = {"[": "]", "{": "}"}.get(bracket, "")
    return f"the `{bracket}` on line {mark.line + 1} wants a `,` or its `{close}`" if close else ""


def _character(mark: yaml.Mark, lines: Sequence[str]) -> str:
    return lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Core(base):  # type: ignore[valid-type, misc]
        """Resolves nothing but whether a scalar is plain: `_scalar` makes values, with 1.2's rules."""

        def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
            if kind is yaml.ScalarNode and implicit[0]:
                return _PLAIN
            return str(super().resolve(kind, value, (False, implicit[1]) if kind is yaml.ScalarNode else implicit))

    return Core


_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))


class _Builder:
    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0
        self._open: set[int] = set()
        self.keys: dict[tuple[Key, ...], Position] = {}
        self.values: dict[tuple[Key, ...], Position] = {}
        self.wrong: list[BadYaml] = []
        """What is wrong with single keys: the rest is built without them."""

    def build(self, node: yaml.Node, path: tuple[Key, ...], depth: int) -> Data:
        at = self._at(node)
        self.values[path] = at
        self._count += 1
        if self._count > MAX_NODES:
            raise BadYaml(at, f"the file has over {MAX_NODES} values, with its aliases expanded")
        if depth > MAX_DEPTH:
            raise BadYaml(at, f"this is nested over {MAX_DEPTH} deep")
        if id(node) in self._open:
            raise BadYaml(at, "this alias leads back to a place that it is inside of")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if node.tag not in _CORE_TAGS and not node.tag.endswith((":map", ":seq")):
            raise BadYaml(at, f"the tag {node.tag} is not known here")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
            return self._mapping(node, path, depth)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: tuple[Key, ...], depth: int) -> dict[str, Data]:
        built: dict[str, Data] = {}
        for key_node, value_node in node.value:
            at = self._at(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.wrong.append(BadYaml(at, "a key must be a word, and this is a list or a mapping"))
                continue
            key = str(key_node.value)
            if key == "<<" and not key_node.style:
                raise BadYaml(at, "merge keys (`<<`) are not part of YAML 1.2", "use `extends:` or `defaults:`")
            if key in built:
                first = f"the first is on line {self.keys[(*path, key)].line}"
                self.wrong.append(BadYaml(at, f"the key `{key}` is here twice", first))
                continue
            self.keys[(*path, key)] = at
            built[key] = self.build(value_node, (*path, key), depth + 1)
        return built

    def _scalar(self, node: yaml.ScalarNode, at: Position) -> Data:
        text = str(node.value)
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        match tag:
            case "plain":
                return plain_scalar(text)
            case "str" | "!":
                return text
            case _:
                return self._tagged(text, tag, at)

    def _tagged(self, text: str, tag: str, at: Position) -> Data:
        value = plain_scalar(text)
        wanted: dict[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}
        if tag not in wanted:
            raise BadYaml(at, f"the tag !!{tag} is not known here")
        if tag == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not wanted[tag]:
            raise BadYaml(at, f"the tag !!{tag} does not fit `{text}`")
        return value

    def _at(self, node: yaml.Node) -> Position:
        return Position(self._file, node.start_mark.line + 1, node.start_mark.column + 1)


def plain_scalar(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar by YAML 1.2's core schema."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text in {"true", "True", "TRUE"}
    if _INT.match(text):
        return int(text) if len(text) < 4000 else text
    if _OCTAL.match(text):
        return int(text, 8)
    if _HEX.match(text):
        return int(text, 16)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL.match(text):
        return float(text.replace(".", "", 1))
    return text


def walk(data: Data, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], Data]]:
    """Every value with its path, from the outside in."""
    yield path, data
    if isinstance(data, dict):
        for key, value in data.items():
            yield from walk(value, (*path, key))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from walk(item, (*path, index))
