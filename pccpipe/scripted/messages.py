"""The Anthropic Messages API, as Claude Code and opencode use it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from pccpipe.scripted.dialect import Asked, Document, compact, items, new_id, pieces_of
from pccpipe.scripted.reply import CallTool, ErrorAnswer, GiveResult, Patch, Reply, Say, Shell, WriteFile

_KINDS = {
    **{400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"},
    **{413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"},
}
_RESULT_TOOL = "StructuredOutput"
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_READ_FIRST = "toolu_read_first"
"""The beginning of the id of a call that reads a file before it is written: Claude Code demands that."""
_FOLDER = re.compile(r"[Ww]orking directory: *(/[^\s\\\"<]*)")


class MessagesDialect:
    """Anthropic's `POST /v1/messages`."""

    key_header = "x-api-key"

    def serves(self, path: str) -> bool:
        return path.endswith("/messages")

    def side_answer(self, method: str, path: str, size: int) -> Document | None:
        if method == "POST" and path.endswith("/messages/count_tokens"):
            return {"input_tokens": size // 4}
        return None

    def read(self, path: str, body: Document) -> Asked:  # noqa: ARG002 - as the seam says
        prompt, done, poll = "", 0, None
        calls: dict[str, Mapping[str, Any]] = {}
        for message in items(body.get("messages")):
            blocks = _blocks(message)
            calls |= {str(block.get("id")): block for block in blocks if block.get("type") == "tool_use"}
            results = [block for block in blocks if block.get("type") == "tool_result"]
            if results:
                poll = next((read for block in results if (read := _read_first(block, calls))), None)
                done += poll is None and not str(results[0].get("tool_use_id")).startswith(_READ_FIRST)
            elif message.get("role") == "user" and (said := _said(message)):
                prompt, done, poll = said, 0, None
        return Asked(str(body.get("model")), prompt, done, bool(body.get("tools")), bool(body.get("stream")), poll)

    def answer(self, reply: Reply, body: Document, asked: Asked) -> Document:
        content: list[Document] = [{"type": "text", "text": reply.say}] if reply.say else []
        content += [_block(reply, body)] if reply.action is not None else []
        if asked.poll is not None:
            content[-1]["id"] = new_id(_READ_FIRST)
        calls = bool(content) and content[-1]["type"] == "tool_use"
        usage = reply.usage
        return {
            **{"id": new_id("msg"), "type": "message", "role": "assistant", "model": asked.model},
            **{"content": content, "stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None},
            "usage": {
                **{"input_tokens": usage.input - usage.cached, "cache_creation_input_tokens": 0},
                **{"cache_read_input_tokens": usage.cached, "output_tokens": usage.output},
            },
        }

    def events(self, answer: Document, path: str) -> Iterator[tuple[str, Document]]:  # noqa: ARG002 - as the seam says
        usage = answer["usage"]
        begun = {**answer, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        yield _event("message_start", message=begun)
        yield _event("ping")
        for index, block in enumerate(answer["content"]):
            is_call = block["type"] == "tool_use"
            empty = {**block, "input": {}} if is_call else {**block, "text": ""}
            yield _event("content_block_start", index=index, content_block=empty)
            for piece in pieces_of(compact(block["input"]) if is_call else block["text"]):
                delta = {"type": "text_delta", "text": piece}
                if is_call:
                    delta = {"type": "input_json_delta", "partial_json": piece}
                yield _event("content_block_delta", index=index, delta=delta)
            yield _event("content_block_stop", index=index)
        ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
        yield _event("message_delta", delta=ended, usage=usage)
        yield _event("message_stop")

    def error(self, fault: ErrorAnswer) -> Document:
        kind = _KINDS.get(fault.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": fault.message}, "request_id": "req_scripted"}


def _event(kind: str, **data: Any) -> tuple[str, Document]:
    return kind, {"type": kind, **data}


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else items(content)


def _said(message: Mapping[str, Any]) -> str:
    """Return the text of a person, without the reminders that a client puts into it."""
    text = "\n".join(str(block.get("text", "")) for block in _blocks(message) if block.get("type") == "text")
    return _REMINDER.sub("", text).strip()


def _read_first(result: Mapping[str, Any], calls: Mapping[str, Mapping[str, Any]]) -> CallTool | None:
    """Return the call that reads a file, if the client refused to write it unread; a real model would make it."""
    given = calls.get(str(result.get("tool_use_id")), {}).get("input")
    if "has not been read yet" in str(result.get("content")) and isinstance(given, dict) and "file_path" in given:
        return CallTool("Read", {"file_path": given["file_path"]})
    return None


def _block(reply: Reply, body: Document) -> Document:
    tools = {str(tool.get("name")): tool for tool in items(body.get("tools"))}
    match reply.action:
        case Shell(command):
            return _call(tools, ("Bash", "bash"), command=command, description="run a command")
        case WriteFile(path, text):
            whole = str(PurePosixPath(_folder(body)) / path)
            return _call(tools, ("Write", "write"), file_path=whole, content=text)
        case Patch(text):
            return _call(tools, ("apply_patch",), patchText=text)
        case CallTool(name, arguments):
            return {**_call(tools, (name,)), "input": dict(arguments)}
        case GiveResult(value) if _RESULT_TOOL in tools:
            return {**_call(tools, (_RESULT_TOOL,)), "input": value}
        case GiveResult(value):
            return {"type": "text", "text": compact(value)}
        case Say(text):
            return {"type": "text", "text": text}
        case None:
            raise AssertionError("an answer without content has no block")


def _call(tools: Mapping[str, Mapping[str, Any]], names: tuple[str, ...], **arguments: str) -> Document:
    """Return a call of the first of these tools that the client has, with its own spelling of the arguments."""
    name = next((name for name in names if name in tools), names[0])
    schema = tools.get(name, {}).get("input_schema")
    known = schema.get("properties") if isinstance(schema, dict) else None
    spelt = {_spelling(key, known if isinstance(known, dict) else {}): value for key, value in arguments.items()}
    return {"type": "tool_use", "id": new_id("toolu"), "name": name, "input": spelt}


def _spelling(key: str, known: Mapping[str, object]) -> str:
    """Return `file_path` or `filePath`, as the client's schema has it."""
    camel = re.sub("_(.)", lambda letter: letter[1].upper(), key)
    return camel if key not in known and camel in known else key


def _folder(body: Document) -> str:
    """Return the agent's working folder, which its requests name."""
    found = _FOLDER.search(json.dumps(body.get("system")) + json.dumps(body.get("messages")))
    return found[1] if found else "/workspace"
