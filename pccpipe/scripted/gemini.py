"""The Gemini API, as the Gemini CLI uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pccpipe.scripted.dialect import Asked, Document, compact, items, new_id, pieces_of, text_of
from pccpipe.scripted.reply import CallTool, ErrorAnswer, GiveResult, Patch, Reply, Say, Shell, WriteFile

_STATUSES = {
    **{400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"},
    **{429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"},
}
_ABOUT_MACHINE = "<session_context>"


class GeminiDialect:
    """Google's `POST /v1beta/models/M:generateContent`, and `:streamGenerateContent`."""

    key_header = "x-goog-api-key"

    def serves(self, path: str) -> bool:
        return path.endswith((":generateContent", ":streamGenerateContent"))

    def side_answer(self, method: str, path: str, size: int) -> Document | None:
        if method == "POST" and path.endswith(":countTokens"):
            return {"totalTokens": size // 4}
        return None

    def read(self, path: str, body: Document) -> Asked:
        prompt, done = "", 0
        for content in items(body.get("contents")):
            if content.get("role", "user") == "model":
                continue
            parts = items(content.get("parts"))
            results = sum("functionResponse" in part for part in parts)
            done += results
            # The CLI begins with a text about the machine.
            text = text_of([part for part in parts if not str(part.get("text")).lstrip().startswith(_ABOUT_MACHINE)])
            if not results and text.strip():
                prompt, done = text, 0
        has_tools = any(tool.get("functionDeclarations") for tool in items(body.get("tools")))
        model, _, call = path.rpartition("/")[2].partition(":")
        return Asked(model, prompt, done, has_tools, call.startswith("stream"))

    def answer(self, reply: Reply, body: Document, asked: Asked) -> Document:  # noqa: ARG002 - as the seam says
        parts: list[Document] = [{"text": reply.say}] if reply.say else []
        parts += [_part(reply)] if reply.action is not None else []
        usage = reply.usage
        return {
            "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {
                **{"promptTokenCount": usage.input, "cachedContentTokenCount": usage.cached},
                **{"candidatesTokenCount": usage.output, "totalTokenCount": usage.input + usage.output},
            },
            **{"modelVersion": asked.model, "responseId": new_id("resp")},
        }

    def events(self, answer: Document, path: str) -> Iterator[tuple[str, Document]]:  # noqa: ARG002 - as the seam says
        (candidate,) = answer["candidates"]
        for part in candidate["content"]["parts"]:
            for piece in [{"text": text} for text in pieces_of(part["text"])] if "text" in part else [part]:
                yield "", _chunk(answer, [piece])
        yield "", {**_chunk(answer, []), **{"candidates": [{**candidate, "content": {"role": "model", "parts": []}}]}}

    def error(self, fault: ErrorAnswer) -> Document:
        status, words = fault.status, _STATUSES.get(fault.status, "UNKNOWN")
        return {"error": {"code": status, "message": fault.message, "status": words}}


def _chunk(answer: Document, parts: list[Document]) -> Document:
    return {**answer, "candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}]}


def _part(reply: Reply) -> Document:
    match reply.action:
        case Shell(command):
            return _call("run_shell_command", command=command, description="run a command")
        case WriteFile(path, text):
            return _call("write_file", file_path=path, content=text)
        case Patch(text):
            return _call("apply_patch", patch=text)
        case CallTool(name, arguments):
            return _call(name, **arguments)
        case GiveResult(value):
            return {"text": compact(value)}
        case Say(text):
            return {"text": text}
        case None:
            raise AssertionError("an answer without content has no part")


def _call(name: str, **arguments: Any) -> Document:
    return {"functionCall": {"name": name, "args": arguments, "id": new_id("call")}}
