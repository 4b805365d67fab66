"""The proxy before each API: the key in its header, its paths, its errors, and the tokens of its answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pccpipe.model_api import ModelApi
from pccpipe.secrets.proxy.grant import Api, Grant
from pccpipe.secrets.proxy.meter import Meter, ModelUse
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.proxy.request import Rules
from tests.secrets.test_proxy import KEY, Client

MESSAGES: dict[str, object] = {"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": "hello"}]}
CONTENTS: dict[str, object] = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
GENERATE = "/v1beta/models/m:streamGenerateContent"
USAGE = {"input_tokens": 20, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 30, "output_tokens": 1}
ASKS: dict[ModelApi, tuple[str, dict[str, object]]] = {
    ModelApi.OPENAI: ("/v1/responses", {"model": "m", "input": "hello"}),
    ModelApi.ANTHROPIC: ("/v1/v1/messages?beta=true", MESSAGES),
    ModelApi.GEMINI: (f"/v1{GENERATE}?alt=sse", CONTENTS),
}


def events(*data: dict[str, object]) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in data)


ANTHROPIC = events(
    {"type": "message_start", "message": {"usage": USAGE}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi " * 200}},
    {"type": "message_delta", "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)
GEMINI = events(
    {"candidates": [1], "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 2}},
    {
        "candidates": [{"finishReason": "STOP"}],
        "usageMetadata": {
            **{"promptTokenCount": 100, "cachedContentTokenCount": 50, "candidatesTokenCount": 4},
            "thoughtsTokenCount": 5,
        },
    },
)
OPENAI = events(
    {
        "type": "response.completed",
        "response": {"usage": {"input_tokens": 100, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 50}}},
    }
)
STREAMS = {ModelApi.OPENAI: OPENAI, ModelApi.ANTHROPIC: ANTHROPIC, ModelApi.GEMINI: GEMINI}


class ScriptedApi(ThreadingHTTPServer):
    """An API that gives one answer to each call; with `cuts`, it breaks off after these bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.status, self.answer, self.cuts = 200, b"", 0
        self.form = "text/event-stream"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedApi

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass

    def do_POST(self) -> None:
        api = self.server
        api.paths.append(self.path)
        api.headers.append({name.lower(): value for name, value in self.headers.items()})
        api.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(api.status)
        self.send_header("Content-Type", api.form)
        self.send_header("Anthropic-Organization-Id", "ours")
        self.send_header("Content-Length", str(len(api.answer)))
        self.end_headers()
        self.wfile.write(api.answer[: api.cuts] if api.cuts else api.answer)
        self.close_connection = bool(api.cuts)


class ApiClient(Client):
    """A client of a proxy for one kind of API."""

    def __init__(self, base: str, kind: ModelApi, *, limit: int | None = None, rules: Rules | None = None) -> None:
        self.used: list[ModelUse] = []
        self.warnings: list[str] = []
        self.meter = Meter(limit, ModelUse(), self.used.append)
        self.api = Api.at("KEY", KEY, base, (), rules, kind)
        self.grant = Grant((self.api,), (), self.meter, self.warnings.append)
        self.proxy = Proxy()
        self.tokens = self.proxy.issue(self.grant)

    def send(self, method: str, path: str, headers: dict[str, str], body: object = None) -> http.client.HTTPResponse:
        connection = self.connection()
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection.getresponse()

    @property
    def token(self) -> str:
        return self.tokens["KEY"]


@pytest.fixture
def server() -> Iterator[ScriptedApi]:
    with ScriptedApi() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


Start = Callable[..., ApiClient]


@pytest.fixture
def start(server: ScriptedApi) -> Start:
    def client(kind: ModelApi, path: str = "", limit: int | None = None, **rules: tuple[str, ...]) -> ApiClient:
        server.answer = STREAMS[kind]
        base = f"{server.url}{path or ('/v1' if kind is ModelApi.OPENAI else '')}"
        return ApiClient(base, kind, limit=limit, rules=Rules(**rules))

    return client


@pytest.mark.parametrize("kind", ModelApi)
def test_the_key_goes_in_the_header_of_its_api_and_the_answer_is_counted(
    start: Start, server: ScriptedApi, kind: ModelApi
) -> None:
    client = start(kind)
    path, body = ASKS[kind]
    assert client.ask("POST", path, body)[0] == 200
    (headers,) = server.headers
    found = {name: value for name, value in headers.items() if KEY in value}
    expected = {
        ModelApi.OPENAI: {"authorization": f"Bearer {KEY}"},
        ModelApi.ANTHROPIC: {"x-api-key": KEY},
        ModelApi.GEMINI: {"x-goog-api-key": KEY},
    }
    assert found == expected[kind]
    assert client.token not in json.dumps(headers)
    tokens = client.used[-1].tokens
    assert (tokens.input, tokens.cached_input, tokens.output, tokens.estimated) == (100, 50, 9, 0)
    assert tokens.cache_write_input == (30 if kind is ModelApi.ANTHROPIC else 0)


@pytest.mark.parametrize("kind", ModelApi)
@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "key"])
def test_a_token_is_found_wherever_an_agent_puts_it_and_never_goes_on(
    start: Start, server: ScriptedApi, kind: ModelApi, name: str
) -> None:
    client = start(kind)
    path, body = ASKS[kind]
    headers = {name: f"Bearer {client.token}" if name == "Authorization" else client.token}
    if name == "key":
        path, headers = f"{path}{'&' if '?' in path else '?'}key={client.token}", {}
    assert client.send("POST", path, headers, body).status == 200
    assert client.token not in json.dumps(server.headers) + server.paths[0]


def test_a_token_in_two_headers_goes_on_in_none(start: Start, server: ScriptedApi) -> None:
    client = start(ModelApi.GEMINI)
    path, body = ASKS[ModelApi.GEMINI]
    for other in (client.token, "a key of the agent's own"):
        headers = {"Authorization": f"Bearer {client.token}", "X-Goog-Api-Key": other}
        assert client.send("POST", path, headers, body).status == 200
        headers = {"Authorization": f"Bearer {other}", "X-Goog-Api-Key": client.token}
        assert client.send("POST", path, headers, body).status == 200
    assert all(headers["x-goog-api-key"] == KEY and "authorization" not in headers for headers in server.headers)


def test_an_ended_token_beside_a_good_one_does_no_harm(start: Start) -> None:
    ended, client = start(ModelApi.GEMINI), start(ModelApi.GEMINI)
    ended.proxy.end(ended.grant)
    client.proxy = ended.proxy
    client.tokens = client.proxy.issue(client.grant)
    path, body = ASKS[ModelApi.GEMINI]
    headers = {"Authorization": f"Bearer {ended.token}", "X-Goog-Api-Key": client.token}
    assert client.send("POST", path, headers, body).status == 200
    assert client.send("POST", path, {"Authorization": headers["Authorization"]}, body).status == 400


@pytest.mark.parametrize(
    ("kind", "base", "asked", "reached"),
    [
        (ModelApi.ANTHROPIC, "", "/v1/messages?beta=true", "/v1/messages?beta=true"),
        (ModelApi.ANTHROPIC, "", "/v1/v1/messages", "/v1/messages"),
        (ModelApi.ANTHROPIC, "/v1", "/v1/v1/messages", "/v1/messages"),
        (ModelApi.ANTHROPIC, "/v1", "/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        (ModelApi.ANTHROPIC, "/gateway/", "/v1/v1/messages", "/gateway/v1/messages"),
        (ModelApi.GEMINI, "", f"/v1{GENERATE}?alt=sse", f"{GENERATE}?alt=sse"),
        (ModelApi.GEMINI, "", f"{GENERATE}?alt=proto&alt=sse", f"{GENERATE}?alt=sse"),
        (ModelApi.GEMINI, "/v1beta", f"/v1{GENERATE}", GENERATE),
        (ModelApi.OPENAI, "/v1", "/v1/responses", "/v1/responses"),
    ],
)
def test_a_client_may_append_its_own_version(
    start: Start, server: ScriptedApi, kind: ModelApi, base: str, asked: str, reached: str
) -> None:
    client = start(kind, base)
    status, _ = client.ask("POST", asked, ASKS[kind][1])
    assert (status, server.paths, client.warnings) == (200, [reached], [])


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (ModelApi.ANTHROPIC, "/v1/responses"),
        (ModelApi.ANTHROPIC, "/messages"),
        (ModelApi.ANTHROPIC, "/v1/messages/batches"),
        (ModelApi.ANTHROPIC, "/v1//v1/messages"),
        (ModelApi.ANTHROPIC, "/v1/v1/v1/messages"),
        (ModelApi.ANTHROPIC, "/v1/v1beta/../messages"),
        (ModelApi.GEMINI, "/v1beta/models/m:batchGenerateContent"),
        (ModelApi.GEMINI, "/v1beta/models/m/x:generateContent"),
        (ModelApi.GEMINI, "/v1beta/files"),
        (ModelApi.GEMINI, "/v1/models/m:generateContent"),
        (ModelApi.OPENAI, "/v1/v1/responses"),
        (ModelApi.OPENAI, "/v1/messages"),
    ],
)
def test_a_call_of_another_api_or_path_is_refused(start: Start, server: ScriptedApi, kind: ModelApi, path: str) -> None:
    client = start(kind)
    status, answer = client.ask("POST", path, {})
    assert (status, _said(answer)[1]) == (403, "pccpipe_not_allowed")
    assert ("details" in json.loads(answer)["error"]) is (kind is ModelApi.GEMINI)
    assert ("type" in json.loads(answer)) is (kind is ModelApi.ANTHROPIC)
    assert not server.paths
    assert client.warnings


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/?beta=true"])
def test_a_look_for_the_api_without_a_token_is_answered_without_a_warning(start: Start, path: str) -> None:
    client = start(ModelApi.ANTHROPIC)
    connection = client.connection()
    connection.request("HEAD", path)
    assert connection.getresponse().read() == b""
    connection.request("POST", "/v1/messages", json.dumps(MESSAGES), {"x-api-key": client.token})
    assert connection.getresponse().status == 200
    assert not client.warnings


def test_any_other_head_without_a_token_is_refused(start: Start) -> None:
    client = start(ModelApi.ANTHROPIC)
    assert client.send("HEAD", "/v1/messages", {}).status == 401
    assert client.send("HEAD", "/v1/messages", {"x-api-key": client.token}).status == 403


def _said(answer: bytes) -> tuple[object, object]:
    """Return the kind and the code of an error, wherever its API puts them."""
    error = json.loads(answer)["error"]
    if "details" in error:
        return error["status"], error["details"][0]["reason"]
    assert ("param" in error) is not (json.loads(answer).get("type") == "error")
    return error["type"], error["code"]


@pytest.mark.parametrize("kind", ModelApi)
def test_an_error_has_the_form_of_its_api_and_ends_the_agent(start: Start, kind: ModelApi) -> None:
    client = start(kind, limit=120)
    path, body = ASKS[kind]
    assert client.ask("POST", path, body)[0] == 200
    is_gemini = kind is ModelApi.GEMINI
    status, answer = client.ask("POST", path, body)
    assert status == 400
    assert _said(answer) == ("INVALID_ARGUMENT" if is_gemini else "invalid_request_error", "budget_exceeded")
    client.proxy.end(client.grant)
    for token, expected in ((client.token, 400), ("made-up", 401)):
        status, answer = client.ask("POST", path, body, token)
        assert status == expected
        assert ("type" in json.loads(answer)) is (kind is ModelApi.ANTHROPIC)
        assert _said(answer) == ("UNAUTHENTICATED" if is_gemini else "authentication_error", "invalid_api_key")
        assert "expires with the step" in json.loads(answer)["error"]["message"]


@pytest.mark.parametrize("kind", ModelApi)
def test_the_limit_of_an_answer_is_lowered_to_what_is_left(start: Start, server: ScriptedApi, kind: ModelApi) -> None:
    path, body = ASKS[kind]
    limits: dict[ModelApi, dict[str, object]] = {
        ModelApi.OPENAI: {"max_output_tokens": 10**6},
        ModelApi.ANTHROPIC: {"max_tokens": 10**6},
        ModelApi.GEMINI: {"generationConfig": {"maxOutputTokens": 10**6, "candidateCount": 2, "topK": 3}},
    }
    start(kind, limit=2000).ask("POST", path, {**body, **limits[kind]})
    (sent,) = server.bodies
    match kind:
        case ModelApi.OPENAI:
            assert 1500 < sent["max_output_tokens"] < 2000
        case ModelApi.ANTHROPIC:
            assert 1500 < sent["max_tokens"] < 2000
        case ModelApi.GEMINI:
            assert 800 < sent["generationConfig"].pop("maxOutputTokens") < 1000
            assert sent["generationConfig"] == {"candidateCount": 2, "topK": 3}


@pytest.mark.parametrize(("left", "sent"), [(10**6, None), (100_000, 65_536), (2000, 1900)])
def test_no_limit_above_that_of_the_apis_models_is_written(
    start: Start, server: ScriptedApi, left: int, sent: int | None
) -> None:
    start(ModelApi.GEMINI, limit=left).ask("POST", *ASKS[ModelApi.GEMINI])
    found = server.bodies[0].get("generationConfig", {}).get("maxOutputTokens")
    assert found == sent if sent is None else sent <= found <= min(left, 65_536)


def test_counting_tokens_sends_no_limit_and_costs_nothing(start: Start, server: ScriptedApi) -> None:
    client = start(ModelApi.ANTHROPIC, limit=100)
    body = {"model": "m", "messages": MESSAGES["messages"]}
    assert client.ask("POST", "/v1/messages/count_tokens", body)[0] == 200
    assert server.bodies == [body]
    assert client.meter.used.tokens.total == 0


@pytest.mark.parametrize(
    ("kind", "cut"),
    [(ModelApi.ANTHROPIC, ANTHROPIC.index(b'{"type": "message_delta"')), (ModelApi.GEMINI, GEMINI.index(b"\n\n") + 9)],
)
def test_a_cut_stream_counts_what_was_seen_and_estimates_the_rest(
    start: Start, server: ScriptedApi, kind: ModelApi, cut: int
) -> None:
    client = start(kind)
    server.cuts = cut
    with contextlib.suppress(http.client.IncompleteRead):
        client.ask("POST", *ASKS[kind])
    tokens = client.used[-1].tokens
    assert tokens.input == 100
    if kind is ModelApi.ANTHROPIC:
        assert tokens.estimated > 600 // 4
    else:
        assert (tokens.output, tokens.estimated) == (2, 0)


@pytest.mark.parametrize("usage", [{}, {"input_tokens": -5, "output_tokens": 10**13}, {"input_tokens": 0}])
def test_an_answer_that_states_no_tokens_is_not_free(
    start: Start, server: ScriptedApi, usage: dict[str, object]
) -> None:
    client = start(ModelApi.ANTHROPIC)
    server.form, server.answer = "application/json", json.dumps({"type": "message", "usage": usage}).encode()
    client.ask("POST", "/v1/messages", MESSAGES)
    assert client.used[-1].tokens.estimated > 10


def test_an_overloaded_api_that_says_so_in_a_stream_costs_nothing(start: Start, server: ScriptedApi) -> None:
    client = start(ModelApi.ANTHROPIC)
    server.answer = events({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})
    client.ask("POST", "/v1/messages", MESSAGES)
    assert client.used[-1].tokens.total == 0


def test_headers_that_choose_the_payer_or_a_hosted_feature_never_go_on(start: Start, server: ScriptedApi) -> None:
    betas = (
        "claude-code-20250219, mcp-client-2025-11-20,Fast-Mode-2026-02-01,context-1m-2025-08-07,web-fetch-2025-09-10"
    )
    headers = {
        **{"anthropic-version": "2023-06-01", "anthropic-beta": betas, "anthropic-workspace-id": "w"},
        **{"OpenAI-Organization": "o", "OpenAI-Project": "p", "X-Goog-User-Project": "g", "X-Forwarded-For": "1.1.1.1"},
        "X-HTTP-Method-Override": "DELETE",
    }
    client = start(ModelApi.ANTHROPIC)
    answer = client.send("POST", "/v1/messages", {**headers, "x-api-key": client.token}, MESSAGES)
    assert answer.status == 200
    assert answer.headers["anthropic-organization-id"] is None
    assert server.headers[0]["anthropic-beta"] == "claude-code-20250219"
    assert server.headers[0]["anthropic-version"] == "2023-06-01"
    own = {"anthropic-workspace-id", "openai-organization", "openai-project", "x-goog-user-project"}
    assert not server.headers[0].keys() & (own | {"x-forwarded-for", "x-http-method-override"})
    allowed = start(ModelApi.ANTHROPIC, hosted_tools=("web_fetch",), service_tiers=("context-1m",))
    allowed.send("POST", "/v1/messages", {**headers, "x-api-key": allowed.token}, MESSAGES)
    kept = "claude-code-20250219,context-1m-2025-08-07,web-fetch-2025-09-10"
    assert server.headers[1]["anthropic-beta"] == kept


@pytest.mark.parametrize("kind", ModelApi)
def test_a_compressed_request_is_refused_by_each_api(start: Start, server: ScriptedApi, kind: ModelApi) -> None:
    client = start(kind)
    connection = client.connection()
    connection.putrequest("POST", ASKS[kind][0])
    for name, value in (("Authorization", f"Bearer {client.token}"), ("Content-Length", "2")):
        connection.putheader(name, value)
    for encoding in ("gzip", "identity"):
        connection.putheader("Content-Encoding", encoding)
    connection.endheaders(b"{}")
    answer = connection.getresponse()
    assert (answer.status, _said(answer.read())[1]) == (400, "pccpipe_uncountable")
    assert not server.paths


@pytest.mark.parametrize("kind", ModelApi)
def test_the_key_in_an_answer_of_each_api_is_masked(start: Start, server: ScriptedApi, kind: ModelApi) -> None:
    client = start(kind)
    server.status, server.answer = 401, json.dumps({"error": {"message": f"invalid key {KEY}"}}).encode()
    status, answer = client.ask("POST", *ASKS[kind])
    assert (status, KEY.encode() in answer, b"***" in answer) == (401, False, True)


@pytest.mark.parametrize("kind", ModelApi)
def test_a_secrets_models_hold_for_each_api(start: Start, server: ScriptedApi, kind: ModelApi) -> None:
    client = start(kind, models=("m",))
    path, body = ASKS[kind]
    assert client.ask("POST", path, body)[0] == 200
    dear = {**body, "model": "dear"}
    assert client.ask("POST", path.replace("models/m:", "models/dear:"), dear)[0] == 400
    # Gemini's API takes the model of the path, whatever the document says.
    assert client.ask("POST", path.replace("models/m:", "models/dear:"), {**dear, "model": "m"})[0] == (
        400 if kind is ModelApi.GEMINI else 200
    )
    assert client.ask("POST", path, dear)[0] == 400
    assert all("dear" not in path for path in server.paths)


@pytest.mark.parametrize("kind", ModelApi)
def test_an_api_has_an_address_and_calls_of_its_own(kind: ModelApi) -> None:
    api = Api.at("KEY", KEY, kind.base, (), kind=kind)
    path = api.path_of(ASKS[kind][0].partition("?")[0])
    assert path
    assert api.allows("POST", path)
    assert api.url_of(path) == {"openai": "/v1/responses", "anthropic": "/v1/messages", "gemini": GENERATE}[kind]
