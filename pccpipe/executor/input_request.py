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

from pccpipe import limits
from pccpipe.errors import LimitExceeded, ResultError
from pccpipe.values import Json

FIELD = "escalation"
_MARKED = re.compile(r"<<<NEED_HELP>>>(.*?)(?:<<<END_HELP>>>|\Z)", re.DOTALL)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_FREE = {"answer": "Your answer"}
"""The input of a request that names none, or none that can be read."""


class InputState(Enum):
    """Whether a step, or one inside of it, asked a person for help."""

    NONE = auto()
    WANTED = auto()
    """Nobody has given it yet: nothing goes on."""
    GIVEN = auto()
    """The agent is to have another turn."""


class InputRequest(Struct, frozen=True):
    tried: str
    needed: str
    inputs: Mapping[str, str]
    """Labels by key; at least one."""


def check_request(result: Json) -> None:
    """Refuse a request that is more than a person reads, or whose YAML could become any amount of data.

    Raises ResultError.
    """
    written = _marked_text(result)
    if written is None:
        return
    try:
        _check_size(written)
        _check_yaml(written)
    except LimitExceeded as error:
        raise ResultError(f"the agent's request for help is refused: {error.message}", error.code) from None
    except (yaml.YAMLError, ValueError):
        return  # handed on as text


def requested_input(result: Json) -> InputRequest | None:
    """The request in a step's result, if there is one. One that is no good YAML is handed on as text: nobody is to
    lose what an agent has to say over a colon.
    """
    written = _marked_text(result)
    if written is None:
        return None
    try:
        _check_size(written)
        _check_yaml(written)
        # Its loader makes texts of all scalars: no types to stumble over.
        data = yaml.load(written, Loader=yaml.BaseLoader)
        return InputRequest(str(data.get("what_i_tried", "")), str(data["what_i_need"]), _inputs(data.get("inputs")))
    except (LimitExceeded, yaml.YAMLError, LookupError, AttributeError, TypeError, ValueError, RecursionError):
        return InputRequest("", written[: limits.REQUEST_FOR_HELP.most], _FREE)


def unmarked_request(result: Json) -> str:
    """What an agent says in the field for its requests without the marks of one: a person should read it."""
    text = result.get(FIELD) if isinstance(result, dict) else None
    plea = text.strip() if isinstance(text, str) and not _MARKED.search(text) else ""
    most = limits.REQUEST_FOR_HELP.most
    return plea if len(plea) <= most else f"{plea[:most]}... (cut: {limits.REQUEST_FOR_HELP.exceeded()})"


def _marked_text(result: Json) -> str | None:
    text = result.get(FIELD) if isinstance(result, dict) else None
    marked = _MARKED.search(text) if isinstance(text, str) else None
    return marked[1].strip() if marked else None


def _check_size(written: str) -> None:
    if len(written) > limits.REQUEST_FOR_HELP.most:
        raise LimitExceeded(limits.REQUEST_FOR_HELP)


def _check_yaml(written: str) -> None:
    """Look at the YAML before anything is made of it. Raises LimitExceeded, YAMLError."""
    depth = 0
    for event in yaml.parse(written, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.AliasEvent):
            raise LimitExceeded(limits.REQUEST_ALIASES)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > limits.REQUEST_DEPTH.most:
            raise LimitExceeded(limits.REQUEST_DEPTH)


def _inputs(given: object) -> Mapping[str, str]:
    if not given:
        return _FREE
    if not isinstance(given, list) or len(given) > limits.REQUEST_INPUTS.most:
        raise ValueError("`inputs` is to be a list")
    inputs = {str(one["key"]): str(one.get("label") or one["key"]) for one in given}
    if not all(_KEY.fullmatch(key) for key in inputs):
        raise ValueError("a key is to be a plain word")
    return inputs
