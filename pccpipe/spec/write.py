"""Writes plain data as YAML text that our reader of YAML 1.2 reads back unchanged."""

from __future__ import annotations

import functools

import yaml

from pccpipe.spec.scalar import plain_scalar
from pccpipe.values import Json

_TAGS = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}


def yaml_text(data: Json) -> str:
    """Return the data as YAML, in the order of its keys, with texts of several lines as blocks."""
    return str(yaml.dump(data, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120))


@functools.cache
def _dumper() -> type[yaml.SafeDumper]:
    class Core(yaml.SafeDumper):
        """Quotes only the texts that YAML 1.2 would read as another type; writes no aliases."""

        def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
            if kind is yaml.ScalarNode and implicit[0]:
                return f"tag:yaml.org,2002:{_TAGS[type(plain_scalar(value))]}"
            inner = (False, implicit[1]) if kind is yaml.ScalarNode else implicit
            return str(super().resolve(kind, value, inner))  # type: ignore[no-untyped-call]

        def ignore_aliases(self, _data: object) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's signature
            super().increase_indent(flow, False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        # PyYAML would write Unicode's line ends unchanged, and read them as a space.
        if any(end in value for end in "\x85\u2028\u2029"):
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Core.add_representer(str, text)
    return Core
