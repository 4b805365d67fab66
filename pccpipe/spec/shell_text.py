"""Finds a `${{ }}` of a shell script at a place where quotes do not protect its value.

pccpipe inserts a value as one word in single quotes. Inside double quotes, these quotes are plain characters, and the
shell would expand the value: `echo "${{ x }}"` would run a `$(...)` in x. In a comment, a line break in the value would
end the comment. pccpipe refuses such a `${{ }}` when it reads the pipeline.

The reader follows dash, bash and busybox. Where they differ, or where only a full parser could decide, it does not
guess: it refuses every later value. tests/spec/test_shell_text.py proves this on the shells themselves.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum

from msgspec import Struct


class _Inside(Enum):
    """A construct around the reader's position."""

    PARENS = "inside parentheses"
    SINGLE = "inside single quotes"
    DOLLAR_SINGLE = "inside $'...'"
    DOUBLE = "inside double quotes"
    BACKQUOTES = "inside backquotes"
    BRACES = "inside ${...}"
    ARITHMETIC = "inside ((...)), where a value can become a command"
    ARITHMETIC_PARENS = "inside parentheses in ((...)), where a value can become a command"
    HEREDOC = "in a here-document"
    COMMENT = "in a comment, which a line break in the value would end"
    UNCLEAR = "after a place where shells differ on quoting"


_BEHIND_BACKSLASH = r"right after a `\`"
_BEHIND_DOLLAR = "right after a `$`"
_AS_HEREDOC_END = "in the end marker of a here-document"
_SUBSCRIPT = "inside the brackets of an array, where a value can become a command"

_HEREDOC = re.compile(r"""<<(-?)[ \t]*(?:'([^'\n]+)'|"([^"\n\\$`]+)"|(\\?)([\w.,/@%+=:-]+))(?=[\s;&|()<>]|\Z)""")
_CASE = re.compile(r"case(?![\w.-])")
_SUBSCRIPTED = re.compile(r"(?<![\w])[A-Za-z_]\w*\[[^]\s]*\Z")
_BLANK = frozenset(" \t\n;&|()")
"""Characters after which a word, and so a comment, can begin."""
_CUT = ("$", "<", "(", ")", "{")
"""Characters after which a backslash at the line's end may split a `$(` or `<<`."""
_ONLY_PARENS = frozenset({_Inside.PARENS})
_ONLY_CODE_AND_BRACES = frozenset({_Inside.PARENS, _Inside.BRACES})
_MAY_BE_AROUND = frozenset({_Inside.PARENS, _Inside.DOUBLE})
"""Constructs that may be around a value, as in `"$(cat ${{ x }})"`: quoting starts new in the parentheses."""


class MisplacedValue(Struct, frozen=True):
    """A value at an unsafe place."""

    piece: int
    """The value's index in the pieces."""
    why: str
    """The description of the place."""


def misplaced_value(pieces: Sequence[str | None], shell: str = "sh") -> MisplacedValue | None:
    """Return the first value at an unsafe place; None if there is none.

    Args:
        pieces: the script cut at its values: text, and None for each value.
        shell: the shell that will read it, `sh` or `bash`.
    """
    values: dict[int, int] = {}
    script, length = [], 0
    for index, piece in enumerate(pieces):
        if piece is None:
            values[length] = index
        # A quoted value is a part of a word, like a letter.
        script.append("v" if piece is None else piece)
        length += len(script[-1])
    if not values:
        return None
    reader = _ScriptReader("".join(script), list(values), shell)
    found = reader.read()
    return MisplacedValue(values[found[0]], found[1]) if found else None


class _ScriptReader:
    def __init__(self, text: str, values: list[int], shell: str) -> None:
        self._is_bash = shell == "bash"
        self._text = text
        self._values = values
        self._at = 0
        self._around: list[_Inside] = []
        """The constructs around the position, from the outside in."""
        self._waiting: list[tuple[str, bool, bool, int]] = []
        """Here-documents that begin on the next line: end, `<<-`, unquoted, depth in `_around`."""
        self._word_begins = True
        self._why: str | None = None

    def read(self) -> tuple[int, str] | None:
        """Return the position of the first misplaced value, and the reason."""
        last, begin = self._values[-1], 0
        while self._why is None and self._at <= last:
            begin = self._at
            inside = self._around[-1] if self._around else None
            if self._is_value(self._at):
                self._value()
            match inside:
                case None | _Inside.PARENS:
                    self._code()
                case _Inside.DOUBLE | _Inside.BRACES | _Inside.ARITHMETIC | _Inside.ARITHMETIC_PARENS:
                    self._expanded(inside)
                case _Inside.SINGLE | _Inside.DOLLAR_SINGLE | _Inside.BACKQUOTES:
                    self._verbatim(inside)
                case _Inside.COMMENT:
                    self._skip_to(self._text.find("\n", self._at), inside)
                case _Inside.HEREDOC:
                    self._heredoc_line()
                case _Inside.UNCLEAR:
                    self._skip_to(len(self._text), inside)
        return (self._values[bisect_left(self._values, begin)], self._why) if self._why else None

    def _value(self) -> None:
        """Judge the place of the value at the reader's position."""
        if wrong := [inside for inside in self._around if inside not in _MAY_BE_AROUND]:
            self._why = wrong[-1].value
        elif self._around and self._around[-1] is _Inside.DOUBLE:
            self._why = _Inside.DOUBLE.value
        elif _SUBSCRIPTED.search(self._text, max(0, self._at - 200), self._at):
            self._why = _SUBSCRIPT

    def _code(self) -> None:
        char, begins = self._text[self._at], self._word_begins
        self._word_begins = char in _BLANK
        match char:
            case "\\":
                self._escape(begins)
            case "#" if self._text.endswith(("<", ">", ")"), 0, self._at):
                self._enter(_Inside.UNCLEAR, 1)
            case "#" if begins:
                self._enter(_Inside.COMMENT, 1)
            case "'":
                self._enter(_Inside.SINGLE, 1)
            case '"':
                self._enter(_Inside.DOUBLE, 1)
            case "$" | "`":
                self._expansion()
            case "(":
                self._open_parens()
            case ")":
                self._close_parens()
            case "\n" if self._waiting:
                self._enter(_Inside.HEREDOC if self._waiting[0][3] == len(self._around) else _Inside.UNCLEAR, 1)
            case "<" if self._next("<<<") and self._is_bash:
                self._at += 3
            case "<" if self._next("<<"):
                self._heredoc()
            case "c" if begins and _CASE.match(self._text, self._at) and not _ONLY_PARENS.issuperset(self._around):
                # The reader would take the `)` of its patterns for the end of the `$(`.
                self._enter(_Inside.UNCLEAR, 1)
            case _:
                self._at += 1

    def _expanded(self, inside: _Inside) -> None:
        """Read one character inside double quotes, ${...} or ((...))."""
        char = self._text[self._at]
        match char, inside:
            case "\\", _:
                self._escape(False)
            case "$" | "`", _:
                self._expansion()
            case '"', _Inside.DOUBLE:
                self._leave(1)
            case _, _Inside.DOUBLE:
                self._at += 1
            case "'" | '"', _:
                # Inside double quotes or ((...)), shells differ on a quote in a ${...}.
                plain = inside is _Inside.BRACES and _ONLY_CODE_AND_BRACES.issuperset(self._around)
                self._enter((_Inside.SINGLE if char == "'" else _Inside.DOUBLE) if plain else _Inside.UNCLEAR, 1)
            case "\n", _ if self._waiting:
                self._enter(_Inside.UNCLEAR, 1)
            case "}", _Inside.BRACES:
                self._leave(1)
            case "(", _Inside.ARITHMETIC | _Inside.ARITHMETIC_PARENS:
                self._enter(_Inside.ARITHMETIC_PARENS, 1)
            case ")", _Inside.ARITHMETIC_PARENS:
                self._leave(1)
            case ")", _Inside.ARITHMETIC if self._next("))"):
                self._leave(2)
            case ")", _Inside.ARITHMETIC:
                self._enter(_Inside.UNCLEAR, 1)  # the `$((` was a `$(` and a `(`
            case _:
                self._at += 1

    def _verbatim(self, inside: _Inside) -> None:
        """Read to the end of '...', $'...' or `...`."""
        end = self._text.find("`" if inside is _Inside.BACKQUOTES else "'", self._at)
        stretch = self._text[self._at : end]
        # Only bash knows \' in $'...'; shells differ on the end of a `...` with quotes, comments or an escape in it.
        unclear = {_Inside.DOLLAR_SINGLE: "\\", _Inside.BACKQUOTES: "\\'\"#"}.get(inside, "")
        self._skip_to(end, inside)
        if end >= 0:
            self._leave(1)
            if any(char in stretch for char in unclear):
                self._around.append(_Inside.UNCLEAR)

    def _expansion(self) -> None:
        """Read a `$` or a backquote, in code or in expanded text."""
        in_code = not self._around or self._around[-1] is _Inside.PARENS
        if self._text[self._at] == "`":
            self._enter(_Inside.BACKQUOTES, 1)
        elif self._next("$(("):
            self._enter(_Inside.ARITHMETIC, 3)
        elif self._next("$("):
            self._enter(_Inside.PARENS, 2)
            self._word_begins = True
        elif self._next("${"):
            self._enter(_Inside.BRACES, 2)
        elif self._next("$["):
            self._enter(_Inside.UNCLEAR, 2)
        elif self._next("$'") and in_code:
            self._enter(_Inside.DOLLAR_SINGLE, 2)
        elif self._next("$'") and self._around[-1] is not _Inside.DOUBLE:
            self._enter(_Inside.UNCLEAR, 2)
        elif self._next("$$"):
            self._at += 2  # the process's id: a `(` after it is not a `$(`
        else:
            self._at += 1
            if self._is_value(self._at):
                self._why = self._why or _BEHIND_DOLLAR

    def _escape(self, begins: bool) -> None:
        if self._is_value(self._at + 1):
            self._why = self._why or _BEHIND_BACKSLASH
        if self._next("\\\n") and self._text.endswith(_CUT, 0, self._at):
            self._enter(_Inside.UNCLEAR, 2)
            return
        # The line continues in the next one: a word there may have begun before.
        self._word_begins = begins and self._next("\\\n")
        self._at += 2

    def _open_parens(self) -> None:
        if not self._next("(("):
            self._enter(_Inside.PARENS, 1)
        elif self._is_bash:
            self._enter(_Inside.ARITHMETIC, 2)
        else:
            self._enter(_Inside.UNCLEAR, 2)  # two subshells, where `<<` begins a here-document; arithmetic in some sh

    def _close_parens(self) -> None:
        deep = len(self._around)
        if self._waiting and self._waiting[-1][3] >= deep:
            self._enter(_Inside.UNCLEAR, 1)
        elif deep:
            self._leave(1)
            self._word_begins = True
        else:
            self._at += 1  # the pattern of a `case`

    def _heredoc(self) -> None:
        found = _HEREDOC.match(self._text, self._at)
        if found is None or _Inside.DOUBLE in self._around:
            named = self._text.find("\n", self._at)
            stop = len(self._text) if named < 0 else named
            if self._has_value(self._at, stop):
                self._why = self._why or _AS_HEREDOC_END
            self._enter(_Inside.UNCLEAR, 2)
            return
        if self._has_value(found.start(), found.end()):
            self._why = self._why or _AS_HEREDOC_END
        dash, single, double, backslash, word = found.groups()
        end = single or double or word
        self._waiting.append((end, bool(dash), not (single or double or backslash), len(self._around)))
        self._at = found.end()
        self._word_begins = False

    def _heredoc_line(self) -> None:
        end, strips, unquoted, _ = self._waiting[0]
        newline = self._text.find("\n", self._at)
        line = self._text[self._at :] if newline < 0 else self._text[self._at : newline]
        self._skip_to(newline, _Inside.HEREDOC)
        bare = line.lstrip("\t") if strips else line
        if bare == end:
            self._waiting.pop(0)
            if not self._waiting:
                self._leave(0)
                self._word_begins = True
                return
        elif (bare.startswith(end) and self._around[:-1]) or (unquoted and line.endswith("\\")):
            # Some shells take `E)` for the end; and a line that continues in the next one hides the end.
            self._around.append(_Inside.UNCLEAR)
        self._at += 1

    def _skip_to(self, end: int, inside: _Inside) -> None:
        """Skip to `end` (below 0: the script's end); a value before it is misplaced."""
        stop = len(self._text) if end < 0 else end
        if self._has_value(self._at, stop):
            self._why = self._why or inside.value
        self._at = stop
        if inside is _Inside.COMMENT:
            self._leave(0)
            self._word_begins = True

    def _enter(self, inside: _Inside, length: int) -> None:
        self._around.append(inside)
        self._at += length

    def _leave(self, length: int) -> None:
        self._around.pop()
        self._at += length
        self._word_begins = False

    def _has_value(self, start: int, end: int) -> bool:
        first = bisect_left(self._values, start)
        return first < len(self._values) and self._values[first] < end

    def _is_value(self, at: int) -> bool:
        return self._has_value(at, at + 1)

    def _next(self, text: str) -> bool:
        return self._text.startswith(text, self._at)
