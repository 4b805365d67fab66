"""Splits a step's path: `iterate[2].build` is `build` in `iterate[2]`, which is round 2 in `iterate`."""

from __future__ import annotations

import functools
import hashlib
import re

LONGEST_NAME = 80
"""Characters of a matrix leg's path in the names of its files."""

_VALUE = r"[A-Za-z0-9_]+=[A-Za-z0-9_.]+"
_PLAIN_LEGS = re.compile(rf"[^\[\]]*(?:\[(?:[0-9]+|{_VALUE}(?:,{_VALUE})*)\][^\[\]]*)*")
"""Paths whose names tell their legs apart."""


@functools.cache
def split(path: str) -> tuple[str, ...]:
    """Return the parts of a path, from the top: `("iterate", "[2]", "build")`."""
    parts: list[str] = []
    current, depth = "", 0
    for character in path:
        if character == "[" and depth == 0:
            parts.append(current)
            current = ""
        if character == "." and depth == 0:
            parts.append(current)
            current = ""
            continue
        depth += {"[": 1, "]": -1 if depth else 0}.get(character, 0)
        current += character
    return tuple(part for part in (*parts, current) if part)


@functools.cache
def rounds_left_out(path: str) -> str:
    """Return the path without the rounds of a `repeat`: `iterate.build` for `iterate[2].build`."""
    return ".".join(part for part in split(path) if not re.fullmatch(r"\[[0-9]+\]", part))


@functools.cache
def parent(path: str) -> str | None:
    """Return the path of the group, round or matrix leg around it; None at the top."""
    parts = split(path)
    if len(parts) == 1:
        return None
    return path[: -len(parts[-1])].removesuffix(".")


def label(path: str) -> str:
    """Return the last part, as people read it: `build`, `2`, `node=20`."""
    last = split(path)[-1]
    return last[1:-1] if last.startswith("[") else last


def file_name(path: str) -> str:
    """Return a step's path as a part of a file's name: `iterate-2.build` for `iterate[2].build`.

    The values of a matrix are any text, so a leg's name ends with a hash of its path, which makes it unique. It is long
    where a stranger could choose, among many values with the same name, two with the same short hash.
    """
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", path.replace("].", ".").rstrip("]"))
    if "=" not in path:
        return name
    is_telling = len(name) <= LONGEST_NAME and _PLAIN_LEGS.fullmatch(path)
    digest = hashlib.sha256(path.encode(errors="surrogatepass")).hexdigest()
    return f"{name[:LONGEST_NAME]}-{digest[: 8 if is_telling else 32]}"
