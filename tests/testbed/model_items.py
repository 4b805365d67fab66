"""Turn replies of a scenario into items of the Responses API, in the tool style that the request's agent offers."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

Json = dict[str, Any]

# Codex says so in a tool's output if the command still runs. A real model would then ask again, so this one does.
STILL_RUNNING = re.compile(r"running with (session|cell) ID:? (\w+)")

# Some models get a single tool, "exec", which takes JavaScript and has the other tools as functions.
JS_SHELL = """// @exec: {"yield_time_ms": 600000}
let r = await tools.exec_command({cmd: COMMAND, yield_time_ms: 30000});
let out = r.output || "";
while (r.session_id !== undefined && r.session_id !== null && (r.exit_code === undefined || r.exit_code === null)) {
  r = await tools.write_stdin({session_id: r.session_id, chars: "", yield_time_ms: 30000});
  out += r.output || "";
}
text(out + "\\nexit code " + r.exit_code);"""


def item_for(reply: Json, body: Json) -> Json:
    """Return the output item for a reply, given the request's tools."""
    tools = _tools(body)
    if "shell" in reply:
        return _shell(reply["shell"], tools)
    if "patch" in reply:
        return _patch(reply["patch"], tools)
    if "tool" in reply:
        return _function(reply["tool"], reply.get("arguments", {}))
    text = {"type": "output_text", "text": reply.get("text", ""), "annotations": []}
    return {"type": "message", "id": _id("msg"), "role": "assistant", "status": "completed", "content": [text]}


def poll_for(output: Json) -> Json | None:
    """Return the reply that asks about a command, if this tool output says that it still runs."""
    words = output.get("output")
    still = STILL_RUNNING.search(words if isinstance(words, str) else json.dumps(words))
    if still is None:
        return None
    kind, number = still.groups()
    if kind == "cell":
        return {"tool": "wait", "arguments": {"cell_id": number, "yield_time_ms": 30000}}
    return {"tool": "write_stdin", "arguments": {"session_id": int(number), "chars": "", "yield_time_ms": 30000}}


def text_of(item: Json) -> str:
    """Return the text of a message."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or [])


def _tools(body: Json) -> dict[str, Json]:
    """Return the tools by name: at the top, in namespaces, and in the input item that newer models get."""
    lists = [body.get("tools") or []]
    if isinstance(body.get("input"), list):
        lists += [item.get("tools") or [] for item in body["input"] if item.get("type") == "additional_tools"]
    return {
        tool.get("name") or tool["type"]: tool
        for entries in lists
        for entry in entries
        for tool in entry.get("tools") or [entry]
    }


def _shell(command: str, tools: dict[str, Json]) -> Json:
    if "shell_command" in tools:
        return _function("shell_command", {"command": command})
    if "exec_command" in tools:
        return _function("exec_command", {"cmd": command, "yield_time_ms": 30000})
    if "shell" in tools:
        return _function("shell", {"command": ["bash", "-lc", command]})
    return _custom("exec", JS_SHELL.replace("COMMAND", json.dumps(command)))


def _patch(patch: str, tools: dict[str, Json]) -> Json:
    tool = tools.get("apply_patch")
    if tool is not None and tool["type"] == "custom":
        return _custom("apply_patch", patch)
    if tool is not None:
        return _function("apply_patch", {"input": patch})
    if "exec" in tools:
        return _custom("exec", f"text(await tools.apply_patch({json.dumps(patch)}));")
    return _shell(f"apply_patch <<'END_OF_PATCH'\n{patch}\nEND_OF_PATCH", tools)


def _function(name: str, arguments: Json) -> Json:
    return {
        **{"type": "function_call", "id": _id("fc"), "call_id": _id("call")},
        **{"name": name, "arguments": json.dumps(arguments)},
    }


def _custom(name: str, text: str) -> Json:
    return {
        **{"type": "custom_tool_call", "id": _id("ctc"), "call_id": _id("call")},
        **{"name": name, "input": text, "status": "completed"},
    }


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:16]}"
