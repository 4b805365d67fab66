"""Play the OpenAI Responses API by a script, well enough for the real Codex CLI to work and to finish.

The reply depends on the request alone: reply number K goes to a request with K tool outputs
after its last user message. So any number of agents, and their retries, can share one server. A scenario:

    {"scenarios": [{"when": "REGEX on the last user message", "replies": [REPLY, ...]}, ...],
     "replies": [REPLY, ...]}                        if none matches

A reply is one of these (see `model_items`)

    {"shell": "echo hi > f"}            asks the agent to run a command
    {"patch": "*** Begin Patch ..."}    asks it to apply a patch
    {"tool": "NAME", "arguments": {}}   calls any function tool
    {"text": "all done"}                the final message, which ends the turn

It may also have

    "delay_s": 2                        waits before it answers
    "trickle_s": 0.2                    waits between the pieces of a text
    "fail": {"status": 429, "times": 2, "body": {...}, "headers": {"retry-after": "1"}}
    "cut": {"times": 1}                 ends the connection in the middle of the stream
    "hang": true                        answers nothing until the client disconnects
    "usage": {"input_tokens": 5, ...}
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.testbed.model_items import Json, item_for, poll_for, text_of

DEFAULT: Json = {"replies": [{"text": "ok"}]}
USAGE: Json = {
    **{"input_tokens": 100, "input_tokens_details": {"cached_tokens": 0}},
    **{"output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 120},
}


@dataclass(frozen=True)
class Request:
    """A request, and the reply that it got (None if the scenario had none)."""

    t: float
    method: str
    path: str
    authorization: str | None
    headers: dict[str, str]
    body: Json | None
    reply: Json | None


class ModelServer:
    """The model, in threads of this process. `url` is its base, without the /v1 that Codex needs after it.

    With a `key`, a request with another key gets 401. `requests` has all requests, oldest first.
    """

    def __init__(
        self, bind: str = "127.0.0.1", port: int = 0, key: str | None = None, scenario: Json | None = None
    ) -> None:
        self.key = key
        self.requests: list[Request] = []
        self.log: Path | None = None
        self._scenario = scenario or DEFAULT
        self._given: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._server = _Server((bind, port), self)
        self.url = f"http://{bind}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="model", daemon=True)
        self._thread.start()

    def set(self, scenario: Json) -> None:
        """Play another scenario, starting with the next request."""
        self._scenario = scenario

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def choose(self, body: Json) -> Json:
        """Return the scenario's reply for this request."""
        message, outputs, poll = _conversation(body)
        if poll is not None:
            return poll
        scenario = self._scenario
        for candidate in scenario.get("scenarios", []):
            if re.search(candidate["when"], message, re.DOTALL):
                scenario = candidate
                break
        replies = scenario.get("replies") or DEFAULT["replies"]
        reply: Json = replies[min(outputs, len(replies) - 1)]
        return reply

    def occurrence(self, body: Json, who: str | None) -> int:
        """Count how often this request of this agent came, for faults that happen a number of times."""
        message, outputs, _ = _conversation(body)
        with self._lock:
            identity = json.dumps([body.get("prompt_cache_key") or who, message, outputs])
            self._given[identity] += 1
            return self._given[identity]

    def record(self, request: Request) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(request)
            if self.log is not None:
                with self.log.open("a") as log:
                    log.write(json.dumps(asdict(request)) + "\n")

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _conversation(body: Json) -> tuple[str, int, Json | None]:
    """Return the last user message, the number of tool outputs after it, and a call about a running command."""
    items = body.get("input") or []
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    message, outputs, poll = "", 0, None
    for item in items:
        if item.get("role") == "user":
            message, outputs, poll = text_of(item), 0, None
        elif str(item.get("type", "")).endswith("_output"):
            poll = poll_for(item)
            outputs += poll is None
    return message, outputs, poll


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], model: ModelServer) -> None:
        super().__init__(address, _Handler)
        self.model = model


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Print nothing: `requests` has everything."""

    def do_GET(self) -> None:
        self._record(None, None)
        if self.headers.get("Upgrade"):
            # Codex tries a websocket first, and uses HTTP if the server refuses that.
            self._send(426, {"error": {"message": "no websocket"}})
        elif self._is_allowed():
            if self.path.split("?")[0].endswith("/models"):
                self._send(200, {"object": "list", "models": [], "data": []})
            else:
                self._send(404, {"error": {"message": f"not found: {self.path}"}})

    def do_POST(self) -> None:
        body: Json = json.loads(self._read() or b"{}")
        if not self.path.split("?")[0].endswith("/responses"):
            self._record(body, None)
            self._send(404, {"error": {"message": f"not found: {self.path}"}})
            return
        reply = self.server.model.choose(body)
        self._record(body, reply)
        if self._is_allowed():
            self._play(body, reply)

    def _play(self, body: Json, reply: Json) -> None:
        if reply.get("hang"):
            self.rfile.read(1)
            return
        time.sleep(reply.get("delay_s", 0))
        n = self.server.model.occurrence(body, self.headers.get("session_id"))
        fail: Json | None = reply.get("fail")
        cut: Json | None = reply.get("cut")
        if fail and n <= fail.get("times", 1):
            words = {"error": {"message": "scripted failure", "type": "server_error"}}
            self._send(fail.get("status", 500), fail.get("body", words), fail.get("headers"))
        else:
            self._stream(body, reply, cut=cut is not None and n <= cut.get("times", 1))

    def _stream(self, body: Json, reply: Json, *, cut: bool) -> None:
        item = item_for(reply, body)
        started = {
            **{"id": f"resp_{uuid.uuid4().hex[:16]}", "object": "response", "created_at": int(time.time())},
            **{"model": body.get("model"), "status": "in_progress", "output": []},
        }
        done = {**started, "status": "completed", "output": [item], "usage": {**USAGE, **reply.get("usage", {})}}
        if body.get("stream") is False:
            self._send(200, done)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self._event("response.created", response=started)
            if item["type"] == "message":
                self._trickle(item, reply.get("trickle_s", 0))
            if not cut:
                self._event("response.output_item.done", output_index=0, item=item)
                self._event("response.completed", response=done)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a killed agent; that is what some tests do

    def _trickle(self, item: Json, pause: float) -> None:
        text: str = item["content"][0]["text"]
        self._event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
        for start in range(0, len(text), 40):
            time.sleep(pause)
            piece = text[start : start + 40]
            self._event("response.output_text.delta", item_id=item["id"], output_index=0, content_index=0, delta=piece)

    def _event(self, kind: str, **data: Any) -> None:
        self.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode())
        self.wfile.flush()

    def _read(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _record(self, body: Json | None, reply: Json | None) -> None:
        authorization, headers = self.headers.get("Authorization"), dict(self.headers)
        self.server.model.record(Request(time.time(), self.command, self.path, authorization, headers, body, reply))

    def _is_allowed(self) -> bool:
        key = self.server.model.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        error = {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"}
        self._send(401, {"error": error})
        return False

    def _send(self, status: int, answer: Json, headers: dict[str, Any] | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)


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
