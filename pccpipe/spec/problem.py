"""A problem of a pipeline or project file: its position, its message, and a hint."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from pccpipe import limits
from pccpipe.spec.position import Position


class Rule(StrEnum):
    """The kind of rule that is broken."""

    FILE = "file"
    """The file cannot be read."""
    YAML = "yaml"
    """The file is not YAML, or YAML that pccpipe does not accept."""
    STRUCTURE = "structure"
    """A key or a value breaks the schema: editors that know the schema show it too."""
    MEANING = "meaning"
    """A name, a reference or an expression is wrong: only pccpipe sees it."""
    POLICY = "policy"
    """The operator's policy refuses it."""


class Problem(Struct, frozen=True):
    position: Position
    message: str
    hint: str = ""
    line: str = ""
    """The text of the line, to show with a caret; may be empty."""
    rule: Rule = Rule.MEANING
    covers: frozenset[Position] = frozenset()
    """The positions inside a value that is wrong as a whole: their own problems are left out."""

    def __str__(self) -> str:
        parts = [self.message if self.rule is Rule.FILE else f"{self.position}: {self.message}"]
        if self.line.strip():
            text = self.line.rstrip().expandtabs(1)
            # Only the part around the position is shown of a long line.
            start = max(0, self.position.column - 60) if len(text) > 110 else 0
            parts += [f"    {text[start : start + 110]}", f"    {' ' * (self.position.column - 1 - start)}^"]
        if self.hint:
            parts.append(f"    hint: {self.hint}")
        return "\n".join(parts)


# Names from other tools that are spelt too differently for a comparison of letters.
_ALSO: Mapping[str, tuple[str, ...]] = {
    "run": ("command", "cmd", "script", "exec", "shell_command"),
    "if": ("when", "condition", "only_if"),
    "env": ("environment", "variables", "vars"),
    "cwd": ("working_directory", "working-directory", "workdir", "working_dir", "dir"),
    "on": ("runs-on", "runs_on", "target", "where", "host"),
    "continue_on_error": ("allow_failure", "ignore_errors", "continue-on-error"),
    "repeat": ("loop", "while", "for"),
    "retry": ("retries",),
    "timeout": ("timeout_minutes", "timeout-minutes", "time_limit", "deadline"),
    "steps": ("jobs", "stages", "tasks"),
    "always": ("finally", "cleanup", "after", "post"),
    "inputs": ("parameters", "params", "args", "arguments"),
    "network": ("network_mode", "net"),
    "memory": ("mem_limit", "mem", "ram"),
    "pids": ("pids_limit",),
    "upload": ("sync", "push"),
    "download": ("artifacts", "fetch", "pull", "collect"),
    "max": ("times", "max_iterations", "count", "limit"),
    "attempts": ("max", "times", "count", "max_attempts"),
    "backoff": ("delay", "wait", "interval"),
    "external_ip": ("ip", "host", "hostname", "address"),
    "key_path": ("key", "ssh_key", "identity_file", "private_key"),
    "proxy_jump": ("jump", "bastion", "jump_host"),
    "isolation_mode": ("mode",),
    "container": ("docker", "podman"),
    "vm": ("ssh", "remote"),
    "local": ("host", "here", "localhost"),
    "integer": ("int",),
    "string": ("text", "str"),
    "boolean": ("bool", "flag"),
    "number": ("float", "double"),
    "path": ("file", "folder", "directory"),
    "read-only": ("ro", "readonly"),
    "read-write": ("rw", "writable"),
    "required": ("strict", "always", "true"),
    "preferred": ("none", "optional", "false"),
    "failed": ("failure", "error"),
    "timed_out": ("timeout",),
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the nearest known word; if none is near, with all known words if they are few."""
    words = _few(known)
    if near := nearest(word, words):
        return f"did you mean `{near}`?"
    if len(words) == 1:
        return f"the only one is `{words[0]}`"
    return f"known: {', '.join(f'`{word}`' for word in words)}" if 0 < len(words) <= 14 else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that was probably meant; empty if there is none."""
    words = _few(known)
    small = word.lower()
    for each in (word, small, small.replace("-", "_")):
        if near := difflib.get_close_matches(each, words, 1, 0.6):
            return near[0]
    return next((each for each in words if small in _ALSO.get(each, ())), "")


def _few(known: Iterable[str]) -> list[str]:
    return list(itertools.islice(dict.fromkeys(known), limits.NEAR_NAMES.most))
