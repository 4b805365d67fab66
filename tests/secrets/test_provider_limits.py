"""A provider's limit: the proxy waits for it with the client's connection open, and knows one that takes longer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from email.utils import formatdate

import pytest

from pccpipe import limits
from pccpipe.cancel import Deadline
from pccpipe.secrets.proxy import provider_limits
from pccpipe.secrets.proxy.provider_limits import ProviderLimit, ProviderLimits, limit_of
from pccpipe.secrets.proxy.proxy import Proxy
from tests.secrets.test_proxy import ASK, Client
from tests.testbed.model import ModelServer

NOW = 1_800_000_000.0


def failing(status: int, times: int, **headers: str) -> dict[str, object]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"replies": [{"text": "ok", "fail": {"status": status, "times": times, "headers": named}}]}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30),
        ({"retry-after": "1.5", "x-ratelimit-reset-tokens": "9m"}, 1.5),
        ({"retry-after-ms": "700"}, 0.7),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0),
        ({"anthropic-ratelimit-tokens-reset": "2027-01-15T08:02:00Z"}, 120),
        ({"anthropic-ratelimit-unified-reset": str(int(NOW + 600))}, 600),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        (
            {
                "x-ratelimit-reset-requests": "120ms",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "10",
            },
            0.12,
        ),
        ({"retry-after": "9" * 13}, limits.RETRY_AFTER.most),
        ({"retry-after": "9" * 400}, None),
        *[
            ({"retry-after": odd}, None)
            for odd in ("", "soon", "nan", "-1", "inf", "1e9", "٣", "Mon, 99 Foo", "9" * 5000)
        ],
        ({}, None),
    ],
)
def test_the_wait_is_what_the_answer_says(
    headers: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    limit = limit_of(429, headers.items())
    assert limit is not None
    assert limit.until == (None if seconds is None else pytest.approx(NOW + seconds))


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ('{"error":{"code":429,"details":[{"@type":"x"},{"@type":"y.RetryInfo","retryDelay":"34.5s"}]}}', 34.5),
        ('[{"error":{"code":429,"details":[{"retryDelay":"7s"}]}}]', 7),
        ('{"error":{"details":[{"retryDelay":"soon"}]}}', None),
        ('{"error":{"details":[{"retryDelay":7}, 1]}}', None),
        ('{"error":{"details":{"retryDelay":"7s"}}}', None),
        ('{"error":"x"}', None),
        ("[]", None),
        ('{"error":{"details":[{"retryDelay":"7', None),
        ("[" * 5000, None),
    ],
)
def test_the_wait_may_be_in_the_body(body: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    limit = limit_of(429, [], body.encode())
    assert limit is not None
    assert limit.until == (None if seconds is None else pytest.approx(NOW + seconds))
    stated = limit_of(429, [("retry-after", "3")], body.encode())
    assert stated is not None
    assert stated.until == NOW + 3, "the header counts"


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500, 502])
def test_other_answers_are_no_limit(status: int) -> None:
    assert limit_of(status, [("retry-after", "5")]) is None


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_call_waits_as_long_as_told_and_its_client_sees_one_answer(
    client: Client, model: ModelServer, status: int
) -> None:
    model.set(failing(status, 2, retry_after="1"))
    began = time.monotonic()
    answered, body = client.ask("POST", "/v1/responses", ASK)
    assert (answered, b"response.completed" in body) == (200, True)
    assert time.monotonic() - began >= 2
    assert len(model.requests) == 3
    assert client.grant.provider_limits.beyond is None
    assert client.used[-1].reserved == 0


def test_no_tokens_are_reserved_while_a_call_waits(model: ModelServer) -> None:
    client = Client(Proxy(), f"{model.url}/v1", limit=100_000)
    model.set(failing(429, 1, retry_after="2"))
    waiting = threading.Thread(target=client.ask, args=("POST", "/v1/responses", ASK), daemon=True)
    waiting.start()
    until = time.monotonic() + 1.5
    while not (client.used and client.used[-1].calls) and time.monotonic() < until:
        time.sleep(0.01)
    assert (client.used[-1].calls, client.used[-1].reserved) == (1, 0)
    assert client.grant.open_calls.quiet == 0
    waiting.join(10)
    assert client.used[-1].tokens.total == 120


def test_a_limit_without_a_time_is_tried_again_for_a_while_only(
    client: Client, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_limits, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(provider_limits, "LONGEST_UNTOLD_WAIT", 1.0)
    model.set(failing(429, 99))
    status, _ = client.ask("POST", "/v1/responses", ASK)
    assert status == 429
    # After 0.1, 0.2 and 0.4 s; a busy machine makes fewer in the second.
    assert 2 <= len(model.requests) <= 4
    beyond = client.grant.provider_limits.beyond
    assert beyond is not None
    assert (beyond.words, beyond.until) == ("answered 429 (rate limit)", None)


def test_a_limit_that_outlasts_the_step_is_passed_on_at_once(client: Client, model: ModelServer) -> None:
    met: list[ProviderLimit] = []
    client.grant.provider_limits = ProviderLimits(Deadline.after(20, "step"), met.append)
    model.set(failing(429, 99, retry_after="30"))
    began = time.monotonic()
    for _ in range(2):
        assert client.ask("POST", "/v1/responses", ASK)[0] == 429
    assert time.monotonic() - began < 5
    assert len(model.requests) == 2
    (limit,) = met
    assert limit.until == pytest.approx(time.time() + 30, abs=5)


def test_a_wait_of_minutes_has_parts_that_clients_bear(
    client: Client, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pccpipe.secrets.proxy.exchange.HOLD", 0.6)
    # Anthropic's clients do not call again after the second one, whatever the first one says.
    model.set(failing(429, 1, retry_after="2", x_should_retry="false"))
    connection = client.connection()
    began = time.monotonic()
    connection.request("POST", "/v1/responses", json.dumps(ASK), {"Authorization": f"Bearer {client.tokens['KEY']}"})
    response = connection.getresponse()
    assert (response.status, response.headers["retry-after"]) == (429, "1")
    assert response.headers.get_all("x-should-retry") == ["true"]
    assert b"scripted failure" in response.read()
    assert time.monotonic() - began >= 0.6
    assert client.grant.provider_limits.beyond is None
    assert client.ask("POST", "/v1/responses", ASK)[0] == 200


def test_short_waits_add_up_to_no_longer_one(
    client: Client, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pccpipe.secrets.proxy.exchange.HOLD", 2.5)
    model.set(failing(429, 4, retry_after="1"))
    began = time.monotonic()
    assert client.ask("POST", "/v1/responses", ASK)[0] == 429
    assert 2.5 <= time.monotonic() - began < 5
    assert client.ask("POST", "/v1/responses", ASK)[0] == 200


def test_a_person_learns_once_of_a_long_wait(
    client: Client, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pccpipe.secrets.proxy.exchange.NOTABLE", 1.5)
    model.set(failing(429, 4, retry_after="2"))
    assert client.ask("POST", "/v1/responses", ASK)[0] == 200
    words = "the model's API answered 429 (rate limit): the proxy waits and makes the call again"
    assert client.warnings == [words]


def test_a_client_that_left_costs_no_second_call(client: Client, model: ModelServer) -> None:
    model.set(failing(429, 1, retry_after="2"))
    connected = client.connect()
    body = json.dumps(ASK).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {client.tokens['KEY']}\r\n"
    connected.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    until = time.monotonic() + 5
    while not model.requests and time.monotonic() < until:
        time.sleep(0.01)
    connected.close()
    time.sleep(3)
    assert len(model.requests) == 1


def test_the_end_of_a_step_ends_the_wait(client: Client, model: ModelServer) -> None:
    model.set(failing(429, 9, retry_after="60"))
    ended: list[float] = []

    def ask() -> None:
        with pytest.raises((http.client.HTTPException, OSError)):
            client.ask("POST", "/v1/responses", ASK)
        ended.append(time.monotonic())

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    until = time.monotonic() + 5
    while not client.used and time.monotonic() < until:
        time.sleep(0.01)
    client.proxy.end(client.grant)
    asking.join(5)
    assert ended
    assert len(model.requests) == 1


def test_a_client_that_sends_its_next_request_meanwhile_gets_both_answers(client: Client, model: ModelServer) -> None:
    model.set(failing(429, 1, retry_after="1"))
    connected = client.connect()
    body = json.dumps({**ASK, "stream": False}).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {client.tokens['KEY']}\r\n"
    request = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    connected.sendall(request)
    time.sleep(0.4)
    connected.sendall(request)
    answers = b""
    while answers.count(b"HTTP/1.1 200") < 2:
        piece = connected.recv(65536)
        assert piece, "the second request is lost"
        answers += piece


OVERLOADED = b'data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (OVERLOADED, "ended its answer with an error (overloaded_error)"),
        (
            b'data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"}}}\n\n',
            "ended its answer with an error (rate_limit_exceeded)",
        ),
        (b'data: {"type":"error","code":"rate_limit_exceeded","message":"x"}\n\n', "(rate_limit_exceeded)"),
        (b'data: {"type":"content_block_delta","delta":{"text":"overloaded_error"}}\n\n', ""),
        (b'data: {"type":"error","error":{"type":"invalid_request_error"}}\n\n', ""),
        (b"data: overloaded_error [[[[\n\n", ""),
        (b"data: " + b"x" * (20 << 10) + OVERLOADED, ""),
    ],
)
@pytest.mark.parametrize("size", [7, 70_000])
def test_a_limit_in_a_stream_is_noted_however_it_arrives(event: bytes, words: str, size: int) -> None:
    known = ProviderLimits()
    stream = b'event: message_start\ndata: {"type":"message_start"}\n\n' + event
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert b"".join(known.watched("KEY", pieces)) == stream
    assert known.beyond is None, "its client may make the call again"
    ended = known.conclude()
    assert bool(ended) == bool(words)
    assert (ended.words if ended else "").endswith(words)


def test_a_stream_that_ends_well_ends_the_limit_before_and_one_that_fails_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = ProviderLimits()
    list(known.watched("KEY", [OVERLOADED]))
    list(known.watched("KEY", [b'data: {"type":"message_stop"}\n\n']))
    assert known.conclude() is None
    known.exceed("KEY", ProviderLimit("x"))
    leaves = known.watched("KEY", [b"data: 1\n", b"data: 2\n"])
    next(leaves)
    leaves.close()  # type: ignore[attr-defined]
    assert known.conclude() is None, "its client had what it wanted"
    for moment in (0.0, 20.0, 40.0):
        monkeypatch.setattr(time, "monotonic", lambda at=moment: at)
        list(known.watched("KEY", [OVERLOADED]))
    assert known.beyond, "they would fail for ever"


def test_a_good_answer_ends_a_limit_of_its_own_key_only() -> None:
    known = ProviderLimits(Deadline.after(5, "step"))
    for key in ("A", "B"):
        assert known.wait(key, ProviderLimit("x", time.time() + 60)) == 0
    known.passed("A")
    assert known.beyond is not None
    known.passed("B")
    assert known.beyond is None


def test_an_api_that_always_says_now_is_not_asked_without_a_pause() -> None:
    known = ProviderLimits()
    assert known.wait("A", ProviderLimit("x", time.time() - 5)) >= 1


def test_an_api_that_says_now_for_ever_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    known, at, asked = ProviderLimits(), 0.0, 0
    while at < 3600:
        monkeypatch.setattr(time, "monotonic", lambda now=at: now)
        seconds = known.wait("A", ProviderLimit("x", time.time()))
        if not seconds:
            break
        at += seconds
        asked += 1
    assert known.beyond
    assert asked < 70, "within 15 minutes"


def test_calls_side_by_side_wait_as_long_as_one_alone() -> None:
    known = ProviderLimits()
    for _ in range(50):
        assert 2 <= known.wait("A", ProviderLimit("x")) < 3
    assert known.beyond is None


def test_no_limit_is_noted_after_the_end_of_the_attempt() -> None:
    noted: list[ProviderLimit] = []
    known = ProviderLimits(Deadline.after(5, "step"), noted.append)
    known.end()
    with pytest.raises(ConnectionResetError):
        known.wait("A", ProviderLimit("x", time.time() + 60))
    assert not noted
