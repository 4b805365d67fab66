"""Find the JSON in an agent's last message, which may have prose or a fence around it."""

from __future__ import annotations

import json

_TRIES = 200
_WORK = 4
"""Times the length of the text that is read in search of it, at most."""


def final_json(text: str) -> bytes | None:
    """Return the object at the end of a text, as UTF-8; None if there is none.

    Before it may be prose, or a first part of the same object: a program writes its answer again after a cut stream.
    """
    body = text.rstrip()
    body = body.removesuffix("```").rstrip()
    if not body.endswith("}"):
        return None
    decoder, at, work = json.JSONDecoder(), -1, _WORK * len(body) + 1000
    for _ in range(_TRIES):
        at = body.find("{", at + 1)
        if at < 0 or work <= 0:
            return None
        try:
            _, end = decoder.raw_decode(body, at)
        except json.JSONDecodeError as error:
            work -= max(0, error.pos - at) + 1
            continue
        except (ValueError, RecursionError):
            return None
        work -= end - at
        if end == len(body):
            return body[at:].encode("utf-8", "replace")
        # An object inside of the prose.
        at = end - 1
    return None
