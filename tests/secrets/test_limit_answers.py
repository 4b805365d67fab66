"""What an answer of a model's API says: a limit that passes, an account without money, or another error."""

from __future__ import annotations

import http.server
import socket
import threading
import time

import pytest

from pccpipe.secrets.proxy import provider_limits, upstream
from pccpipe.secrets.proxy.proxy import Proxy
from tests.secrets.test_proxy import ASK, Client


class Answers:
    """A model's API that gives one answer after the other, and then the last one again."""

    def __init__(self, *answers: tuple[str, int, str]) -> None:
        self.left = list(answers)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def do_GET(self) -> None:
                path, status, body = outer.left.pop(0) if len(outer.left) > 1 else outer.left[0]
                assert self.path == path
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


USED_UP = (
    '{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}'
)


def test_an_account_without_money_is_no_limit_that_passes() -> None:
    with Answers(("/responses", 429, USED_UP)) as api:
        client = Client(Proxy(), api.url)
        began = time.monotonic()
        assert client.ask("POST", "/v1/responses", ASK) == (429, USED_UP.encode())
        assert time.monotonic() - began < 1.5, "it does not wait"
    assert client.grant.provider_limits.conclude() is None
    words = "the model's API answered 429: the account of its key has no money left (insufficient_quota)"
    assert client.grant.trouble == words


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_another_answer_after_a_limit_is_what_ends_the_step(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_limits, "FIRST_PAUSE", 0.1)
    with Answers(("/responses", 429, "{}"), ("/responses", status, "{}")) as api:
        client = Client(Proxy(), api.url)
        assert client.ask("POST", "/v1/responses", ASK)[0] == status
    assert client.grant.provider_limits.conclude() is None
    assert client.grant.trouble.startswith(f"the model's API answered {status}")


def test_a_list_of_models_ends_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_limits, "LONGEST_UNTOLD_WAIT", 0.1)
    with Answers(("/responses", 429, "{}"), ("/models", 200, "{}"), ("/models", 200, "{}")) as api:
        client = Client(Proxy(), api.url)
        assert client.ask("POST", "/v1/responses", ASK)[0] == 429
        assert client.ask("GET", "/v1/models")[0] == 200
    assert client.grant.provider_limits.beyond is not None
    assert client.grant.trouble == "the model's API answered 429"


def test_the_answer_of_a_limit_that_is_cut_or_stalls_does_not_break_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "ERROR_LIMIT", 0.3)
    monkeypatch.setattr(provider_limits, "LONGEST_UNTOLD_WAIT", 0.1)
    for is_cut in (True, False):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve(stays: bool = not is_cut, listening: socket.socket = server) -> None:
                connected, _ = listening.accept()
                with connected:
                    connected.recv(65536)
                    connected.sendall(b"HTTP/1.1 429 Slow\r\nContent-Length: 50\r\n\r\n{")
                    if stays:
                        connected.recv(1)

            threading.Thread(target=serve, daemon=True).start()
            client = Client(Proxy(), f"http://127.0.0.1:{server.getsockname()[1]}")
            assert client.ask("POST", "/v1/responses", ASK) == (429, b"{")
        assert client.grant.provider_limits.beyond is not None
