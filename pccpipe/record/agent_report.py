"""The work of an attempt's agent in numbers, as `CommandEnded` has it."""

from __future__ import annotations

from msgspec import Struct


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
