"""Quotes names of strangers in commands that a person pastes into a shell."""

from __future__ import annotations

import shlex


def operands(*names: str) -> str:
    """Quote names as the last words of a command: each is one word, and none is an option."""
    end_of_options = "-- " if any(name.startswith("-") for name in names) else ""
    return end_of_options + shlex.join(names)
