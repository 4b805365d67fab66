"""One problem of a pipeline or project file: where, what, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from pccpipe.spec.source import Position


@dataclass(frozen=True, slots=True)
class Problem:
    position: Position
    message: str
    hint: str = ""
    line: str = ""
    """The text of the line, for the caret; empty if there is none to show."""

    def __str__(self) -> str:
        parts = [f"{self.position}: {self.message}"]
        if self.line.strip():
            text = self.line.rstrip().expandtabs(1)
            # A long line is shown around the place.
            start = max(0, self.position.column - 60) if len(text) > 110 else 0
            parts += [f"    {text[start : start + 110]}", f"    {' ' * (self.position.column - 1 - start)}^"]
        if self.hint:
            parts.append(f"    hint: {self.hint}")
        return "\n".join(parts)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word, or with all of them when none is near and they are few."""
    words = list(dict.fromkeys(known))
    near = difflib.get_close_matches(word, words, 1, 0.6) or difflib.get_close_matches(word.lower(), words, 1, 0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"known are: {', '.join(f'`{word}`' for word in words)}" if 0 < len(words) <= 12 else ""
