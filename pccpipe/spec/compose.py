"""Reads YAML text into nodes with positions, event by event.

PyYAML's own composer makes the whole tree in one call. That call blocks all other threads, and its nodes take 250 MB
for 1 MB of keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import yaml
from msgspec import Struct
from yaml.composer import ComposerError

from pccpipe import limits

PLAIN = "plain"
"""The tag of a scalar without quotes and without its own tag."""
_CORE = "tag:yaml.org,2002:"
_DIRECTIVE = re.compile("^%TAG", re.MULTILINE)


class YamlNode(Struct, eq=False, gc=False):
    """A value of any kind; line and column count from 1.

    No node contains itself, so the garbage collector can skip them: it would need 50 ms for 100,000.
    """

    line: int
    column: int
    tag: str


class YamlScalar(YamlNode, eq=False, gc=False):
    """A text, a number or the like, as the file has it."""

    text: str
    is_quoted: bool


class YamlSequence(YamlNode, eq=False, gc=False):
    """Values one after the other."""

    items: list[YamlNode]


class YamlMapping(YamlNode, eq=False, gc=False):
    """Keys and their values."""

    pairs: list[tuple[YamlNode, YamlNode]]


_Anchors: TypeAlias = dict[str, tuple[YamlNode, yaml.Mark]]


class YamlLimitExceeded(Exception):
    """The text exceeds a limit, or contains itself by an alias."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.message = message


def compose(text: str) -> YamlNode | None:
    """Compose the only document of a text; None if it has none. Raises yaml.YAMLError, YamlLimitExceeded."""
    _check_directives(text)
    loader: Any = _LOADER(text)
    try:
        loader.get_event()  # the stream begins
        if isinstance(loader.peek_event(), yaml.StreamEndEvent):
            return None
        begin = loader.get_event().start_mark
        node = _composed(loader.get_event)
        loader.get_event()  # the document ends
        end = loader.get_event()
        if not isinstance(end, yaml.StreamEndEvent):
            expected = "expected a single document in the stream"
            raise ComposerError(expected, begin, "but found another document", end.start_mark)
        return node
    finally:
        loader.dispose()


def _check_directives(text: str) -> None:
    # The parser compares each directive with all earlier ones.
    found = _DIRECTIVE.finditer(text)
    for number, each in enumerate(found, 1):
        if number > limits.YAML_DIRECTIVES.most:
            line = text.count("\n", 0, each.start()) + 1
            raise YamlLimitExceeded(line, 1, limits.YAML_DIRECTIVES.exceeded())


def _composed(next_event: Callable[[], Any]) -> YamlNode:
    anchors: _Anchors = {}
    around: list[_OpenCollection] = []
    count = 0
    while True:
        event = next_event()
        if isinstance(event, yaml.CollectionEndEvent):
            node: YamlNode = around.pop().node
        else:
            node = _node(event, anchors)
            count += not (around and around[-1].takes_key)
            if count > limits.PIPELINE_VALUES.most:
                raise YamlLimitExceeded(node.line, node.column, too_many())
            if len(around) > limits.PIPELINE_DEPTH.most:
                raise YamlLimitExceeded(node.line, node.column, too_deep())
            if isinstance(event, yaml.AliasEvent):
                if any(each.node is node for each in around):
                    raise YamlLimitExceeded(node.line, node.column, "this alias contains itself")
            elif isinstance(node, YamlSequence | YamlMapping):
                around.append(_OpenCollection(node))
                continue
        if not around:
            return node
        around[-1].add(node)


def too_many() -> str:
    """Return the message for a file with too many values."""
    return f"the file has over {limits.PIPELINE_VALUES.most} values, with its aliases expanded"


def too_deep() -> str:
    """Return the message for a value that is nested too deep."""
    return f"this is nested over {limits.PIPELINE_DEPTH.most} levels deep"


class _OpenCollection(Struct):
    """An unfinished collection, and the key that waits for its value."""

    node: YamlSequence | YamlMapping
    key: YamlNode | None = None

    @property
    def takes_key(self) -> bool:
        return isinstance(self.node, YamlMapping) and self.key is None

    def add(self, node: YamlNode) -> None:
        if isinstance(self.node, YamlSequence):
            self.node.items.append(node)
        elif self.key is None:
            self.key = node
        else:
            if len(self.node.pairs) >= limits.YAML_KEYS.most:
                raise YamlLimitExceeded(self.key.line, self.key.column, limits.YAML_KEYS.exceeded())
            self.node.pairs.append((self.key, node))
            self.key = None


def _node(event: Any, anchors: _Anchors) -> YamlNode:
    mark = event.start_mark
    anchor = event.anchor
    if isinstance(event, yaml.AliasEvent):
        if anchor not in anchors:
            raise ComposerError(None, None, "found undefined alias", mark)
        return anchors[anchor][0]
    line, column = mark.line + 1, mark.column + 1
    tag = event.tag or "!"
    if len(tag) > limits.YAML_TAG.most:
        raise YamlLimitExceeded(line, column, limits.YAML_TAG.exceeded())
    node: YamlNode
    if isinstance(event, yaml.ScalarEvent):
        if tag == "!":
            tag = PLAIN if event.implicit[0] else _CORE + "str"
        node = YamlScalar(line, column, tag, event.value, bool(event.style))
    elif isinstance(event, yaml.MappingStartEvent):
        node = YamlMapping(line, column, _CORE + "map" if tag == "!" else tag, [])
    else:
        node = YamlSequence(line, column, _CORE + "seq" if tag == "!" else tag, [])
    if anchor is not None:
        if anchor in anchors:
            first = anchors[anchor][1]
            raise ComposerError("found duplicate anchor; first occurrence", first, "second occurrence", mark)
        anchors[anchor] = node, mark
    return node


_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
