"""Play a model by a scenario, for tests: pccpipe's scripted server, with replies chosen by the prompt.

The reply depends on the request alone: reply number K goes to a request with K tool results
after its last user message. So any number of agents, and their retries, can share one server. A scenario:

    {"scenarios": [{"when": "REGEX on the last user message", "replies": [REPLY, ...]}, ...],
     "replies": [REPLY, ...],                        if none matches
     "side": REPLY}                                  for a request without tools, such as for a title

A reply is one of these, in each API (`pccpipe/scripted/` has their forms)

    {"shell": "echo hi > f"}            asks the agent to run a command
    {"patch": "*** Begin Patch ..."}    asks it to apply a patch
    {"write": {"path": "f", "text": "..."}}   asks it to write a file
    {"tool": "NAME", "arguments": {}}   calls any function tool
    {"result": {...}}                   the result, by the agent's own tool for it or as the final message
    {"text": "all done"}                the final message, which ends the turn
    {"empty": true}                     an answer without content

It may also have

    "say": "I look."                    a text before a call
    "delay_s": 2                        waits before it answers
    "trickle_s": 0.2                    waits between the pieces of a text
    "fail": {"status": 429, "times": 2, "body": {...}, "headers": {"retry-after": "1"}}
    "cut": {"times": 1}                 ends the connection in the middle of the stream
    "hang": true                        answers nothing until the client disconnects; "stall": after the first event
    "usage": {"input_tokens": 5, "output_tokens": 7, "cached_tokens": 0}
"""

from __future__ import annotations

import argparse
import json
import re
import threading
from pathlib import Path
from typing import Any

from pccpipe.scripted.dialect import Asked
from pccpipe.scripted.reply import (
    ALWAYS,
    Action,
    CallTool,
    CutStream,
    ErrorAnswer,
    Fault,
    GiveResult,
    Hang,
    ModelUsage,
    Patch,
    Reply,
    Say,
    Shell,
    WriteFile,
)
from pccpipe.scripted.server import ReceivedRequest, ScriptedServer

Json = dict[str, Any]
DEFAULT: Json = {"replies": [{"text": "ok"}]}


class ModelServer(ScriptedServer):
    """The model, in threads of this process. `url` is its base, without the /v1 that Codex needs after it.

    With a `key`, a request with another key gets 401. `requests` has all requests, oldest first.
    """

    def __init__(
        self, bind: str = "127.0.0.1", port: int = 0, key: str | None = None, scenario: Json | None = None
    ) -> None:
        self.requests: list[ReceivedRequest] = []
        super().__init__(lambda _, asked: self.choose(asked), bind=bind, port=port, key=key)
        self.log: Path | None = None
        self._scenario = scenario or DEFAULT

    def set(self, scenario: Json) -> None:
        """Play another scenario, starting with the next request."""
        self._scenario = scenario

    def choose(self, asked: Asked) -> Reply:
        """Return the scenario's reply for a request."""
        scenario = self._scenario
        if not asked.has_tools and "side" in scenario:
            return reply_of(scenario["side"])
        for candidate in scenario.get("scenarios", []):
            if re.search(candidate["when"], asked.prompt, re.DOTALL):
                scenario = candidate
                break
        replies = scenario.get("replies") or DEFAULT["replies"]
        return reply_of(replies[min(asked.done, len(replies) - 1)])

    def record(self, request: ReceivedRequest) -> None:
        """Remember a request."""
        self.requests.append(request)
        if self.log is not None:
            names = ("time", "method", "path", "headers", "body")
            with self.log.open("a") as log:
                log.write(json.dumps({name: getattr(request, name) for name in names}) + "\n")

    def __enter__(self) -> ModelServer:
        return self


def reply_of(reply: Json) -> Reply:
    """Read a reply of a scenario."""
    usage: Json = reply.get("usage", {})
    return Reply(
        _action_of(reply),
        reply.get("say", ""),
        ModelUsage(usage.get("input_tokens", 100), usage.get("cached_tokens", 0), usage.get("output_tokens", 20)),
        tuple(_faults_of(reply)),
        reply.get("delay_s", 0),
        reply.get("trickle_s", 0),
    )


def _action_of(reply: Json) -> Action | None:
    match reply:
        case {"shell": command}:
            return Shell(command)
        case {"patch": patch}:
            return Patch(patch)
        case {"write": {"path": path, "text": text}}:
            return WriteFile(path, text)
        case {"tool": name}:
            return CallTool(name, reply.get("arguments", {}))
        case {"result": value}:
            return GiveResult(value)
        case {"empty": True}:
            return None
        case _:
            return Say(reply.get("text", ""))


def _faults_of(reply: Json) -> list[Fault]:
    faults: list[Fault] = []
    if fail := reply.get("fail"):
        headers = {name: str(value) for name, value in fail.get("headers", {}).items()}
        faults.append(
            ErrorAnswer(fail.get("status", 500), fail.get("times", 1), headers=headers, body=fail.get("body"))
        )
    if cut := reply.get("cut"):
        faults.append(CutStream(cut.get("times", 1)))
    if reply.get("hang") or reply.get("stall"):
        faults.append(Hang(begun="stall" in reply, times=ALWAYS))
    return faults


def main(argv: list[str]) -> None:
    """Run the server from the command line, until it is interrupted. Print its URL once it listens."""
    parser = argparse.ArgumentParser(prog="python -m tests.testbed model")
    parser.add_argument(
        "--bind", default="127.0.0.1", help="address; a VM reaches the host side of its link (see env NAME)"
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--key", help="answer 401 to any other key")
    parser.add_argument("--scenario", type=Path, help="JSON file")
    parser.add_argument("--log", type=Path, help="append each request to this file, one JSON object a line")
    options = parser.parse_args(argv)
    scenario = json.loads(options.scenario.read_text()) if options.scenario else None
    with ModelServer(options.bind, options.port, options.key, scenario) as model:
        model.log = options.log
        print(model.url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return
