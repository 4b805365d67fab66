"""Reads .gitignore patterns, and matches paths in time proportional to the product of the two lengths, at most.

The rules are git's (gitignore(5), wildmatch.c). The last matching pattern decides; those of an inner folder come before
those of the folders around it. No `!` lets in a file of an ignored folder. No pattern becomes a regular expression that
backtracks: a `*` matches as little as possible, and `**` is a `*` of names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from pccpipe import limits
from pccpipe.errors import LimitExceeded

_MatchesName: TypeAlias = "Callable[[str], object]"
_ANY = "**"
_KEPT = 4096
"""Folders whose decision is remembered."""
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\r\\f\\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


class _Pattern(Struct, frozen=True):
    ignores: bool
    only_folders: bool
    names: tuple[_MatchesName | None, ...]
    """The matcher of each name of the path, from the file's folder on; None is `**`."""
    anywhere: bool
    """The pattern is for the last name of the path alone."""


class Patterns:
    """The lines of one .gitignore, for the paths in its folder. Raises LimitExceeded."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._named: dict[str, list[int]] = {}
        self._others: list[int] = []
        self._all: list[_Pattern] = []
        self.steps = 0
        """The number of times that a pattern was tried on a name."""
        for line in lines:
            if len(line) > limits.IGNORE_PATTERN.most:
                raise LimitExceeded(limits.IGNORE_PATTERN)
            self._add(line)
            if len(self._all) > limits.IGNORE_PATTERNS.most:
                raise LimitExceeded(limits.IGNORE_PATTERNS)

    def __len__(self) -> int:
        return len(self._all)

    def _add(self, line: str) -> None:
        text = _trimmed(line)
        if not text or text.startswith("#"):
            return
        ignores = not text.startswith("!")
        text = text if ignores else text[1:]
        only_folders = text.endswith("/")
        text = text[:-1] if only_folders else text
        anywhere = "/" not in text
        # In git, a pattern that ends in a lone backslash or an open bracket matches nothing.
        try:
            parts = _parts(text.removeprefix("/"))
            names = tuple(None if not anywhere and _is_any(part) else _matches_name(part) for part in parts)
        except ValueError:
            return
        if not text or text == "/":
            return
        index = len(self._all)
        self._all.append(_Pattern(ignores, only_folders, names, anywhere))
        if anywhere and not _SPECIAL.search(parts[0]):
            self._named.setdefault(parts[0], []).append(index)
        else:
            self._others.append(index)

    def decide(self, names: Sequence[str], *, is_folder: bool) -> bool | None:
        """Say whether the last pattern that matches the path ignores it; None if none matches."""
        found = -1
        for index in reversed(self._named.get(names[-1], ())):
            if is_folder or not self._all[index].only_folders:
                found = index
                break
        for index in reversed(self._others):
            if index < found:
                break
            self.steps += 1
            pattern = self._all[index]
            if pattern.only_folders and not is_folder:
                continue
            if pattern.anywhere:
                match = pattern.names[0]
                if match is not None and match(names[-1]):
                    found = index
                    break
            elif self._match(pattern.names, names):
                found = index
                break
        return self._all[found].ignores if found >= 0 else None

    def _match(self, wanted: Sequence[_MatchesName | None], names: Sequence[str]) -> bool:
        """Say whether the names match one by one. Goes back to the last `**` only: an earlier one cannot help."""
        at = name = 0
        star, taken = -1, 0
        while name < len(names):
            self.steps += 1
            match = wanted[at] if at < len(wanted) else _matches_nothing
            if match is None:
                if at == len(wanted) - 1:
                    return True  # anything in the folder, at least one name
                star, taken = at, name
                at += 1
            elif match(names[name]):
                at += 1
                name += 1
            elif star >= 0:
                taken += 1
                at, name = star + 1, taken
            else:
                return False
        return at == len(wanted)


class Tree:
    """Decides with the patterns of a folder and of the folders in it; the key is the folder's path: `` or `a/b/`."""

    def __init__(self, patterns: Mapping[str, Patterns]) -> None:
        self._patterns = patterns
        self._folders: dict[tuple[str, ...], bool] = {}
        self.steps = 0
        """The number of times that a pattern was tried on a name."""

    def ignores(self, path: str, *, is_folder: bool) -> bool:
        """Say whether the path, or a folder above it, is ignored."""
        names = tuple(path.split("/"))
        return self._ignores_folder(names[:-1]) or self._decide(names, is_folder=is_folder)

    def _ignores_folder(self, names: tuple[str, ...]) -> bool:
        for count in range(1, len(names) + 1):
            outer = names[:count]
            known = self._folders.get(outer)
            if known is None:
                if len(self._folders) >= _KEPT:
                    self._folders.clear()
                known = self._folders[outer] = self._decide(outer, is_folder=True)
            if known:
                return True
        return False

    def _decide(self, names: tuple[str, ...], *, is_folder: bool) -> bool:
        for count in range(len(names) - 1, -1, -1):
            patterns = self._patterns.get("".join(f"{name}/" for name in names[:count]))
            if patterns is None:
                continue
            before = patterns.steps
            decided = patterns.decide(names[count:], is_folder=is_folder)
            self.steps += patterns.steps - before
            if decided is not None:
                return decided
        return False


_SPECIAL = re.compile(r"[*?\[\\]")


def _trimmed(line: str) -> str:
    """Strip the spaces at the end of a line, except one behind a backslash."""
    text = line.removesuffix("\r")
    kept = text.rstrip(" ")
    slashes = len(kept) - len(kept.rstrip("\\"))
    return kept + " " if slashes % 2 and len(kept) < len(text) else kept


def _is_any(part: str) -> bool:
    return len(part) > 1 and not part.strip("*")


def _parts(text: str) -> list[str]:
    """Split a pattern into names. A slash in brackets does not separate. Raises ValueError like `_matches_name`."""
    begin, at, parts = 0, 0, []
    while at < len(text):
        if text[at] == "/":
            parts.append(text[begin:at])
            begin = at + 1
        at = _bracket(text, at + 1)[1] if text[at] == "[" else at + 1 + (text[at] == "\\")
    return [*parts, text[begin:]]


def _matches_nothing(_: str) -> bool:
    return False


def _matches_name(part: str) -> _MatchesName:
    """Return the matcher of one name. Raises ValueError for a pattern that matches nothing."""
    if not _SPECIAL.search(part):
        return part.__eq__
    # Atomic groups: with backtracking, the time would grow exponentially.
    first, *rest = _pieces(part)
    expression = first
    for piece in rest[:-1]:
        expression += f"(?>.*?{piece})"
    if rest:
        expression += f".*{rest[-1]}"
    return re.compile(expression, re.DOTALL).fullmatch


def _pieces(part: str) -> Iterator[str]:
    """Yield the expressions of the pieces between asterisks."""
    piece: list[str] = []
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            if piece or not part[: at - 1].endswith("*"):
                yield "".join(piece)
            piece = []
        elif char == "?":
            piece.append(".")
        elif char == "\\":
            if at == len(part):
                raise ValueError(part)
            piece.append(re.escape(part[at]))
            at += 1
        elif char == "[":
            expression, at = _bracket(part, at)
            piece.append(expression)
        else:
            piece.append(re.escape(char))
    yield "".join(piece)


def _bracket(part: str, at: int) -> tuple[str, int]:
    """Return the expression of a `[...]` whose inside begins at `at`, and its end. Raises ValueError."""
    negated = part[at : at + 1] in {"!", "^"}
    at += negated
    begin, inside = at, ""
    while at < len(part) and (part[at] != "]" or at == begin):
        if part.startswith("[:", at):
            end = part.find(":]", at + 2)
            if end >= 0 and (name := part[at + 2 : end]) in _CLASSES:
                inside += _CLASSES[name]
                at = end + 2
                continue
            if end >= 0:
                raise ValueError(part)
        low, at = _one(part, at)
        if part[at : at + 1] == "-" and part[at + 1 : at + 2] not in {"]", ""}:
            high, at = _one(part, at + 1)
            # For a range from a higher to a lower character, git matches only the first one.
            inside += f"{re.escape(low)}-{re.escape(high)}" if low <= high else re.escape(low)
        else:
            inside += re.escape(low)
    if at >= len(part):
        raise ValueError(part)
    return f"[{'^' if negated else ''}{inside}]", at + 1


def _one(part: str, at: int) -> tuple[str, int]:
    if part[at] == "\\":
        at += 1
        if at >= len(part):
            raise ValueError(part)
    return part[at], at + 1
