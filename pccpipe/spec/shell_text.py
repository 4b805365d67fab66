"""Where in a shell script a quoted word may be put: not within quotes, here-documents, backquotes and the like.

A value is put in as one word in single quotes. Within double quotes those quotes are plain characters and the shell
would expand what is between them: `echo "${{ x }}"` would run the `$(...)` that somebody wrote into x. So a `${{ }}`
that stands in such a place is refused when the pipeline is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEREDOC = re.compile(r"<<-?[ \t]*(?:'([^'\n]+)'|\"([^\"\n]+)\"|\\?([A-Za-z0-9_.-]+))")
_CASE = re.compile(r"(?<![\w.-])case(?![\w.-])")

_WORDS = {
    '"': "stands within double quotes",
    "'": "stands within single quotes",
    "`": "stands within backquotes",
    "<": "stands in a here-document",
    "{": "stands within ${...}",
    "+": "stands within $((...))",
    "?": "stands behind a `case` inside of $(...), where it cannot be told whether it is within quotes",
}


def misplaced_value(pieces: Iterable[str | None]) -> str | None:
    """Why a value may not stand where one does; None if all are well placed.

    Args:
        pieces: the script cut at its values: text, and None for each value.
    """
    reader = _Reader()
    for piece in pieces:
        if piece is not None:
            reader.read(piece)
        elif reader.state in _WORDS:
            return _WORDS[reader.state]
    return None


class _Reader:
    """Reads a script as a shell would, as far as quotes go. The innermost open thing is `state`; "" is none."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._waiting: list[str] = []
        """The ends of here-documents that begin on the next line."""
        self._word_ended = True

    @property
    def state(self) -> str:
        return self._open[-1] if self._open else ""

    def read(self, text: str) -> None:
        at = 0
        while at < len(text):
            at = self._step(text, at)

    def _step(self, text: str, at: int) -> int:
        char = text[at]
        match self.state:
            case "'":
                if char == "'":
                    self._open.pop()
                return at + 1
            case "<":
                return self._heredoc_line(text, at)
            case "#":
                if char == "\n":
                    self._open.pop()
                    return at
                return at + 1
            case "?":
                return len(text)
            case _:
                return self._code(text, at)

    def _code(self, text: str, at: int) -> int:
        """One step in code, or within double quotes, ${...}, $(...), $((...)) or backquotes."""
        char, state = text[at], self.state
        word_ended, self._word_ended = self._word_ended, char in " \t\n;&|()"
        if char == "\\":
            return at + 2
        if text.startswith("$((", at):
            self._open.append("+")
            return at + 3
        if text.startswith(("$(", "${"), at):
            self._open.append(text[at + 1])
            self._word_ended = True
            return at + 2
        if char == "`":
            self._toggle("`")
            return at + 1
        if char == '"':
            self._toggle('"')
            return at + 1
        if state == '"':
            return at + 1
        return self._unquoted(text, at, word_ended=word_ended)

    def _unquoted(self, text: str, at: int, *, word_ended: bool) -> int:
        char, state = text[at], self.state
        if char == "'":
            self._open.append("'")
        elif char == "#" and word_ended and state != "{":
            self._open.append("#")
        elif (char == ")" and state == "(") or (char == "}" and state == "{"):
            self._open.pop()
        elif char == ")" and state == "+" and text.startswith("))", at):
            self._open.pop()
            return at + 2
        elif char == "\n" and self._waiting:
            self._open.append("<")
        elif state == "(" and word_ended and _CASE.match(text, at):
            self._open.append("?")
        elif text.startswith("<<<", at):
            return at + 3
        elif (heredoc := _HEREDOC.match(text, at)) and state != "+":
            self._waiting.append(heredoc[1] or heredoc[2] or heredoc[3])
            return heredoc.end()
        return at + 1

    def _heredoc_line(self, text: str, at: int) -> int:
        end = text.find("\n", at)
        line = text[at:] if end < 0 else text[at:end]
        if line.lstrip("\t") == self._waiting[0]:
            self._waiting.pop(0)
            if not self._waiting:
                self._open.pop()
                return len(text) if end < 0 else end
        return len(text) if end < 0 else end + 1

    def _toggle(self, quote: str) -> None:
        if self.state == quote:
            self._open.pop()
        else:
            self._open.append(quote)
