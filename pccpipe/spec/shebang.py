"""Finds the program of a script: its `shell:`, or its first line `#!`."""

from __future__ import annotations

import re

from pccpipe.shells import dialect_of, program_of

_ENV = re.compile(r"\S*/env\s+(?:-S\s+)?(?=[^\s=-][^\s=]*(?:\s|\Z))")
_WORDS = re.compile(r"[\w./+][\w./+=:,@%-]*(?: [\w./+=:,@%-]+)*", re.ASCII)
_ONLY_PS1 = frozenset({"pwsh", "powershell"})

MessageAndHint = tuple[str, str]
"""A message and its hint."""


def shell_of(script: str, own: str | None, default: str | None, *, reads_shebang: bool = True) -> str:
    """Return the shell of a script, with its options.

    Args:
        own: the `shell:` beside the script, which decides.
        default: the `shell:` of `defaults:`, for a script without a first line `#!`.
    """
    return own or (named_in(script) if reads_shebang else "") or default or "sh"


def named_in(script: str) -> str:
    """Return the program in a script's first line `#!`, with its options; empty without such a line."""
    if not script.startswith("#!"):
        return ""
    words = " ".join(script.split("\n", 1)[0][2:].split())
    words = _ENV.sub("", words, count=1) if _ENV.match(words) else words
    # A shell is found by its name, as everywhere else.
    program, space, options = words.partition(" ")
    return f"{program_of(program)}{space}{options}" if dialect_of(program) else words


def shebang_problem(script: str, own: str | None) -> MessageAndHint | None:
    """Find a first line `#!` that names no program, or not that of the `shell:` beside it."""
    if not script.startswith("#!"):
        return None
    named = named_in(script)
    if not _WORDS.fullmatch(named):
        return "invalid first line `#!`", "name a program and its options, such as `#!/usr/bin/env python3`"
    if own and program_of(named) != program_of(own) and not (dialect_of(named) == "sh" and dialect_of(own)):
        return f"the first line names `{program_of(named)}`, and `shell:` is `{own}`", "leave out one of them"
    return None


def language_problem(shell: str) -> MessageAndHint | None:
    """Find a shell that cannot run a script without a certain ending of its file's name."""
    program = program_of(shell)
    if program not in _ONLY_PS1:
        return None
    hint = (
        f"""put the script into `files:` (`NAME.ps1: {{text: ...}}`), and write `run: {program} "$PCC_IN/NAME.ps1"`"""
    )
    return f"{program} runs only files whose names end with `.ps1`, and a script's does not", hint
