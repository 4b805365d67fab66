"""Looks through the conversation in a request, for parts that the provider would fetch, and for pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from pccpipe.values import Json

IMAGE = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII)
_OWN_IDS = frozenset({"call_id", "tool_use_id", "tool_call_id", "approval_request_id"})
_LINK = re.compile(r"(?i:ur[li]|_id)$|I[dD]$")
_INLINE = frozenset({"base64", "text", "content"})
"""The sources of a picture or document that contain it."""
_AWAY = frozenset({"url", "file"})
"""Those that do not; their address is a key of its own."""


class ContentForm(Struct, frozen=True):
    """The form of the parts of a conversation in one API."""

    free: Mapping[str, str]
    """The key of each kind of part under which an agent's own tools may have any keys."""
    citations: frozenset[str] = frozenset()
    """The kinds that tell where an earlier text came from; the provider does not fetch that."""
    has_types: bool = True
    """The kind of a part is its `type`; otherwise the key that holds it."""
    has_references: bool = False
    """A part with nothing but an `id` stands for a stored one."""


def fetched(value: Json, form: ContentForm) -> Iterator[str]:
    """Yield the keys of a conversation that make the provider fetch something: a URL, a stored file or answer."""
    for holder, kind, part in _parts(value, form):
        yield from _named(holder, kind, part, form)
        for key, inner in part.items():
            if key.lower() == "type" and key != "type":
                yield key
            is_own = key == "id" or key in _OWN_IDS or key == form.free.get(kind)
            is_cited = isinstance(inner, str) and kind in form.citations
            is_seen = key == "url" and _LINK.search(holder)
            if not (is_own or is_cited or is_seen) and _LINK.search(key) and _leads_away(inner):
                yield key


def pictures(value: Json, form: ContentForm) -> Iterator[int]:
    """Yield the size of each picture in a conversation. A text that only looks like a picture counts as text."""
    for _, kind, part in _parts(value, form):
        match part:
            case {"type": "image", "source": {"type": "base64", "data": str(data)}} if form.has_types:
                yield len(data)
            case {"image_url": str(url)} | {"image_url": {"url": str(url)}} if form.has_types and IMAGE.match(url):
                yield len(url)
            case {"mimeType": str(mime), "data": str(data)} | {"mime_type": str(mime), "data": str(data)}:
                if kind in {"inlineData", "inline_data"} and mime.startswith("image/"):
                    yield len(data)
            case _:
                pass


def _parts(value: Json, form: ContentForm) -> Iterator[tuple[str, str, dict[str, Json]]]:
    """Yield each object with the key that holds it and its kind, without the arguments of the agent's own tools."""
    left: list[tuple[str, Json]] = [("", value)]
    while left:
        holder, value = left.pop()
        match value:
            case list() as items:
                left += [(holder, each) for each in items]
            case dict() as part:
                named = part.get("type") if form.has_types else holder
                kind = named if isinstance(named, str) else ""
                yield holder, kind, part
                free = form.free.get(kind)
                left += [(key, inner) for key, inner in part.items() if key != free]
            case _:
                pass


def _named(holder: str, kind: str, part: dict[str, Json], form: ContentForm) -> Iterator[str]:
    """Yield what the kind of a part alone makes the provider fetch."""
    if not form.has_types:
        return
    if kind.startswith("mcp_"):
        yield "mcp"
    if form.has_references and (kind == "item_reference" or ("id" in part and not part.keys() & {"type", "role"})):
        yield "item_reference"
    if holder == "source" and kind not in _INLINE | _AWAY:
        yield kind or holder


def _leads_away(value: Json) -> bool:
    """Say whether a URL or id names something outside the request."""
    if isinstance(value, dict):
        value = value.get("url")
    return value is not None and value != "" and not (isinstance(value, str) and value.startswith("data:"))
