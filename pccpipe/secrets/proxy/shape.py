"""Describes the requests of models' APIs: OpenAI's Responses and Chat Completions, Anthropic's Messages, Gemini's.

The fields are those of the providers' references, without those that make the provider store or fetch something:
https://platform.openai.com/docs/api-reference, https://docs.anthropic.com/en/api/messages,
https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from pccpipe.secrets.proxy.contents import ContentForm
from pccpipe.values import Json

_OPENAI = frozenset(
    {"model", "stream", "stream_options", "temperature", "top_p", "tools", "tool_choice", "parallel_tool_calls", "user"}
    | {"metadata", "service_tier", "store", "prompt_cache_key", "safety_identifier", "top_logprobs", "verbosity"}
    | {"prompt_cache_retention", "prompt_cache_options"}
)
_TOOL_KEYS = {key: key for key in ("type", "tools", "environment")}
_CONFIG_KEYS = {"maxoutputtokens": "maxOutputTokens", "candidatecount": "candidateCount"}
"""The keys that pccpipe relies on, by their names without capitals: an API may read odd ones in the same way."""


class ApiShape(Struct, frozen=True):
    """The form of one API's requests."""

    path: str
    """A regular expression for the end of its path."""
    limits: tuple[tuple[str, ...], ...]
    """The paths of the limit of an answer's tokens; pccpipe writes the first one."""
    fields: frozenset[str]
    """The fields that a document may have without an entry in `hosted_tools:`."""
    contents: tuple[str, ...]
    """The fields that contain the conversation."""
    own_tools: str
    """A regular expression for the types of tools that the agent runs itself, or that leave nothing."""
    form: ContentForm
    default_tool: str = "untyped"
    """The type of a tool that names none."""
    is_gemini: bool = False
    longest: int = 128_000
    """The highest limit of an answer's tokens that the API takes from pccpipe."""

    @staticmethod
    def of(path: str) -> ApiShape | None:
        """Return the shape for a call's path, without its query; None for an unknown path."""
        return next((shape for shape in SHAPES if re.search(shape.path, path)), None)

    def takes_tokens(self, path: str) -> bool:
        """Say whether a call of this path costs tokens."""
        return not re.search(r"(/count_tokens|:countTokens|/input_tokens)$", path)

    def name_keys(self, document: dict[str, Json]) -> None:
        """Write the keys that Gemini takes with underscores too in its first way. Raises ValueError."""
        if not self.is_gemini:
            return
        _in_camel_case(document)
        config = document.get("generationConfig")
        if isinstance(config, dict):
            _in_camel_case(config)
            _refuse_odd_keys(config, _CONFIG_KEYS)
        tools = document.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict):
                _in_camel_case(tool)

    def models(self, document: dict[str, Json], path: str) -> list[Json]:
        """Return the models that a call asks for, first the one that answers."""
        if not self.is_gemini:
            return [document.get("model", "")]
        named = [path.rpartition("/")[2].rpartition(":")[0]]
        if "model" in document:
            named.append(str(document["model"]).removeprefix("models/"))
        return list(named)

    def shortest(self, document: dict[str, Json]) -> int:
        """Return the lowest limit of the answer's tokens that the API takes: it must exceed that of thinking."""
        thinking = document.get("thinking")
        budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
        return budget + 1 if isinstance(budget, int) and 0 < budget <= 10**9 else 1

    def take_limit(self, document: dict[str, Json]) -> tuple[int | None, int]:
        """Remove the limits of the answer's tokens from a document.

        Returns the lowest of them, or None, and the number of answers that it asks for. Raises ValueError.
        """
        found: list[int] = []
        for *outer, name in self.limits:
            holder = _within(document, outer)
            value = holder.pop(name, None) if holder is not None else None
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**9:
                raise ValueError(f"pccpipe_uncountable `{name}` must be a whole number from 1 on")
            found.append(value)
        config = _within(document, ("generationConfig",)) or {}
        choices = document.get("n") or document.get("best_of") or config.get("candidateCount") or 1
        if not isinstance(choices, int) or not 1 <= choices <= 128:
            raise ValueError("pccpipe_uncountable the number of answers must be a whole number from 1 to 128")
        return (min(found) if found else None), choices

    def head(self, output: int | None, config: dict[str, Json]) -> dict[str, Json]:
        """Return the fields to put before a document: the limit, with the field that `take_config` removed."""
        *outer, name = self.limits[0]
        limit: dict[str, Json] = {} if output is None else {name: output}
        if outer:
            inner = {**config, **limit}
            return {outer[0]: inner} if inner else {}
        return limit

    def take_config(self, document: dict[str, Json]) -> dict[str, Json]:
        """Remove from a document the field that contains the limit; empty if the limit is a field of the document."""
        *outer, _ = self.limits[0]
        config = document.pop(outer[0], None) if outer else None
        return config if isinstance(config, dict) else {}

    def settle(self, document: dict[str, Json], *, may_store: bool) -> None:
        """Set the fields of a document that pccpipe relies on."""
        if "/chat/completions" in self.path and document.get("stream"):
            # A streamed chat states its tokens only on request.
            options = document.get("stream_options")
            document["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        if "store" in self.fields and not may_store:
            document["store"] = False

    def take_hosted_tools(self, document: dict[str, Json], allowed: Callable[[str], bool]) -> list[str]:
        """Remove from a document the tools that the provider runs and nobody allowed. Returns their names.

        Agents add them by themselves (Codex its web search), and work without them. Raises ValueError.
        """
        removed: list[str] = []
        if document.get("tools") is None:
            return removed
        document["tools"] = kept = self._own(document["tools"], allowed, removed)
        if removed and not kept:
            for key in ("tools", "tool_choice", "parallel_tool_calls", "toolConfig"):
                document.pop(key, None)
        return removed

    def _own(self, tools: Json, allowed: Callable[[str], bool], removed: list[str]) -> list[Json]:
        if not isinstance(tools, list):
            raise ValueError("pccpipe_uncountable `tools` must be a list")
        kept: list[Json] = []
        for tool in tools:
            if not isinstance(tool, dict):
                raise ValueError("pccpipe_uncountable a tool must be an object")
            _refuse_odd_keys(tool, _TOOL_KEYS)
            names = list(tool) if self.is_gemini else [str(tool.get("type") or self.default_tool)]
            environment = tool.get("environment")
            where = environment.get("type", "local") if isinstance(environment, dict) else environment
            if where not in {None, "local"}:
                names.append(str(where))
            hosted = [name for name in names if not self._is_own(name) and not allowed(name)]
            removed += hosted
            if self.is_gemini:
                for name in hosted:
                    del tool[name]
            elif hosted:
                continue
            if tool.get("tools") is not None:
                tool["tools"] = self._own(tool["tools"], allowed, removed)
            if tool:
                kept.append(tool)
        return kept

    def _is_own(self, name: str) -> bool:
        return re.fullmatch(self.own_tools, name) is not None


def _within(document: dict[str, Json], names: list[str] | tuple[str, ...]) -> dict[str, Json] | None:
    for name in names:
        inner = document.get(name)
        if not isinstance(inner, dict):
            return None
        document = inner
    return document


def _in_camel_case(document: dict[str, Json]) -> None:
    for key in list(document):
        name = re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), key)
        if name != key:
            if name in document:
                raise ValueError(f"pccpipe_uncountable `{key[:80]}` and `{name[:80]}` are the same field")
            document[name] = document.pop(key)


def _refuse_odd_keys(document: dict[str, Json], known: dict[str, str]) -> None:
    for key in document:
        name = known.get(key.replace("_", "").lower(), key)
        if name != key:
            raise ValueError(f"pccpipe_uncountable the field `{key[:80]}` must be written `{name}`")


_ARGUMENTS = ("local_shell_call", "shell_call", "web_search_call")
_RESPONSES = ContentForm(
    dict.fromkeys(_ARGUMENTS, "action"),
    frozenset({"url_citation", "file_citation", "container_file_citation"}),
    has_references=True,
)
_CHAT = ContentForm({}, frozenset({"url_citation", "file_citation"}))
_MESSAGES = ContentForm(
    {"tool_use": "input", "server_tool_use": "input"},
    frozenset({"web_search_result_location", "web_search_result", "web_fetch_result"}),
)
_GENERATE = ContentForm(
    {
        **dict.fromkeys(("functionCall", "function_call"), "args"),
        **dict.fromkeys(("functionResponse", "function_response"), "response"),
    },
    has_types=False,
)

SHAPES = (
    ApiShape(
        r"/responses(/input_tokens)?$",
        (("max_output_tokens",),),
        _OPENAI
        | {"input", "instructions", "max_output_tokens", "include", "reasoning", "text", "truncation", "max_tool_calls"}
        | {"client_metadata", "context_management", "background"},
        ("input", "instructions"),
        "function|custom|local_shell|shell|apply_patch|namespace|computer|computer_use_preview",
        _RESPONSES,
    ),
    ApiShape(
        r"/chat/completions$",
        (("max_completion_tokens",), ("max_tokens",)),
        _OPENAI
        | {"messages", "max_completion_tokens", "max_tokens", "n", "stop", "seed", "logprobs", "logit_bias"}
        | {"frequency_penalty", "presence_penalty", "response_format", "reasoning_effort", "modalities", "audio"}
        | {"prediction", "functions", "function_call", "best_of"},
        ("messages",),
        "function|custom",
        _CHAT,
    ),
    ApiShape(
        r"/messages(/count_tokens)?$",
        (("max_tokens",),),
        frozenset(
            {"model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k", "tools"}
            | {"metadata", "tool_choice", "stop_sequences", "thinking", "service_tier", "context_management"}
            | {"output_config", "output_format", "cache_control"}
        ),
        ("messages", "system"),
        # A tool search looks through the tools of the request itself.
        r"custom|(bash|text_editor|computer|memory|tool_search_tool_(regex|bm25))(_\d{8})?",
        _MESSAGES,
        "custom",
    ),
    ApiShape(
        r":(generateContent|streamGenerateContent|countTokens)$",
        (("generationConfig", "maxOutputTokens"),),
        frozenset(
            {"contents", "systemInstruction", "tools", "toolConfig", "model", "generationConfig", "safetySettings"}
            | {"labels", "serviceTier"}
        ),
        ("contents", "systemInstruction"),
        "functionDeclarations",
        _GENERATE,
        is_gemini=True,
        longest=65_536,
    ),
)
