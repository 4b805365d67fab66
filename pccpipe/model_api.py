"""Names the APIs of models that the proxy of `via: proxy` knows, with the address and the calls of each."""

from __future__ import annotations

from enum import StrEnum


class ModelApi(StrEnum):
    OPENAI = "openai"
    """Responses and Chat Completions."""
    ANTHROPIC = "anthropic"
    """Messages."""
    GEMINI = "gemini"
    """generateContent."""

    @property
    def base(self) -> str:
        """The base URL of its provider."""
        return _BASES[self]

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that an agent needs, relative to the base; an account's key could do more."""
        return _CALLS[self]


_BASES = {
    ModelApi.OPENAI: "https://api.openai.com/v1",
    ModelApi.ANTHROPIC: "https://api.anthropic.com",
    ModelApi.GEMINI: "https://generativelanguage.googleapis.com",
}
_CALLS = {
    ModelApi.OPENAI: ("POST /responses", "POST /chat/completions", "GET /models", "GET /models/*"),
    ModelApi.ANTHROPIC: ("POST /v1/messages", "POST /v1/messages/count_tokens"),
    ModelApi.GEMINI: (
        *("POST /v1beta/models/*:generateContent", "POST /v1beta/models/*:streamGenerateContent"),
        "POST /v1beta/models/*:countTokens",
    ),
}
