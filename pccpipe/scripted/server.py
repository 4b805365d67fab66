"""The server of a scripted model: it speaks the three APIs, and asks its owner for each reply."""

from __future__ import annotations

import collections
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct

from pccpipe import limits
from pccpipe.scripted.dialect import Asked, Dialect, Document
from pccpipe.scripted.gemini import GeminiDialect
from pccpipe.scripted.messages import MessagesDialect
from pccpipe.scripted.reply import CutStream, ErrorAnswer, Hang, Reply
from pccpipe.scripted.responses import ResponsesDialect

DIALECTS: tuple[Dialect, ...] = (ResponsesDialect(), MessagesDialect(), GeminiDialect())
_SESSIONS = ("session_id", "session-id", "x-claude-code-session-id")


class ReceivedRequest(Struct, frozen=True):
    """A request, and the reply that it got; None for a request beside the model's calls."""

    time: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: Document | None
    asked: Asked | None = None
    reply: Reply | None = None

    @property
    def authorization(self) -> str | None:
        """The key in the way of OpenAI's API."""
        return next((value for name, value in self.headers.items() if name.lower() == "authorization"), None)


class ScriptedServer:
    """A model in threads of this process. Close it, or use it as a context manager.

    Attributes:
        url: its base. A path below it is part of the request that the owner sees, in front of the API's own.

    Args:
        choose: returns the reply for a request, by its path and its facts.
        key: the only accepted key; None accepts any.
    """

    def __init__(
        self, choose: Callable[[str, Asked], Reply], *, bind: str = "127.0.0.1", port: int = 0, key: str | None = None
    ) -> None:
        self.key = key
        self._choose = choose
        self._given: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._server = _Listener((bind, port), self)
        self.url = f"http://{bind}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="model", daemon=True)
        self._thread.start()

    def reply_for(self, path: str, asked: Asked) -> Reply:
        """Return the reply for a request."""
        return self._choose(path, asked) if asked.poll is None else Reply(asked.poll)

    def occurrence(self, path: str, session: str, asked: Asked) -> int:
        """Count how often this request came in an agent's session, for faults that happen a number of times."""
        with self._lock:
            identity = json.dumps([path, session, asked.prompt, asked.done])
            self._given[identity] += 1
            return self._given[identity]

    def record(self, request: ReceivedRequest) -> None:
        """Take note of a request; a subclass may keep it."""

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], model: ScriptedServer) -> None:
        super().__init__(address, _Exchange)
        self.model = model

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: the client disconnected, as a killed agent does."""


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Print nothing: `record` has everything."""

    def do_HEAD(self) -> None:
        self._record(None)
        self._send(200, {})

    def do_GET(self) -> None:
        self._record(None)
        if self.headers.get("Upgrade"):
            # Codex tries a websocket first, and uses HTTP if the server refuses that.
            self._send(426, {"error": {"message": "no websocket"}})
        elif self._has_key(DIALECTS[0]):
            self._answer_beside(0)

    def do_POST(self) -> None:
        data = self._read()
        path = self.path.partition("?")[0]
        dialect = next((each for each in DIALECTS if each.serves(path)), None)
        try:
            body = json.loads(data or b"{}")
        except ValueError:
            body = None
        if dialect is None or not isinstance(body, dict):
            self._record(body if isinstance(body, dict) else None)
            self._answer_beside(len(data))
            return
        asked = dialect.read(path, body)
        reply = self.server.model.reply_for(path, asked)
        self._record(body, asked, reply)
        if self._has_key(dialect):
            self._play(dialect, body, asked, reply)

    def _answer_beside(self, size: int) -> None:
        """Answer a request that calls no model."""
        path = self.path.partition("?")[0]
        answers = (dialect.side_answer(self.command, path, size) for dialect in DIALECTS)
        answer = next((each for each in answers if each is not None), None)
        words = {"error": {"message": f"the scripted model does not know {self.command} {path}"}}
        self._send(200 if answer is not None else 404, words if answer is None else answer)

    def _play(self, dialect: Dialect, body: Document, asked: Asked, reply: Reply) -> None:
        path = self.path.partition("?")[0]
        time.sleep(reply.delay)
        fault = reply.fault(self.server.model.occurrence(path, self._session(body), asked))
        answer = dialect.answer(reply, body, asked)
        match fault:
            case ErrorAnswer():
                body_of = fault.body if isinstance(fault.body, dict) else dialect.error(fault)
                self._send(fault.status, body_of, fault.headers)
            case Hang(begun=False):
                self._wait_for_client()
            case _ if asked.is_stream:
                self._stream(dialect, answer, fault, reply.trickle)
            case CutStream():
                self._send(200, answer, cut=True)
            case _:
                self._send(200, answer)

    def _stream(self, dialect: Dialect, answer: Document, fault: CutStream | Hang | None, trickle: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        events = list(dialect.events(answer, self.path))
        sent = max(1, len(events) // 2) if isinstance(fault, CutStream) else 1 if fault else len(events)
        for name, data in events[:sent]:
            if "delta" in name or not name:
                time.sleep(trickle)
            head = f"event: {name}\n" if name else ""
            self.wfile.write(f"{head}data: {json.dumps(data)}\n\n".encode())
            self.wfile.flush()
        if isinstance(fault, Hang):
            self._wait_for_client()

    def _wait_for_client(self) -> None:
        """Answer nothing until the client disconnects."""
        self.rfile.read(1)
        self.close_connection = True

    def _read(self) -> bytes:
        most = limits.REQUEST.most
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), most))
        body = b""
        while (size := int(self.rfile.readline(100).split(b";")[0], 16)) and len(body) + size <= most:
            body += self.rfile.read(size)
            self.rfile.readline(100)
        self.rfile.readline(100)
        return body

    def _session(self, body: Document) -> str:
        """Name the agent's session, as its client does; empty if it does not."""
        names = (body.get("prompt_cache_key"), *(self.headers.get(name) for name in _SESSIONS))
        return next((str(name) for name in names if name), "")

    def _record(self, body: Document | None, asked: Asked | None = None, reply: Reply | None = None) -> None:
        headers = dict(self.headers)
        request = ReceivedRequest(time.time(), self.command, self.path, headers, body, asked, reply)
        self.server.model.record(request)

    def _has_key(self, dialect: Dialect) -> bool:
        key = self.server.model.key
        if key is None or (self.headers.get(dialect.key_header) or "").removeprefix("Bearer ") == key:
            return True
        self._send(401, dialect.error(ErrorAnswer(401, message="Incorrect API key provided")))
        return False

    def _send(self, status: int, answer: Any, headers: Mapping[str, str] | None = None, *, cut: bool = False) -> None:
        content = b"" if self.command == "HEAD" else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut
