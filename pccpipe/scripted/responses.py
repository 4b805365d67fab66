"""The OpenAI Responses API, as the Codex CLI uses it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pccpipe.scripted.dialect import Asked, Document, compact, items, new_id, pieces_of, text_of
from pccpipe.scripted.reply import CallTool, ErrorAnswer, GiveResult, Patch, Reply, Say, Shell, WriteFile
from pccpipe.values import Json

_STILL_RUNNING = re.compile(r"running with (session|cell) ID:? (\w+)")
"""Codex says so in a tool's output if the command still runs."""
_WAIT_MS = 30_000

_SHELL_IN_JS = """// @exec: {"yield_time_ms": 600000}
let r = await tools.exec_command({cmd: COMMAND, yield_time_ms: 30000});
let out = r.output || "";
while (r.session_id !== undefined && r.session_id !== null && (r.exit_code === undefined || r.exit_code === null)) {
  r = await tools.write_stdin({session_id: r.session_id, chars: "", yield_time_ms: 30000});
  out += r.output || "";
}
text(out + "\\nexit code " + r.exit_code);"""
"""Some models get a single tool, `exec`, which takes JavaScript and has the other tools as functions."""


class ResponsesDialect:
    """OpenAI's `POST /responses`."""

    key_header = "authorization"

    def serves(self, path: str) -> bool:
        return path.endswith("/responses")

    def side_answer(self, method: str, path: str, size: int) -> Document | None:  # noqa: ARG002 - as the seam says
        is_list = method == "GET" and path.endswith("/models")
        return {"object": "list", "models": [], "data": []} if is_list else None

    def read(self, path: str, body: Document) -> Asked:  # noqa: ARG002 - as the seam says
        given = body.get("input")
        prompt, done, poll = (given, 0, None) if isinstance(given, str) else ("", 0, None)
        for item in items(given):
            if item.get("role") == "user":
                prompt, done, poll = text_of(item.get("content")), 0, None
            elif str(item.get("type", "")).endswith("_output"):
                poll = _poll_for(item)
                done += poll is None
        is_stream = body.get("stream") is not False
        return Asked(str(body.get("model")), prompt, done, bool(_tools(body)), is_stream, poll)

    def answer(self, reply: Reply, body: Document, asked: Asked) -> Document:
        usage = reply.usage
        output = [_message(reply.say)] if reply.say else []
        output += [_item(reply, _tools(body))] if reply.action is not None else []
        return {
            **{"id": new_id("resp"), "object": "response", "created_at": int(time.time())},
            **{"model": asked.model, "status": "completed", "output": output},
            "usage": {
                **{"input_tokens": usage.input, "input_tokens_details": {"cached_tokens": usage.cached}},
                **{"output_tokens": usage.output, "output_tokens_details": {"reasoning_tokens": 0}},
                "total_tokens": usage.input + usage.output,
            },
        }

    def events(self, answer: Document, path: str) -> Iterator[tuple[str, Document]]:  # noqa: ARG002 - as the seam says
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        yield _event("response.created", response=begun)
        for index, item in enumerate(answer["output"]):
            if item["type"] == "message":
                started = {**item, "status": "in_progress", "content": []}
                yield _event("response.output_item.added", output_index=index, item=started)
                at = {"item_id": item["id"], "output_index": index, "content_index": 0}
                for piece in pieces_of(item["content"][0]["text"]):
                    yield _event("response.output_text.delta", delta=piece, **at)
            yield _event("response.output_item.done", output_index=index, item=item)
        yield _event("response.completed", response=answer)

    def error(self, fault: ErrorAnswer) -> Document:
        kinds = {401: "invalid_request_error", 429: "rate_limit_error", 400: "invalid_request_error"}
        codes = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
        kind = kinds.get(fault.status, "server_error")
        return {"error": {"message": fault.message, "type": kind, "code": codes.get(fault.status)}}


def _event(kind: str, **data: Any) -> tuple[str, Document]:
    return kind, {"type": kind, **data}


def _poll_for(output: Mapping[str, Any]) -> CallTool | None:
    words = output.get("output")
    still = _STILL_RUNNING.search(words if isinstance(words, str) else json.dumps(words))
    if still is None:
        return None
    kind, number = still.groups()
    if kind == "cell":
        return CallTool("wait", {"cell_id": number, "yield_time_ms": _WAIT_MS})
    return CallTool("write_stdin", {"session_id": int(number), "chars": "", "yield_time_ms": _WAIT_MS})


def _tools(body: Document) -> Mapping[str, Mapping[str, Any]]:
    """Return the tools by name: at the top, in namespaces, and in the input item that newer models get."""
    lists = [body.get("tools")]
    lists += [item.get("tools") for item in items(body.get("input")) if item.get("type") == "additional_tools"]
    return {
        str(tool.get("name") or tool.get("type")): tool
        for entries in lists
        for entry in items(entries)
        for tool in items(entry.get("tools")) or [entry]
    }


def _item(reply: Reply, tools: Mapping[str, Mapping[str, Any]]) -> Document:
    match reply.action:
        case Shell(command):
            return _shell(command, tools)
        case WriteFile(path, text):
            lines = "".join(f"+{line}\n" for line in text.removesuffix("\n").split("\n"))
            return _patch(f"*** Begin Patch\n*** Add File: {path}\n{lines}*** End Patch", tools)
        case Patch(text):
            return _patch(text, tools)
        case CallTool(name, arguments):
            return _function(name, arguments)
        case GiveResult(value):
            return _message(compact(value))
        case Say(text):
            return _message(text)
        case None:
            raise AssertionError("an answer without content has no item")


def _shell(command: str, tools: Mapping[str, Mapping[str, Any]]) -> Document:
    if "shell_command" in tools:
        return _function("shell_command", {"command": command})
    if "exec_command" in tools:
        return _function("exec_command", {"cmd": command, "yield_time_ms": _WAIT_MS})
    if "shell" in tools:
        return _function("shell", {"command": ["bash", "-lc", command]})
    return _custom("exec", _SHELL_IN_JS.replace("COMMAND", compact(command)))


def _patch(patch: str, tools: Mapping[str, Mapping[str, Any]]) -> Document:
    tool = tools.get("apply_patch")
    if tool is not None and tool.get("type") == "custom":
        return _custom("apply_patch", patch)
    if tool is not None:
        return _function("apply_patch", {"input": patch})
    if "exec" in tools:
        return _custom("exec", f"text(await tools.apply_patch({compact(patch)}));")
    return _shell(f"apply_patch <<'END_OF_PATCH'\n{patch}\nEND_OF_PATCH", tools)


def _message(text: str) -> Document:
    content = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": new_id("msg"), "role": "assistant", "status": "completed", "content": [content]}


def _function(name: str, arguments: Mapping[str, Json]) -> Document:
    call = {"type": "function_call", "id": new_id("fc"), "call_id": new_id("call")}
    return {**call, "name": name, "arguments": compact(dict(arguments))}


def _custom(name: str, text: str) -> Document:
    call = {"type": "custom_tool_call", "id": new_id("ctc"), "call_id": new_id("call")}
    return {**call, "name": name, "input": text, "status": "completed"}
