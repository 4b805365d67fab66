"""Reads a request to a model's API and writes it again, so that nothing goes up that was not read.

An agent wrote it, so its size, depth and number of values have limits. Fields that make the provider fetch or store
something, or that cost extra, pass by name only (`hosted_tools:`, `models:`, `service_tiers:`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from msgspec import Struct, field
from msgspec.json import Decoder, Encoder

from pccpipe import limits
from pccpipe.apart import apart
from pccpipe.errors import LimitExceeded, PccpipeError
from pccpipe.json_reader import NotJson, read_json
from pccpipe.secrets.proxy.contents import fetched, pictures
from pccpipe.secrets.proxy.shape import ApiShape
from pccpipe.secrets.proxy.usage import BYTES_A_TOKEN
from pccpipe.values import Json

IMAGE_TOKENS = 10_000
"""More than any provider counts for one picture; the size of its file does not matter."""
FREE_TIERS = frozenset({"auto", "default", "flex", "standard", "standard_only"})
"""Service tiers that cost no more than the default one."""


class RefusedRequestError(PccpipeError):
    """The request asks for something that is not allowed.

    Args:
        code: for the client's program.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Rules(Struct, frozen=True):
    """The features that a secret allows beyond plain calls of a model."""

    hosted_tools: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    """Empty: any."""
    service_tiers: tuple[str, ...] = ()


class Request(Struct, frozen=True):
    """A request that was read and checked."""

    pieces: Sequence[bytes]
    """The document without its limit on the answer's tokens."""
    most_input: int = 0
    """The most tokens of its text: one for each byte."""
    likely_input: int = 0
    """The likely tokens of its text."""
    output: int | None = None
    """The agent's limit of the answer's tokens; None if it named none."""
    choices: int = 1
    config: dict[str, Json] = field(default_factory=dict)
    """The fields beside the limit, if they are not the document itself."""
    shape: ApiShape | None = None
    """None for a call of an unknown form."""
    takes_tokens: bool = True
    removed_tools: Sequence[str] = ()
    """The tools that were removed because the provider would run them."""
    model: str = ""
    """The model that it asks for; empty if unknown."""
    shortest: int = 1
    """The lowest limit of the answer's tokens that the API takes with it."""

    def body(self, output: int | None) -> list[bytes]:
        """Return the request's bytes, with a limit for the answer's tokens; None leaves the agent's own."""
        if self.shape is None:
            return list(self.pieces)
        head = self.shape.head(self.output if output is None else output, self.config)
        first = self.pieces[0]
        if not head:
            return list(self.pieces)
        separator = b"" if first == b"{}" else b","
        return [_written(head)[:-1] + separator, first[1:], *self.pieces[1:]]


class _Found(Struct, frozen=True):
    """The findings of the process that read the request, which it writes before the document."""

    most_input: int
    likely_input: int
    output: int | None
    choices: int
    config: dict[str, Json] = field(default_factory=dict)
    removed_tools: list[str] = field(default_factory=list)
    model: str = ""
    shortest: int = 1


class _Task(Struct, frozen=True):
    path: str
    rules: Rules = field(default_factory=Rules)


def read_request(path: str, pieces: Sequence[bytes], rules: Rules) -> Request:
    """Read and check the body of a POST. Raises RefusedRequestError."""
    shape = ApiShape.of(path)
    size = sum(map(len, pieces))
    if size > limits.REQUEST.most:
        raise RefusedRequestError("pccpipe_too_large", limits.REQUEST.exceeded())
    task = Encoder().encode(_Task(path, rules)) + b"\n"
    try:
        if size <= limits.REQUEST_HERE.most:
            made = [check_apart(task + b"".join(pieces))]
        else:
            made = apart(check_apart, [task, *pieces], "a request to the model's API")
    except ValueError as error:
        code, _, message = str(error).partition(" ")
        raise RefusedRequestError(code, message) from None
    except LimitExceeded as error:
        raise RefusedRequestError("pccpipe_too_large", error.message) from None
    head, _, rest = made[0].partition(b"\n")
    found = Decoder(_Found).decode(head)
    takes_tokens = shape is None or shape.takes_tokens(path)
    return Request(
        (rest, *made[1:]),
        found.most_input,
        found.likely_input,
        found.output,
        found.choices,
        found.config,
        shape,
        takes_tokens,
        found.removed_tools,
        found.model,
        found.shortest,
    )


def check_apart(data: bytes) -> bytes:
    """Do the work of `read_request` in another process: `data` is a line with the task, and the body.

    Raises ValueError with the refusal's code and words.
    """
    line, _, body = data.partition(b"\n")
    task = Decoder(_Task).decode(line)
    try:
        document = read_json(body, "the request", limits.REQUEST_VALUES, limits.REQUEST_NESTING)
    except NotJson as error:
        raise ValueError(f"pccpipe_uncountable {error}") from None
    except LimitExceeded as error:
        raise ValueError(f"pccpipe_too_large {error.message}") from None
    if not isinstance(document, dict):
        raise ValueError("pccpipe_uncountable the request is not a JSON object")
    shape = ApiShape.of(task.path)
    if shape is None:
        size = len(body)
        return Encoder().encode(_Found(size, size // BYTES_A_TOKEN, None, 1)) + b"\n" + _written(document)
    shape.name_keys(document)
    model = _check(document, shape, task)
    removed = shape.take_hosted_tools(document, lambda name: _names(task.rules.hosted_tools, name))
    output, choices = shape.take_limit(document)
    shape.settle(document, may_store="store" in task.rules.hosted_tools)
    config = shape.take_config(document)
    written = _written(document)
    sizes = [size for key in shape.contents for size in pictures(document.get(key), shape.form)]
    text = len(written) - sum(sizes)
    extra = len(sizes) * IMAGE_TOKENS
    likely = text // BYTES_A_TOKEN + extra // 4
    found = _Found(
        text + extra, likely, output, choices, config, list(map(_short, removed)), model, shape.shortest(document)
    )
    return Encoder().encode(found) + b"\n" + written


def _written(document: dict[str, Json]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _check(document: dict[str, Json], shape: ApiShape, task: _Task) -> str:
    """Hold a document to the rules; return the model that it asks for. Raises ValueError."""
    allowed = task.rules.hosted_tools
    if document.get("background"):
        words = "pccpipe cannot count the tokens of an answer in the background"
        raise ValueError(f"pccpipe_uncountable {words}")
    for key, value in document.items():
        if key not in shape.fields and value is not None and not _names(allowed, key):
            raise _not_allowed(f"the field `{key}`", key)
    models = shape.models(document, task.path)
    for model in models if task.rules.models else ():
        if model not in task.rules.models:
            words = f"the model {_short(model)} is not allowed; these are: {', '.join(task.rules.models)}"
            raise ValueError(f"pccpipe_not_allowed {words}; fix: the secret's `models:`")
    for key in ("service_tier", "serviceTier"):
        tier = document.get(key)
        if tier is not None and str(tier) not in FREE_TIERS and tier not in task.rules.service_tiers:
            words = f"the service tier {_short(tier)} is not allowed; fix: the secret's `service_tiers:`"
            raise ValueError(f"pccpipe_not_allowed {words}")
    for key in shape.contents:
        for name in fetched(document.get(key), shape.form):
            if not _names(allowed, name):
                raise _not_allowed(f"`{_short(name)}`, for which the provider fetches something", name)
    return _short(models[0])


def _not_allowed(what: str, name: object) -> ValueError:
    return ValueError(
        f"pccpipe_not_allowed pccpipe does not allow {what}; fix: `hosted_tools: [{_short(name)}]` at the secret"
    )


def _names(allowed: Sequence[str], name: str) -> bool:
    """Say whether a name is allowed; `web_search` allows `web_search_preview` and `web_search_20250305` too."""
    return any(name == one or name.startswith(f"{one}_") for one in allowed)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
