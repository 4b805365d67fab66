"""Plays a terminal's screen, as far as the live view uses one."""

from __future__ import annotations

import re

_PIECE = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|([^\x1b])", re.DOTALL)


class Screen:
    """Show what was written: `lines` are visible, `scrolled` are the lines that left at the top."""

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self.width, self.height = width, height
        self.cells: list[list[str]] = [[" "] * width for _ in range(height)]
        self.scrolled: list[str] = []
        self.row = self.column = 0

    @property
    def lines(self) -> list[str]:
        shown = ["".join(row).rstrip() for row in self.cells]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            piece = _PIECE.match(text, at)
            assert piece, f"the view wrote {text[at : at + 20]!r}"
            at = piece.end()
            if piece[3] is not None:
                self._character(piece[3])
            else:
                self._control(piece[1], piece[2])

    def _character(self, character: str) -> None:
        if character == "\n":
            self.column = 0
            self.row += 1
            if self.row == self.height:
                self.scrolled.append("".join(self.cells.pop(0)).rstrip())
                self.cells.append([" "] * self.width)
                self.row -= 1
            return
        assert character.isprintable(), f"the view wrote {character!r}"
        assert self.column < self.width, "the view wrote beyond the right edge"
        self.cells[self.row][self.column] = character
        self.column += 1

    def _control(self, argument: str, command: str) -> None:
        match command, argument:
            case "F", _:
                assert int(argument) <= self.row, "the view moved up beyond the screen"
                self.row, self.column = self.row - int(argument), 0
            case "E", _:
                self.row, self.column = self.row + 1, 0
            case "K", "":
                self.cells[self.row][self.column :] = [" "] * (self.width - self.column)
            case "J", "":
                self._control("", "K")
                for row in self.cells[self.row + 1 :]:
                    row[:] = [" "] * self.width
            case "J", "2":
                self.cells = [[" "] * self.width for _ in range(self.height)]
            case "H", "":
                self.row = self.column = 0
            case ("m", _) | ("h" | "l", "?25" | "?2026"):
                pass
            case _:
                raise AssertionError(f"the view wrote an escape: {argument}{command}")
