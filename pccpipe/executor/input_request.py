"""Read an agent's request for input from its result.

Control centres instruct their agents to put YAML between two marks into the result's `escalation`:

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
"""The input of a request without readable inputs."""


class InputState(Enum):
    """Whether a step, or one inside of it, asked a person for input."""

    NONE = auto()
    WANTED = auto()
    """No person has answered yet, or no model: the run waits."""
    GIVEN = auto()
    """The agent gets another turn, with the answers."""


class InputRequest(Struct, frozen=True):
    """A request as the record has it: what the agent tried, and what it needs."""

    tried: str
    needed: str
    inputs: Mapping[str, str]
    """Labels by key; at least one."""


def check_request(result: Json) -> None:
    """Check the size of a request and of the data that its YAML can become. Raises ResultError."""
    written = _marked_text(result)
    if written is None:
        return
    try:
        _check_size(written)
        _check_yaml(written)
    except LimitExceeded as error:
        raise ResultError(f"the agent's request for input is refused: {error.message}", error.code) from None
    except (yaml.YAMLError, ValueError):
        return  # `requested_input` returns it as text


def requested_input(result: Json) -> InputRequest | None:
    """Return the request in a step's result; None if it has none.

    The text of invalid YAML becomes the request: a wrong colon must not lose it.
    """
    written = _marked_text(result)
    if written is None:
        return None
    try:
        _check_size(written)
        _check_yaml(written)
        # This loader makes text of all scalars, so no value has an unexpected type.
        data = yaml.load(written, Loader=yaml.BaseLoader)
        return InputRequest(str(data.get("what_i_tried", "")), str(data["what_i_need"]), _inputs(data.get("inputs")))
    except (LimitExceeded, yaml.YAMLError, LookupError, AttributeError, TypeError, ValueError, RecursionError):
        return InputRequest("", written[: limits.INPUT_REQUEST.most], _FREE)


def unmarked_request(result: Json) -> str:
    """Return text in the field of requests that has no marks, so that a person can read it; empty if there is none."""
    text = result.get(FIELD) if isinstance(result, dict) else None
    request = text.strip() if isinstance(text, str) and not _MARKED.search(text) else ""
    most = limits.INPUT_REQUEST.most
    return request if len(request) <= most else f"{request[:most]}... (cut: {limits.INPUT_REQUEST.exceeded()})"


def _marked_text(result: Json) -> str | None:
    text = result.get(FIELD) if isinstance(result, dict) else None
    marked = _MARKED.search(text) if isinstance(text, str) else None
    return marked[1].strip() if marked else None


def _check_size(written: str) -> None:
    if len(written) > limits.INPUT_REQUEST.most:
        raise LimitExceeded(limits.INPUT_REQUEST)


def _check_yaml(written: str) -> None:
    """Check the YAML before any object is made of it. Raises LimitExceeded, YAMLError."""
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
        raise ValueError("`inputs` must be a list")
    inputs = {str(one["key"]): str(one.get("label") or one["key"]) for one in given}
    if not all(_KEY.fullmatch(key) for key in inputs):
        raise ValueError("a key must be a plain word")
    return inputs
