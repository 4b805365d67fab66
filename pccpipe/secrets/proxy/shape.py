"""Describes the requests of models' APIs: OpenAI's Responses and Chat Completions, Anthropic's Messages, Gemini's.

The fields are those of the providers' references, without those that make the provider store or fetch something:
https://platform.openai.com/docs/api-reference, https://docs.anthropic.com/en/api/messages,
https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from pccpipe.values import Json

_OPENAI = frozenset(
    {"model", "stream", "stream_options", "temperature", "top_p", "tools", "tool_choice", "parallel_tool_calls", "user"}
    | {"metadata", "service_tier", "store", "prompt_cache_key", "safety_identifier", "top_logprobs", "verbosity"}
    | {"prompt_cache_retention", "prompt_cache_options"}
)
_GEMINI_TOOLS = {"functionDeclarations", "function_declarations"}


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
    own_tools: frozenset[str]
    """The types of tools that the agent runs itself."""
    own_tools_begin: tuple[str, ...] = ()

    @staticmethod
    def of(path: str) -> ApiShape | None:
        """Return the shape for a call's path, without its query; None for an unknown path."""
        return next((shape for shape in SHAPES if re.search(shape.path, path)), None)

    def takes_tokens(self, path: str) -> bool:
        """Say whether a call of this path costs tokens."""
        return not re.search(r"(/count_tokens|:countTokens|/input_tokens)$", path)

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
            for key in ("tools", "tool_choice", "parallel_tool_calls", "toolConfig", "tool_config"):
                document.pop(key, None)
        return removed

    def _own(self, tools: Json, allowed: Callable[[str], bool], removed: list[str]) -> list[Json]:
        if not isinstance(tools, list):
            raise ValueError("pccpipe_uncountable `tools` must be a list")
        kept: list[Json] = []
        for tool in tools:
            if not isinstance(tool, dict):
                raise ValueError("pccpipe_uncountable a tool must be an object")
            is_gemini = "generateContent" in self.path
            names = list(tool) if is_gemini else [str(tool.get("type", "custom"))]
            environment = tool.get("environment")
            if isinstance(environment, dict) and environment.get("type") not in {None, "local"}:
                names.append(str(environment.get("type")))
            hosted = [name for name in names if not self._is_own(name) and not allowed(name)]
            removed += hosted
            if is_gemini:
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
        return name in self.own_tools or name.startswith(self.own_tools_begin)


def _within(document: dict[str, Json], names: list[str] | tuple[str, ...]) -> dict[str, Json] | None:
    for name in names:
        inner = document.get(name)
        if not isinstance(inner, dict):
            return None
        document = inner
    return document


SHAPES = (
    ApiShape(
        r"/responses(/input_tokens)?$",
        (("max_output_tokens",),),
        _OPENAI
        | {"input", "instructions", "max_output_tokens", "include", "reasoning", "text", "truncation", "max_tool_calls"}
        | {"client_metadata", "context_management", "background"},
        ("input", "instructions"),
        frozenset({"function", "custom", "local_shell", "shell", "apply_patch", "namespace", "computer"})
        | {"computer_use_preview"},
    ),
    ApiShape(
        r"/chat/completions$",
        (("max_completion_tokens",), ("max_tokens",)),
        _OPENAI
        | {"messages", "max_completion_tokens", "max_tokens", "n", "stop", "seed", "logprobs", "logit_bias"}
        | {"frequency_penalty", "presence_penalty", "response_format", "reasoning_effort", "modalities", "audio"}
        | {"prediction", "functions", "function_call", "best_of"},
        ("messages",),
        frozenset({"function", "custom"}),
    ),
    ApiShape(
        r"/messages(/count_tokens)?$",
        (("max_tokens",),),
        frozenset(
            {
                "model",
                "messages",
                "system",
                "max_tokens",
                "stream",
                "temperature",
                "top_p",
                "top_k",
                "tools",
                "metadata",
            }
            | {"tool_choice", "stop_sequences", "thinking", "service_tier", "context_management", "output_config"}
            | {"output_format", "cache_control"}
        ),
        ("messages", "system"),
        frozenset({"custom"}),
        ("bash_", "text_editor_", "computer_", "memory_"),
    ),
    ApiShape(
        r":(generateContent|streamGenerateContent|countTokens)$",
        (("generationConfig", "maxOutputTokens"),),
        frozenset(
            {"contents", "systemInstruction", "system_instruction", "tools", "toolConfig", "tool_config", "model"}
            | {"generationConfig", "safetySettings", "labels", "serviceTier"}
        ),
        ("contents", "systemInstruction", "system_instruction"),
        frozenset(_GEMINI_TOOLS),
    ),
)
