"""Reads YAML text into data with positions: YAML 1.2's core types, and limits on the data that a file becomes.

PyYAML reads YAML 1.1, where `on` is true and `012` is ten. pccpipe uses only its parser; the types are those of
https://yaml.org/spec/1.2.2/#103-core-schema.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from msgspec import Struct, field

from pccpipe import limits
from pccpipe.spec.compose import (
    YamlLimitExceeded,
    YamlMapping,
    YamlNode,
    YamlScalar,
    YamlSequence,
    compose,
    too_deep,
    too_many,
)
from pccpipe.spec.position import KeyPath, Position, SourceSpan
from pccpipe.spec.scalar import plain_scalar
from pccpipe.spec.yaml_errors import syntax_error
from pccpipe.values import Json

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_PIECE = 1 << 15
"""The characters to split into lines in one call."""


class BadYaml(Exception):
    """The text is not YAML, or YAML that pccpipe does not accept."""

    line = ""
    """The text of the line, if there is one."""
    others: tuple[BadYaml, ...] = ()
    """Further problems after it, if the rest of the text could be read."""
    source: Source | None = None
    """The file without its bad keys, if the rest can be checked."""

    def __init__(self, position: Position, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.position = position
        self.message = message
        self.hint = hint


class Change(Struct, frozen=True):
    """A change that an including file makes to an included step."""

    position: Position
    keys: tuple[str, ...]
    """The keys of the step that it sets or removes."""


class Source(Struct, frozen=True):
    """A file, or one merged with the files that it includes: its plain data, with positions."""

    file: str
    text: str
    lines: tuple[str, ...]
    data: Json
    places: SourceSpan
    count: int
    """The number of values, with aliases expanded."""
    included: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The lines of the included files, by file; the nearest first."""
    changes: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)
    """Changes to included steps, by id."""
    removed: Mapping[str, Position] = field(default_factory=dict)
    """Positions of the changes that remove included steps, by id."""

    def of_key(self, path: KeyPath) -> Position:
        """Return the position of the last key of the path, or of the nearest existing value around it."""
        place = self._nearest(path)
        return place.key or place.value

    def of_value(self, path: KeyPath) -> Position:
        """Return the position of the value at the path, or of the nearest existing value around it."""
        return self._nearest(path).value

    def text_of(self, path: KeyPath) -> str | None:
        """Return the text of the number or boolean at the path; None if there is none."""
        place = self.places.at(path)
        return place.text if place else None

    def below(self, path: KeyPath) -> frozenset[Position]:
        """Return the positions of the value at the path and of everything inside it."""
        place = self.places.at(path)
        return frozenset(at for at in place.all() if at != place.key) if place else frozenset()

    def _nearest(self, path: KeyPath) -> SourceSpan:
        place = self.places
        for key in path:
            inner = place.inner.get(key) if place.inner else None
            if inner is None:
                break
            place = inner
        return place

    def line(self, number: int) -> str:
        """Return the text of a line, from 1; empty if there is none."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def lines_of(self, position: Position) -> tuple[str, ...]:
        """Return the lines of the position's file."""
        return self.included.get(position.file, self.lines)


def read_source(path: Path) -> Source:
    """Read a YAML file. Raises OSError, BadYaml."""
    with path.open("rb") as opened:
        data = opened.read(limits.PIPELINE.most + 1)
    return parse_source(data, str(path))


def parse_source(data: bytes, file: str) -> Source:
    """Parse YAML text. Raises BadYaml."""
    start = Position(file, 1, 1)
    if len(data) > limits.PIPELINE.most:
        raise BadYaml(start, f"the file has more than {limits.PIPELINE.most} bytes", "is it the right file?")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        at = _end_of(before, file)
        if b"\0" in data[:4096]:
            raise BadYaml(at, "the file is binary, not text") from None
        raise BadYaml(at, f"the file is not UTF-8 text: invalid byte 0x{data[error.start]:02X}") from None
    try:
        return _parsed(text, file)
    except BadYaml as bad:
        lines = _lines(text)
        if bad.position.line > len(lines):  # the end of the text is after its last line
            bad.position = Position(file, len(lines), len(lines[-1]) + 1)
        for each in (bad, *bad.others):
            each.line = lines[each.position.line - 1]
        raise


def _parsed(text: str, file: str) -> Source:
    start = Position(file, 1, 1)
    try:
        node = compose(text)
    except YamlLimitExceeded as beyond:
        raise BadYaml(Position(file, beyond.line, beyond.column), beyond.message) from None
    except yaml.MarkedYAMLError as error:
        line, column, problem, hint = syntax_error(error, _lines(text))
        raise BadYaml(Position(file, line, column), problem, hint) from None
    except yaml.reader.ReaderError as error:
        code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "?")
        offset = max(text.find(chr(code)), 0)  # libyaml's own position is one of bytes
        at = _end_of(text[:offset], file)
        hint = f'write it in double quotes as "\\u{code:04X}"' if code < 0xD800 else ""
        raise BadYaml(at, f"YAML does not allow the character U+{code:04X}", hint) from None
    if node is None:
        raise BadYaml(start, "the file is empty")
    builder = _DataBuilder(file)
    places = SourceSpan(builder.at(node))
    value = builder.build(node, places, 0)
    source = Source(file, text, tuple(_lines(text)), value, places, builder.count)
    if builder.wrong:
        bad, *others = builder.wrong
        bad.others, bad.source = tuple(others), source
        raise bad
    return source


def _lines(text: str) -> list[str]:
    """Split a text into lines as libyaml does; Python would find more."""
    lines = _split(text)
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines


def _end_of(text: str, file: str) -> Position:
    lines = _split(text)
    return Position(file, len(lines), len(lines[-1]) + 1)


def _split(text: str) -> list[str]:
    lines, begin = [""], 0
    while begin < len(text):
        end = begin + _PIECE
        end += text[end - 1 : end + 1] == "\r\n"
        first, *rest = _BREAK.split(text[begin:end])
        lines[-1] += first
        lines += rest
        begin = end
    return lines


_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))


class _DataBuilder:
    def __init__(self, file: str) -> None:
        self._file = file
        self.count = 0
        self._characters = 0
        self.wrong: list[BadYaml] = []
        """Problems with single keys, which the data leaves out."""

    def build(self, node: YamlNode, place: SourceSpan, depth: int) -> Json:
        at = place.value
        self.count += 1
        if self.count > limits.PIPELINE_VALUES.most:
            raise BadYaml(at, too_many())
        if depth > limits.PIPELINE_DEPTH.most:
            raise BadYaml(at, too_deep())
        if isinstance(node, YamlScalar):
            value = self._scalar(node, at)
            if isinstance(value, bool | int | float):
                place.text = node.text
            return value
        if node.tag not in _CORE_TAGS and not node.tag.endswith((":map", ":seq")):
            hint = "GitLab CI has this tag; a merge key `<<: *ANCHOR` shares keys" if node.tag == "!reference" else ""
            raise BadYaml(at, f"unknown tag {node.tag}", hint)
        if isinstance(node, YamlMapping):
            return self._mapping(node, place, depth)
        assert isinstance(node, YamlSequence)
        return [
            self.build(item, place.add(index, self.at(item), None), depth + 1) for index, item in enumerate(node.items)
        ]

    def _mapping(self, node: YamlMapping, place: SourceSpan, depth: int) -> dict[str, Json]:
        built: dict[str, Json] = {}
        for key_node, value_node in self._pairs(node, depth):
            at = self.at(key_node)
            if not isinstance(key_node, YamlScalar):
                self._say(at, "a key must be text, not a list or a mapping")
                continue
            key = key_node.text
            if key in built:
                first = place.at((key,))
                assert first
                assert first.key
                self._say(at, f"duplicate key `{key}`", f"the first is on line {first.key.line}")
                continue
            built[key] = self.build(value_node, place.add(key, self.at(value_node), at), depth + 1)
        return built

    def _pairs(self, node: YamlMapping, depth: int) -> list[tuple[YamlNode, YamlNode]]:
        """Return the pairs of a mapping, then those that `<<` merges into it; the first of each key counts."""
        own: list[tuple[YamlNode, YamlNode]] = []
        merged: list[YamlNode] = []
        for key, value in node.pairs:
            if not (isinstance(key, YamlScalar) and key.text == "<<" and not key.is_quoted):
                own.append((key, value))
            elif merged:
                self._say(self.at(key), "duplicate key `<<`", "merge several with a list: `<<: [*one, *two]`")
            else:
                merged = value.items if isinstance(value, YamlSequence) else [value]
        known = {key.text for key, _ in own if isinstance(key, YamlScalar)}
        for each in merged:
            self.count += 1
            if self.count > limits.PIPELINE_VALUES.most:
                raise BadYaml(self.at(each), too_many())
            if depth > limits.PIPELINE_DEPTH.most:
                raise BadYaml(self.at(each), too_deep())
            if not isinstance(each, YamlMapping):
                self._say(self.at(each), "`<<` merges only mappings", "name one: `<<: *anchor`")
                continue
            pairs = self._pairs(each, depth + 1)
            more = [(key, value) for key, value in pairs if isinstance(key, YamlScalar) and key.text not in known]
            known.update(key.text for key, _ in more)
            own += more
        return own

    def _say(self, at: Position, message: str, hint: str = "") -> None:
        if len(self.wrong) < limits.PIPELINE_PROBLEMS.most:
            self.wrong.append(BadYaml(at, message, hint))

    def _scalar(self, node: YamlScalar, at: Position) -> Json:
        self._characters += len(node.text)
        if self._characters > limits.PIPELINE_TEXT.most:
            raise BadYaml(at, limits.PIPELINE_TEXT.exceeded())
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        match tag:
            case "plain":
                return plain_scalar(node.text)
            case "str" | "!":
                return node.text
            case _:
                return self._tagged(node.text, tag, at)

    def _tagged(self, text: str, tag: str, at: Position) -> Json:
        value = plain_scalar(text)
        wanted: dict[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}
        if tag not in wanted:
            raise BadYaml(at, f"unknown tag !!{tag}")
        if tag == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not wanted[tag]:
            raise BadYaml(at, f"the tag !!{tag} does not fit `{text}`")
        return value

    def at(self, node: YamlNode) -> Position:
        """Return the position of a node."""
        return Position(self._file, node.line, node.column)
