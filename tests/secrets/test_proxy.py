"""The proxy, called over a socket like from a container, with a test model behind it."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pccpipe import limits
from pccpipe.errors import UsageError
from pccpipe.machine.local_stream import LocalStream
from pccpipe.secrets.proxy import egress, exchange, ranges, upstream
from pccpipe.secrets.proxy.grant import WARNINGS, Api, Grant
from pccpipe.secrets.proxy.meter import Meter, ModelUse
from pccpipe.secrets.proxy.proxy import EGRESS, Proxy, digest
from tests.testbed.model import ModelServer

KEY = "sk-the-real-key-0123456789"
CALLS = ("POST /responses", "POST /chat/completions", "GET /models", "GET /models/*")
ASK = {"model": "m", "input": "hello", "stream": True}

OPEN: list[socket.socket] = []
"""The connections of clients, until the end of a test."""


class Client:
    """Calls the proxy, with a connection for each request, like the relay in a container."""

    def __init__(
        self,
        proxy: Proxy,
        base: str,
        *,
        limit: int | None = None,
        calls: Sequence[str] = CALLS,
        out: Sequence[str] = (),
    ) -> None:
        self.used: list[ModelUse] = []
        self.warnings: list[str] = []
        self.meter = Meter(limit, ModelUse(), self.used.append)
        api = Api.at("KEY", KEY, base, tuple(calls))
        self.grant = Grant((api,), tuple(out), self.meter, self.warnings.append)
        self.proxy = proxy
        self.tokens = proxy.issue(self.grant)

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        OPEN.append(ours)
        self.proxy.accept(LocalStream(theirs))
        return ours

    def connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("proxy")
        connection.sock = self.connect()
        return connection

    def ask(
        self, method: str, path: str, body: object = None, token: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        connection = self.connection()
        token = self.tokens["KEY"] if token is None else token
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Authorization": f"Bearer {token}", **headers})
        response = connection.getresponse()
        return response.status, response.read()

    def error(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, str, str]:
        status, answer = self.ask(method, path, body, token)
        error = json.loads(answer)["error"]
        return status, error["code"], error["message"]

    @property
    def out(self) -> str:
        return "Basic " + base64.b64encode(f"pccpipe:{self.tokens[EGRESS]}".encode()).decode()


def test_a_call_gets_the_key_and_the_tokens_of_its_answer_are_counted(client: Client, model: ModelServer) -> None:
    status, answer = client.ask("POST", "/v1/responses", ASK)
    assert status == 200
    assert b"response.completed" in answer
    (request,) = model.requests
    assert request.authorization == f"Bearer {KEY}"
    assert request.body == {**ASK, "store": False}
    assert client.tokens["KEY"] not in json.dumps(request.headers)
    (used,) = client.used
    assert (used.calls, used.tokens.input, used.tokens.output, used.tokens.estimated) == (1, 100, 20, 0)


def test_an_answer_without_a_stream_is_counted_too(client: Client) -> None:
    status, answer = client.ask("POST", "/v1/responses", {**ASK, "stream": False})
    assert (status, json.loads(answer)["status"]) == (200, "completed")
    assert client.used[-1].tokens.total == 120


def test_events_are_passed_on_as_they_arrive(client: Client, model: ModelServer) -> None:
    model.set({"replies": [{"text": "x" * 200, "trickle_s": 0.15}]})
    connection = client.connection()
    headers = {"Authorization": f"Bearer {client.tokens['KEY']}"}
    connection.request("POST", "/v1/responses", json.dumps(ASK), headers)
    response = connection.getresponse()
    moments = []
    while piece := response.read1():
        moments += [time.monotonic()] * piece.count(b"output_text.delta\ndata")
    assert len(moments) == 5
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert all(0.05 < gap < 1 for gap in gaps), gaps


def test_an_agents_own_credentials_cookies_and_encodings_are_not_passed_on(client: Client, model: ModelServer) -> None:
    more = {
        "Cookie": "a=b",
        "X-Api-Key": "mine",
        "Accept-Encoding": "gzip",
        "Proxy-Authorization": "x",
        "Session_id": "7",
    }
    connection = client.connection()
    connection.request(
        "POST", "/v1/responses", json.dumps(ASK), {"Authorization": f"Bearer {client.tokens['KEY']}", **more}
    )
    assert connection.getresponse().status == 200
    headers = {name.lower(): value for name, value in model.requests[0].headers.items()}
    assert (headers["authorization"], headers["accept-encoding"]) == (f"Bearer {KEY}", "identity")
    assert headers["session_id"] == "7"
    assert not headers.keys() & {"cookie", "x-api-key", "proxy-authorization"}
    assert headers["host"] == model.url.removeprefix("http://")


@pytest.mark.parametrize("token", ["", "pcct-made-up", KEY])
def test_a_client_without_a_step_token_gets_401(client: Client, model: ModelServer, token: str) -> None:
    assert client.error("POST", "/v1/responses", ASK, token)[:2] == (401, "invalid_api_key")
    assert not model.requests


def test_a_token_expires_with_its_own_step(client: Client, model: ModelServer) -> None:
    other = Client(client.proxy, f"{model.url}/v1")
    client.proxy.end(client.grant)
    status, code, message = client.error("POST", "/v1/responses", ASK)
    # Agents retry a 401 for minutes.
    assert (status, code) == (400, "invalid_api_key")
    assert "expires with the step" in message
    assert other.ask("POST", "/v1/responses", ASK)[0] == 200


def test_the_end_of_a_step_cuts_a_waiting_call(client: Client, model: ModelServer) -> None:
    model.set({"replies": [{"hang": True}]})
    threading.Timer(0.3, client.proxy.end, [client.grant]).start()
    began = time.monotonic()
    assert client.error("POST", "/v1/responses", ASK)[:2] == (502, "pccpipe_upstream")
    assert time.monotonic() - began < 5
    assert client.used[-1].calls == 1


def test_a_process_that_knows_only_the_digest_accepts_the_token(client: Client, model: ModelServer) -> None:
    later = Client(Proxy(), f"{model.url}/v1")
    assert later.error("POST", "/v1/responses", ASK, client.tokens["KEY"])[0] == 401
    seen: list[str] = []
    later.proxy.know(later.grant, {"KEY": digest(client.tokens["KEY"])}, seen.append)
    for _ in range(2):
        assert later.ask("POST", "/v1/responses", ASK, client.tokens["KEY"])[0] == 200
    assert seen == [client.tokens["KEY"]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("GET", "/v1/responses"),
            ("DELETE", "/v1/responses"),
            ("POST", "/v1/files"),
            ("GET", "/v1/organization/keys"),
        ),
        *(("POST", "/v1/responses/"), ("POST", "/responses"), ("POST", "/v1//responses"), ("GET", "/v1/models/..")),
        *(("GET", "/v1/models/a/b"), ("GET", "/v1/models/..%2ffiles"), ("POST", "/v1/responses/../files")),
        ("OPTIONS", "*"),
    ],
)
def test_a_call_that_is_not_allowed_is_refused(client: Client, model: ModelServer, method: str, path: str) -> None:
    status, code, message = client.error(method, path)
    assert (status, code) == (403, "pccpipe_not_allowed")
    assert "POST /responses" in message
    assert not model.requests
    assert client.warnings


def test_the_base_of_the_api_may_have_a_path(model: ModelServer) -> None:
    client = Client(Proxy(), f"{model.url}/openai/v2/")
    assert client.ask("GET", "/v1/models?client_version=1")[0] == 200
    assert model.requests[0].path == "/openai/v2/models?client_version=1"


def test_max_tokens_ends_a_step_with_an_error_that_says_so(model: ModelServer) -> None:
    client = Client(Proxy(), f"{model.url}/v1", limit=250)
    assert [client.ask("POST", "/v1/responses", ASK)[0] for _ in range(2)] == [200, 200]
    for _ in range(2):
        status, code, message = client.error("POST", "/v1/responses", ASK)
        assert (status, code) == (400, "budget_exceeded")
        assert "240 of this turn's max_tokens of 250 are used" in message
    assert len(model.requests) == 2
    assert (client.meter.used.calls, client.meter.used.refused) == (2, 2)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/responses", b'{"background": true}', {}),
        ("/v1/responses", b'{"background": false, "background": 1}', {}),
        ("/v1/responses", b"\x1f\x8b...", {"Content-Encoding": "gzip"}),
        ("/v1/chat/completions", b"[1]", {}),
        ("/v1/responses", b"", {}),
    ],
)
def test_a_call_with_uncountable_tokens_is_refused(
    client: Client, model: ModelServer, path: str, body: bytes, headers: dict[str, str]
) -> None:
    connection = client.connection()
    connection.request("POST", path, body, {"Authorization": f"Bearer {client.tokens['KEY']}", **headers})
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (400, "pccpipe_uncountable")
    assert not model.requests


def test_a_cut_answer_counts_by_its_size(client: Client, model: ModelServer) -> None:
    model.set({"replies": [{"text": "y" * 4000, "cut": {"times": 1}}]})
    client.ask("POST", "/v1/responses", ASK)
    tokens = client.used[-1].tokens
    assert tokens.estimated > 1000
    assert (tokens.input, tokens.output) == (0, 0)


def test_the_call_of_a_client_that_leaves_is_counted(client: Client, model: ModelServer) -> None:
    model.set({"replies": [{"text": "z" * 8000, "trickle_s": 0.01}]})
    connection = client.connection()
    headers = {"Authorization": f"Bearer {client.tokens['KEY']}"}
    connection.request("POST", "/v1/responses", json.dumps(ASK), headers)
    connection.getresponse().read1()
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    until = time.monotonic() + 10
    while not client.used and time.monotonic() < until:
        time.sleep(0.02)
    assert client.used[-1].tokens.total == 120


def test_an_unreachable_api_gives_a_502_that_says_why(model: ModelServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = Client(Proxy(), f"http://127.0.0.1:{port}/v1")
    status, code, message = client.error("POST", "/v1/responses", ASK)
    assert (status, code) == (502, "pccpipe_upstream")
    assert f"127.0.0.1:{port}: Connection refused" in message
    assert Client(Proxy(), "http://no.such.host.invalid/v1").error("GET", "/v1/models")[0] == 502


def certificate(folder: Path, name: str) -> Path:
    """Make a file with a key and its self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "pem"
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file


@pytest.mark.parametrize(
    ("name", "is_trusted", "expected"),
    [("localhost", True, 401), ("localhost", False, 502), ("elsewhere.example", True, 502)],
)
def test_tls_is_spoken_only_with_the_api_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_trusted: bool, expected: int
) -> None:
    file = certificate(tmp_path, name)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    upstream.tls.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    client = Client(Proxy(), f"https://localhost:{server.server_address[1]}/v1")
    status, answer = client.ask("GET", "/v1/models")
    server.shutdown()
    server.server_close()
    upstream.tls.cache_clear()
    assert status == expected
    assert (b"you said Bearer ***" if expected == 401 else b"invalid certificate") in answer


class Odd(BaseHTTPRequestHandler):
    """An API that misbehaves."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass

    def do_GET(self) -> None:
        if self.path.endswith("away"):
            self.send_response(307)
            self.send_header("Location", "http://elsewhere.example/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = f"you said {self.headers['Authorization']}".encode()
        self.send_response(401)
        self.send_header("Set-Cookie", "session=1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def odd() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_redirect_is_reported_and_not_followed(odd: str) -> None:
    status, _, message = Client(Proxy(), f"http://{odd}/v1").error("GET", "/v1/models/away")
    assert status == 502
    assert "redirect (307) to http://elsewhere.example/" in message


def test_an_answer_that_repeats_the_key_does_not_show_it_to_the_agent(odd: str) -> None:
    client = Client(Proxy(), f"http://{odd}/v1")
    status, answer = client.ask("GET", "/v1/models/echo")
    assert (status, answer) == (401, b"you said Bearer ***")
    connection = client.connection()
    connection.request("GET", "/v1/models/x", headers={"Authorization": f"Bearer {client.tokens['KEY']}"})
    assert connection.getresponse().headers["set-cookie"] is None


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 30000 + b"\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
def test_invalid_http_gets_an_error_and_ends(client: Client, raw: bytes) -> None:
    connected = client.connect()
    connected.sendall(raw)
    assert connected.recv(15).startswith(b"HTTP/1.1 4")
    while connected.recv(65536):
        pass


def test_a_request_that_is_too_large_or_without_a_token_is_refused(client: Client) -> None:
    head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n"
    connected = client.connect()
    connected.sendall(head.encode() + b"Authorization: Bearer no\r\n\r\n")
    assert connected.recv(12) == b"HTTP/1.1 401"
    connected = client.connect()
    connected.sendall(head.encode() + f"Authorization: Bearer {client.tokens['KEY']}\r\n\r\n".encode())

    def send() -> None:
        try:
            while True:
                connected.sendall(b"x" * (1 << 20))
        except OSError:
            return

    threading.Thread(target=send, daemon=True).start()
    assert connected.recv(12) == b"HTTP/1.1 413"


def test_connections_are_limited_and_carry_several_requests(client: Client) -> None:
    waiting = [client.connect() for _ in range(limits.UNKNOWN_CONNECTIONS.most)]
    waiting.append(client.connect())
    assert waiting[0].recv(1) == b""
    for each in waiting:
        each.close()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        connection = client.connection()
        headers = {"Authorization": f"Bearer {client.tokens['KEY']}"}
        try:
            for _ in range(3):
                connection.request("GET", "/v1/models", headers=headers)
                assert connection.getresponse().read()
            return
        except (ConnectionError, http.client.HTTPException):
            time.sleep(0.05)
    pytest.fail("the proxy did not free the slots")


@pytest.mark.parametrize("shows", ["its token", "nothing", "half a head"])
def test_idle_connections_of_one_step_starve_no_other(client: Client, model: ModelServer, shows: str) -> None:
    other = Client(client.proxy, f"{model.url}/v1")
    head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.tokens['KEY']}\r\n"
    sent = {"its token": f"{head}Content-Length: 9\r\n\r\n", "nothing": "", "half a head": head}[shows]
    idle = []
    for _ in range(3 * limits.STEP_CONNECTIONS.most):
        idle.append(client.connect())
        idle[-1].sendall(sent.encode())
        time.sleep(0.005)  # as fast as a relay brings them
    before = time.monotonic()
    assert other.ask("GET", "/v1/models")[0] == 200
    assert time.monotonic() - before < 1
    if shows == "its token":
        status, code, message = client.error("GET", "/v1/models")
        assert (status, code) == (429, "pccpipe_busy")
        assert "the connections of one step to the proxy exceeds the limit of 64" in message
    for each in idle:
        each.close()


def test_a_connection_that_shows_no_token_is_closed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "TOKEN_SECONDS", 0.5)
    connected = client.connect()
    for _ in range(3):
        connected.sendall(b"G")
        time.sleep(0.1)
    assert connected.recv(1) == b""


def test_a_streamed_chat_is_asked_for_its_tokens(client: Client, model: ModelServer) -> None:
    client.ask("POST", "/v1/chat/completions", {"messages": [], "stream": True, "stream_options": {"x": 1}})
    assert model.requests[0].body == {
        "messages": [],
        "stream": True,
        "stream_options": {"x": 1, "include_usage": True},
        "store": False,
    }


@pytest.mark.parametrize(
    "base", ["", "api.openai.com/v1", "ftp://x/", "http://", "https://u:p@x/v1", "http://x/v1?a", "http://x y"]
)
def test_an_upstream_that_is_not_a_url_is_reported(base: str) -> None:
    with pytest.raises(UsageError, match="upstream"):
        Api.at("KEY", KEY, base, CALLS)


@pytest.mark.parametrize(
    ("entry", "host", "port", "expected"),
    [
        ("registry.npmjs.org", "registry.npmjs.org", 443, True),
        ("registry.npmjs.org", "Registry.NPMJS.org.", 80, True),
        ("registry.npmjs.org", "registry.npmjs.org", 22, False),
        ("registry.npmjs.org", "evil-registry.npmjs.org", 443, False),
        ("registry.npmjs.org", "registry.npmjs.org.evil.example", 443, False),
        ("*.pypi.org", "files.pypi.org", 443, True),
        ("*.pypi.org", "a.b.pypi.org", 443, True),
        ("*.pypi.org", "pypi.org", 443, False),
        ("*.pypi.org", "evilpypi.org", 443, False),
        ("git.example:22", "git.example", 22, True),
        ("git.example:22", "git.example", 443, False),
        ("10.0.0.7:8080", "10.0.0.7", 8080, True),
        ("[::1]:443", "::1", 443, True),
    ],
)
def test_an_entry_matches_its_domains(entry: str, host: str, port: int, expected: bool) -> None:
    assert egress.allows([entry], host, port) is expected


def tunnel(client: Client, target: str, credentials: str) -> tuple[int, socket.socket]:
    connected = client.connect()
    connected.sendall(
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: {credentials}\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += connected.recv(1)
    return int(head.split()[1]), connected


def test_a_tunnel_leads_to_an_allowed_host_and_ends_with_the_step(model: ModelServer) -> None:
    where = model.url.removeprefix("http://")
    client = Client(Proxy(), f"{model.url}/v1", out=[where])
    status, connected = tunnel(client, where, client.out)
    assert status == 200
    connected.sendall(f"GET /v1/models HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
    assert b"200 OK" in connected.recv(4096)
    _, other = tunnel(client, where, client.out)
    client.proxy.end(client.grant)
    assert other.recv(1) == b""
    assert tunnel(client, where, client.out)[0] == 407


def test_other_domains_are_refused_with_a_few_warnings(model: ModelServer) -> None:
    client = Client(Proxy(), f"{model.url}/v1", out=["registry.npmjs.org"])
    for number in range(WARNINGS + 5):
        assert tunnel(client, f"host{number}.example:443", client.out)[0] == 403
        assert tunnel(client, f"host{number}.example:443", client.out)[0] == 403
    assert len(client.warnings) == WARNINGS + 1
    assert "host0.example:443" in client.warnings[0]
    assert tunnel(client, "registry.npmjs.org:22", client.out)[0] == 403


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1.nip.io", "metadata.example"])
def test_an_allowed_name_does_not_lead_to_a_private_address(
    model: ModelServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    port = int(model.url.rpartition(":")[2])
    found = {"localhost": "127.0.0.1", "127.0.0.1.nip.io": "::ffff:127.0.0.1", "metadata.example": "169.254.169.254"}
    resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found[name], port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
    client = Client(Proxy(), f"{model.url}/v1", out=[f"{name}:{port}"])
    assert tunnel(client, f"{name}:{port}", client.out)[0] == 403
    assert "not a public address" in client.warnings[0]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *(
            ("8.8.8.8", True),
            ("2606:4700::1111", True),
            ("10.1.2.3", False),
            ("172.16.0.1", False),
            ("100.64.0.1", False),
        ),
        *(("192.168.0.1", False), ("169.254.169.254", False), ("127.0.0.1", False), ("0.0.0.0", False), ("::1", False)),
        *(("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False)),
        *(("224.0.0.1", False), ("2002:7f00:1::", False), ("::", False)),
    ],
)
def test_public_addresses_are_recognized(address: str, expected: bool) -> None:
    assert ranges.is_public(address) is expected


def test_plain_http_goes_to_allowed_hosts(model: ModelServer) -> None:
    where = model.url.removeprefix("http://")
    client = Client(Proxy(), f"{model.url}/v1", out=[where])
    connection = client.connection()
    headers = {"Proxy-Authorization": client.out, "Authorization": f"Bearer {KEY}"}
    connection.request("GET", f"http://{where}/v1/models", headers=headers)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["object"]) == (200, "list")
    assert "Proxy-Authorization" not in model.requests[0].headers
    assert client.ask("GET", "http://other.example/", **headers)[0] == 403
    assert client.ask("GET", f"http://{where}/", **{"Proxy-Authorization": "Basic eDp5"})[0] == 407


def test_the_tokens_of_keys_and_of_egress_are_not_interchangeable(model: ModelServer) -> None:
    where = model.url.removeprefix("http://")
    client = Client(Proxy(), f"{model.url}/v1", out=[where])
    key = "Basic " + base64.b64encode(f"x:{client.tokens['KEY']}".encode()).decode()
    assert tunnel(client, where, key)[0] == 407
    assert client.error("POST", "/v1/responses", ASK, client.tokens[EGRESS])[0] == 401
