"""Says no to a request, in the form that the clients of each API understand: agents stop at a 400 at once."""

from __future__ import annotations

import json
import re

from pccpipe.model_api import ModelApi
from pccpipe.values import Json


class HttpRefusal(Exception):
    """An error that answers a request; with `fatal`, it ends the connection."""

    def __init__(self, status: int, code: str, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fatal = status, code, message, fatal

    def body(self, api: ModelApi) -> bytes:
        """Return the answer's body as an API writes its errors."""
        kind = _KINDS[api][self.code == "invalid_api_key" or self.status == 407]
        error: dict[str, Json]
        match api:
            case ModelApi.OPENAI:
                error = {"message": self.message, "type": kind, "param": None, "code": self.code}
            case ModelApi.ANTHROPIC:
                error = {"type": kind, "message": self.message, "code": self.code}
            case ModelApi.GEMINI:
                info: dict[str, Json] = {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": self.code,
                    "domain": "pccpipe",
                }
                error = {"code": self.status, "message": self.message, "status": kind, "details": [info]}
        whole: dict[str, Json] = {"type": "error"} if api is ModelApi.ANTHROPIC else {}
        return json.dumps({**whole, "error": error}).encode()


_KINDS = {
    ModelApi.OPENAI: ("invalid_request_error", "authentication_error"),
    ModelApi.ANTHROPIC: ("invalid_request_error", "authentication_error"),
    ModelApi.GEMINI: ("INVALID_ARGUMENT", "UNAUTHENTICATED"),
}
"""The kind of an error in each API, and that of an invalid token."""


def asked_api(target: str) -> ModelApi:
    """Guess from the path of a request which API its client speaks, for a request without a known token."""
    path = target.partition("?")[0]
    if re.search(r"/v1(alpha|beta)\d*/|:\w+[cC]ontent$", path):
        return ModelApi.GEMINI
    return ModelApi.ANTHROPIC if re.search(r"/messages(/count_tokens)?$", path) else ModelApi.OPENAI
