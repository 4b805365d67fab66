"""Reads a request to a model's API and writes it again, so that nothing goes up that was not read.

An agent wrote it, so its size, depth and number of values have limits. Fields that make the provider fetch or store
something, or that cost extra, pass by name only (`hosted_tools:`, `models:`, `service_tiers:`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from msgspec import Struct, field
from msgspec.json import Decoder, Encoder

from pccpipe import limits
from pccpipe.apart import apart
from pccpipe.errors import LimitExceeded, PccpipeError
from pccpipe.json_reader import NotJson, read_json
from pccpipe.secrets.proxy.shape import ApiShape
from pccpipe.secrets.proxy.usage import BYTES_A_TOKEN
from pccpipe.values import Json

IMAGE = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII)
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
    _check(document, shape, task)
    removed = shape.take_hosted_tools(document, lambda name: _names(task.rules.hosted_tools, name))
    output, choices = shape.take_limit(document)
    shape.settle(document, may_store="store" in task.rules.hosted_tools)
    config = shape.take_config(document)
    written = _written(document)
    images, image_bytes = _images(document)
    text = len(written) - image_bytes
    extra = images * IMAGE_TOKENS
    likely = text // BYTES_A_TOKEN + extra // 4
    found = _Found(text + extra, likely, output, choices, config, list(map(_short, removed)))
    return Encoder().encode(found) + b"\n" + written


def _written(document: dict[str, Json]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _check(document: dict[str, Json], shape: ApiShape, task: _Task) -> None:
    allowed = task.rules.hosted_tools
    if document.get("background"):
        words = "pccpipe cannot count the tokens of an answer in the background"
        raise ValueError(f"pccpipe_uncountable {words}")
    for key, value in document.items():
        if key not in shape.fields and value is not None and not _names(allowed, key):
            raise _not_allowed(f"the field `{key}`", key)
    model = document.get("model", task.path.rpartition("/")[2].partition(":")[0])
    if task.rules.models and model not in task.rules.models:
        words = f"the model {_short(model)} is not allowed; these are: {', '.join(task.rules.models)}"
        raise ValueError(f"pccpipe_not_allowed {words}; fix: the secret's `models:`")
    for key in ("service_tier", "serviceTier"):
        tier = document.get(key)
        if tier is not None and str(tier) not in FREE_TIERS and tier not in task.rules.service_tiers:
            words = f"the service tier {_short(tier)} is not allowed; fix: the secret's `service_tiers:`"
            raise ValueError(f"pccpipe_not_allowed {words}")
    for key in shape.contents:
        for name in _fetched(document.get(key)):
            if not _names(allowed, name):
                raise _not_allowed(f"`{_short(name)}`, for which the provider fetches something", name)


def _not_allowed(what: str, name: object) -> ValueError:
    return ValueError(
        f"pccpipe_not_allowed pccpipe does not allow {what}; fix: `hosted_tools: [{_short(name)}]` at the secret"
    )


def _names(allowed: Sequence[str], name: str) -> bool:
    """Say whether a name is allowed; `web_search` allows `web_search_preview` and `web_search_20250305` too."""
    return any(name == one or name.startswith(f"{one}_") for one in allowed)


_OWN_IDS = frozenset({"call_id", "tool_use_id", "tool_call_id", "approval_request_id"})
_LINK = re.compile(r"(?:url|Url|URL|uri|Uri|URI|Id|ID|_id)$")
_CITATIONS = frozenset({"url_citation", "file_citation", "container_file_citation", "web_search_result_location"})
"""Sources of earlier text; the provider does not fetch them."""
_STORED = frozenset({"item_reference"})
_ARGUMENTS = {
    "tool_use": "input",
    "server_tool_use": "input",
    "local_shell_call": "action",
    "shell_call": "action",
    "web_search_call": "action",
}
"""The arguments of the agent's own tools, which may have any keys."""


def _fetched(value: Json) -> Iterator[str]:
    """Yield the keys of a conversation that make the provider fetch something: a URL, a stored file or answer."""
    left: list[Json] = [value]
    while left:
        match left.pop():
            case list() as items:
                left += items
            case dict() as part:
                kind = part.get("type")
                kind = kind if isinstance(kind, str) else ""
                if kind in _CITATIONS:
                    continue
                if kind.startswith("mcp_"):
                    yield "mcp"
                if kind in _STORED:
                    yield kind
                if "id" in part and not part.keys() & {"type", "role", "functionCall", "functionResponse"}:
                    yield "item_reference"
                for key, inner in part.items():
                    if key in {"functionCall", "functionResponse"} or key == _ARGUMENTS.get(kind):
                        continue
                    if key != "id" and key not in _OWN_IDS and _LINK.search(key) and _leads_away(inner):
                        yield key
                    else:
                        left.append(inner)
            case _:
                pass


def _leads_away(value: Json) -> bool:
    """Say whether a URL or id names something outside the request."""
    if isinstance(value, dict):
        value = value.get("url")
    return value is not None and value != "" and not (isinstance(value, str) and value.startswith("data:"))


def _images(document: Json) -> tuple[int, int]:
    """Count the pictures in a document, and their bytes. A text that only looks like a picture counts as text."""
    sizes: list[int] = []
    left: list[Json] = [document]
    while left:
        match left.pop():
            case list() as items:
                left += items
            case {"type": "image", "source": {"type": "base64", "data": str(data)}}:
                sizes.append(len(data))
            case dict() as part:
                kind = part.get("type")
                arguments = _ARGUMENTS.get(kind) if isinstance(kind, str) else None
                for key, inner in part.items():
                    picture = inner.get("url") if key == "image_url" and isinstance(inner, dict) else inner
                    if key == "image_url" and isinstance(picture, str) and IMAGE.match(picture):
                        sizes.append(len(picture))
                    elif key not in {arguments, "functionCall", "functionResponse"}:
                        left.append(inner)
            case _:
                pass
    return len(sizes), sum(sizes)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
