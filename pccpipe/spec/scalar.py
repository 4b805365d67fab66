"""Values of YAML scalars, by YAML 1.2's core schema: https://yaml.org/spec/1.2.2/#103-core-schema."""

from __future__ import annotations

import re

from pccpipe import limits

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


def plain_scalar(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted scalar."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text in {"true", "True", "TRUE"}
    if _INT.match(text):
        return _whole(text, 10)
    if _OCTAL.match(text):
        return _whole(text, 8)
    if _HEX.match(text):
        return _whole(text, 16)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL.match(text):
        return float(text.replace(".", "", 1))
    return text


def _whole(text: str, base: int) -> int | str:
    return text if len(text) > limits.YAML_DIGITS.most else int(text, base)
