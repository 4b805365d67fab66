"""The base of all kinds of events."""

from __future__ import annotations

import re

from msgspec import Struct


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class EventKind(Struct, frozen=True, tag_field="event", tag=_snake):
    """The base of all kinds: it gives each its word in a line, `step_started` for a StepStarted."""
