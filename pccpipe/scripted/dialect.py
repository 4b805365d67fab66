"""The seam between the scripted server and the APIs that it speaks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from pccpipe.scripted.reply import CallTool, ErrorAnswer, Reply

Document: TypeAlias = "dict[str, Any]"
"""A JSON object of an API."""

PIECE = 40
"""Characters of a text in one event of a stream."""


class Asked(Struct, frozen=True):
    """The facts of a request that decide its answer."""

    model: str
    prompt: str
    """The last message of a person, or of pccpipe."""
    done: int
    """The results of tools after it."""
    has_tools: bool
    """False for a request beside the agent's work, such as one for a title."""
    is_stream: bool
    poll: CallTool | None = None
    """The call that asks about a command that still runs; a real model would make it."""


class Dialect(Protocol):
    """An API. `paths` are relative to any base."""

    key_header: str
    """The header that carries the key, in lower case."""

    def serves(self, path: str) -> bool:
        """Say whether a POST to the path calls the model."""

    def side_answer(self, method: str, path: str, size: int) -> Document | None:
        """Return the answer to another known request, such as a list of models or a count of tokens."""

    def read(self, path: str, body: Document) -> Asked:
        """Read a request."""

    def answer(self, reply: Reply, body: Document, asked: Asked) -> Document:
        """Return the whole answer."""

    def events(self, answer: Document, path: str) -> Iterator[tuple[str, Document]]:
        """Yield the answer as the events of a stream: their names, which may be empty, and data."""

    def error(self, fault: ErrorAnswer) -> Document:
        """Return the body of an error."""


def new_id(kind: str) -> str:
    """Return an id of that kind, such as `msg_0123456789abcdef`."""
    return f"{kind}_{uuid.uuid4().hex[:16]}"


def compact(value: object) -> str:
    """Return a value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def pieces_of(text: str) -> Iterator[str]:
    """Yield a text in the pieces of a stream."""
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def text_of(content: object) -> str:
    """Return the text of a message's content: a text, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict) and "text" in part)


def items(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list; an agent may send anything."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
