"""An agent's request for a person's help, as it stands in its result.

Control centres tell their agents to leave, in the result's `escalation`, YAML between two marks:

    <<<NEED_HELP>>>
    what_i_tried: the sandbox account
    what_i_need: access to the staging database
    inputs: [{key: db_host, label: Host name of the staging database}]
    <<<END_HELP>>>
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto

import yaml
from msgspec import Struct

from pccpipe.values import Json

FIELD = "escalation"
MOST_INPUTS = 50
_MARKED = re.compile(r"<<<NEED_HELP>>>(.*?)(?:<<<END_HELP>>>|\Z)", re.DOTALL)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_FREE = {"answer": "Your answer"}
"""The input of a request that names none, or none that can be read."""


class Help(Enum):
    """Whether a step, or one inside of it, asked a person for help."""

    NONE = auto()
    WANTED = auto()
    """Nobody has given it yet: nothing goes on."""
    GIVEN = auto()
    """The agent is to have another turn."""


class HelpRequest(Struct, frozen=True):
    tried: str
    needed: str
    inputs: Mapping[str, str]
    """Labels by key; at least one."""


def help_wanted(result: Json) -> HelpRequest | None:
    """The request in a step's result, if there is one. One that is no good YAML is handed on as text: nobody is to
    lose what an agent has to say over a colon.
    """
    text = result.get(FIELD) if isinstance(result, dict) else None
    marked = _MARKED.search(text) if isinstance(text, str) else None
    if not marked:
        return None
    written = marked[1].strip()
    try:
        # Its loader makes texts of all scalars: no types to stumble over.
        data = yaml.load(written, Loader=yaml.BaseLoader)
        return HelpRequest(str(data.get("what_i_tried", "")), str(data["what_i_need"]), _inputs(data.get("inputs")))
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, ValueError, RecursionError):
        return HelpRequest("", written, _FREE)


def unmarked_plea(result: Json) -> str:
    """What an agent says in the field for its requests without the marks of one: a person should read it."""
    text = result.get(FIELD) if isinstance(result, dict) else None
    return text.strip() if isinstance(text, str) and not _MARKED.search(text) else ""


def _inputs(given: object) -> Mapping[str, str]:
    if not given:
        return _FREE
    if not isinstance(given, list) or len(given) > MOST_INPUTS:
        raise ValueError("`inputs` is to be a list")
    inputs = {str(one["key"]): str(one.get("label") or one["key"]) for one in given}
    if not all(_KEY.fullmatch(key) for key in inputs):
        raise ValueError("a key is to be a plain word")
    return inputs
