"""The replies of a scripted model; a dialect turns each into the form of its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct, field

from pccpipe.values import Json

ALWAYS = 1 << 30
"""The times of a fault that does not pass."""


class Say(Struct, frozen=True):
    """A message; it ends the agent's turn."""

    text: str


class Shell(Struct, frozen=True):
    """A command for the agent's shell tool."""

    command: str


class WriteFile(Struct, frozen=True):
    """A file to write with the agent's own tool for that."""

    path: str
    text: str


class Patch(Struct, frozen=True):
    """A patch in the format of Codex's apply_patch."""

    text: str


class CallTool(Struct, frozen=True):
    """A call of any tool."""

    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)


class GiveResult(Struct, frozen=True):
    """The step's result: through the agent's tool for it, else as the last message."""

    value: Json


Action: TypeAlias = Say | Shell | WriteFile | Patch | CallTool | GiveResult


class ModelUsage(Struct, frozen=True):
    """The tokens that an answer reports; `input` includes `cached`."""

    input: int = 100
    cached: int = 0
    output: int = 20


class ErrorAnswer(Struct, frozen=True):
    """An error instead of the answer; `body` replaces the API's usual one."""

    status: int = 500
    times: int = 1
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Json = None


class CutStream(Struct, frozen=True):
    """The connection ends in the middle of the answer."""

    times: int = 1


class Hang(Struct, frozen=True):
    """No answer until the client disconnects; with `begun`, after the beginning of a stream."""

    begun: bool = False
    times: int = ALWAYS


Fault: TypeAlias = ErrorAnswer | CutStream | Hang


class Reply(Struct, frozen=True):
    """An answer of the model, and the faults that come before it, in their order."""

    action: Action | None
    """None for an answer without content."""
    say: str = ""
    """A text before the call of a tool."""
    usage: ModelUsage = ModelUsage()
    faults: tuple[Fault, ...] = ()
    delay: float = 0.0
    """Seconds before it."""
    trickle: float = 0.0
    """Seconds between the pieces of a text."""

    def fault(self, occurrence: int) -> Fault | None:
        """Return the fault for the request that comes for the `occurrence`th time, from 1."""
        for fault in self.faults:
            if occurrence <= fault.times:
                return fault
            occurrence -= fault.times
        return None
