"""The work of an attempt's agent in numbers, as `CommandEnded` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

T = TypeVar("T", int, float)


class EditedFile(Struct, frozen=True):
    """A file that an agent edited, with the lines of its edits as far as its program says them."""

    file: str
    added: int | None = None
    removed: int | None = None


class AgentReport(Struct, frozen=True):
    """The work of an attempt's agent, as its program reported it. Nothing proves that it is true."""

    commands: int = 0
    failed_commands: int = 0
    files: tuple[EditedFile, ...] = ()
    """The first edited files."""
    more_files: int = 0
    """Edits of files beyond those."""
    messages: int = 0
    last_message: str = ""
    """Its beginning."""
    retries: int = 0
    """Calls of the model that its program made again."""
    error: str = ""
    input_tokens: int | None = None
    """By its program's own account, as are the next three; the proxy's account is `ModelUsed`."""
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    usd: float | None = None


def sum_of(reports: Sequence[AgentReport]) -> AgentReport | None:
    """Return the sum of the reports of one agent's commands; the last message and error are the last one's."""
    if not reports:
        return None
    files: dict[str, EditedFile] = {}
    for file in (file for report in reports for file in report.files):
        before = files.get(file.file, EditedFile(file.file))
        files[file.file] = EditedFile(file.file, _plus(before.added, file.added), _plus(before.removed, file.removed))
    total = reports[-1]
    for report in reports[:-1]:
        total = replace(
            total,
            commands=total.commands + report.commands,
            failed_commands=total.failed_commands + report.failed_commands,
            more_files=total.more_files + report.more_files,
            messages=total.messages + report.messages,
            retries=total.retries + report.retries,
            input_tokens=_plus(total.input_tokens, report.input_tokens),
            cached_input_tokens=_plus(total.cached_input_tokens, report.cached_input_tokens),
            output_tokens=_plus(total.output_tokens, report.output_tokens),
            usd=_plus(total.usd, report.usd),
        )
    return replace(total, files=tuple(files.values()))


def _plus(one: T | None, other: T | None) -> T | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other
