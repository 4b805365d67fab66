"""Tokens are reserved before a call and settled after it, also if the agent hangs up or calls in parallel."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from pccpipe.secrets.proxy import upstream
from pccpipe.secrets.proxy.accounts import BudgetAccount, Payer, SpendLimits
from pccpipe.secrets.proxy.meter import BudgetExceededError, Meter, ModelUse, WantedCall
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.proxy.request import Request
from pccpipe.secrets.proxy.usage import Tokens
from tests.secrets.test_proxy import ASK, Client
from tests.testbed.model import ModelServer


def limited(model: ModelServer, limit: int) -> Client:
    return Client(Proxy(), f"{model.url}/v1", limit=limit)


def settled(client: Client) -> ModelUse:
    """Return the use, once no call is under way."""
    until = time.monotonic() + 15
    while client.meter.used.reserved and time.monotonic() < until:
        time.sleep(0.02)
    return client.meter.used


def test_parallel_calls_cannot_exceed_the_limit_together(model: ModelServer) -> None:
    # Each call takes all that it may: the 20,000 tokens of the input are a quarter of its bytes.
    model.set({"replies": [{"text": "ok", "delay_s": 0.05, "usage": {"input_tokens": 1000, "output_tokens": 400}}]})
    client = limited(model, 10_000)
    ask = {**ASK, "input": "hello " * 600, "max_output_tokens": 400}
    threads = [threading.Thread(target=client.ask, args=("POST", "/v1/responses", ask)) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = settled(client)
    assert used.tokens.total <= 10_000
    assert used.calls >= 5
    assert used.refused == 64 - used.calls


def test_the_answer_may_not_exceed_the_remaining_tokens(model: ModelServer) -> None:
    client = limited(model, 5000)
    for body in (ASK, {**ASK, "max_output_tokens": 10**9}, {**ASK, "max_output_tokens": 300}):
        assert client.ask("POST", "/v1/responses", body)[0] == 200
    limits = [request.body["max_output_tokens"] for request in model.requests if request.body]
    assert limits[0] < 5000
    assert limits[1] < 5000 - 120
    assert limits[2] == 300


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        (
            "/v1/chat/completions",
            {"messages": [], "max_tokens": 7, "max_completion_tokens": 9},
            "max_completion_tokens",
        ),
        ("/v1/messages", {"messages": [], "max_tokens": 10**6}, "max_tokens"),
    ],
)
def test_the_limit_is_written_where_the_api_looks_for_it(
    model: ModelServer, path: str, body: object, where: str
) -> None:
    client = Client(Proxy(), f"{model.url}/v1", limit=1000, calls=("POST /chat/completions", "POST /messages"))
    client.ask("POST", path, body)
    sent = model.requests[0].body
    assert sent
    assert sent[where] <= 1000
    assert "max_tokens" not in sent or where == "max_tokens"


def test_each_of_several_answers_is_reserved(model: ModelServer) -> None:
    client = limited(model, 2000)
    client.ask("POST", "/v1/chat/completions", {"messages": [], "n": 10, "max_tokens": 1000})
    assert model.requests[0].body
    assert 10 * model.requests[0].body["max_completion_tokens"] <= 2000


def hang_up(client: Client, times: int) -> None:
    for _ in range(times):
        connection = client.connection()
        headers = {"Authorization": f"Bearer {client.tokens['KEY']}"}
        body = json.dumps({**ASK, "max_output_tokens": 2000})
        connection.request("POST", "/v1/responses", body, headers)
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
    time.sleep(0.2)


@pytest.mark.parametrize("trickle", [0.0, 0.05])
def test_a_client_that_hangs_up_pays(model: ModelServer, trickle: float) -> None:
    usage = {"input_tokens": 900, "output_tokens": 2000}
    model.set({"replies": [{"text": "z" * 800, "trickle_s": trickle, "usage": usage}]})
    client = limited(model, 10_000)
    hang_up(client, 2)
    assert settled(client).tokens.total == 2 * 2900


def test_a_client_that_hangs_up_on_an_endless_answer_pays_the_reservation(
    model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "DRAIN_LIMIT", 0.2)
    model.set({"replies": [{"text": "z" * 8000, "trickle_s": 0.1}]})
    client = limited(model, 10_000)
    hang_up(client, 1)
    assert 2000 <= settled(client).tokens.total <= 2200


def test_a_step_that_ends_during_a_call_pays_the_reservation(model: ModelServer) -> None:
    model.set({"replies": [{"hang": True}]})
    client = limited(model, 10_000)
    threading.Timer(0.3, client.proxy.end, [client.grant]).start()
    client.ask("POST", "/v1/responses", {**ASK, "max_output_tokens": 3000})
    used = client.used[-1]
    assert used.reserved == 0
    assert used.tokens.total >= 3000
    assert not client.grant.trouble, "the API is not why the step failed"


def test_an_api_that_refuses_costs_nothing(model: ModelServer) -> None:
    model.set({"replies": [{"fail": {"status": 500, "times": 3}}]})
    client = limited(model, 1000)
    assert [client.ask("POST", "/v1/responses", ASK)[0] for _ in range(3)] == [500, 500, 500]
    assert settled(client).tokens.total == 0


def test_a_reservation_of_a_killed_process_counts_as_used() -> None:
    noted: list[ModelUse] = []
    meter = Meter(10_000, ModelUse(), noted.append)
    meter.reserve(WantedCall(100, 25, 4000), lambda: False)
    later = Meter(10_000, noted[-1], noted.append)
    assert later.used.tokens.total == 4100
    assert later.left == 5900


def test_a_call_waits_for_calls_under_way_instead_of_being_refused() -> None:
    meter = Meter(200_000, ModelUse(), lambda used: None)
    first = meter.reserve(WantedCall(100, 25, None), lambda: False)
    got: list[object] = []
    second = threading.Thread(target=lambda: got.append(meter.reserve(WantedCall(100, 25, None), lambda: False)))
    second.start()
    time.sleep(0.3)
    assert not got
    meter.settle(first, Tokens(100, 0, 50))
    second.join(5)
    assert got


def test_a_budget_counts_over_all_turns_and_max_tokens_over_one() -> None:
    account = BudgetAccount(Payer.STEP, SpendLimits(1000))
    for _ in range(3):
        meter = Meter(400, ModelUse(), lambda used: None, (account,))
        reservation = meter.reserve(WantedCall(10, 2, 300), lambda: False)
        assert reservation.output == (300 if account.used.tokens < 700 else reservation.output)
        meter.settle(reservation, Tokens(10, 0, 300))
    with pytest.raises(BudgetExceededError, match=r"930 of the step's budget of 1,000 tokens"):
        Meter(400, ModelUse(), lambda used: None, (account,)).reserve(WantedCall(400, 100, 300), lambda: False)


def test_a_call_that_outlives_its_step_pays_the_reservation_and_no_more(model: ModelServer) -> None:
    client = limited(model, 10_000)
    reserved = client.grant.reserve(Request([b"x"], most_input=100, likely_input=25, output=3000))
    client.proxy.end(client.grant)
    assert client.meter.used.tokens.total == 3100
    client.grant.settle(reserved, Tokens(50, 0, 60))
    assert client.meter.used.tokens.total == 3100


def test_a_call_that_waits_for_its_turn_when_its_step_ends_was_not_refused() -> None:
    noted: list[ModelUse] = []
    meter = Meter(200_000, ModelUse(), noted.append)
    meter.reserve(WantedCall(100, 25, None), lambda: False)
    with pytest.raises(ConnectionResetError):
        meter.reserve(WantedCall(100, 25, None), lambda: True)
    assert (meter.used.refused, meter.used.refused_by) == (0, "")
    assert len(noted) == 1


def test_a_call_that_the_api_never_answers_pays_the_reservation(
    model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An answer without a stream may take the model longer than the proxy waits.
    monkeypatch.setattr(upstream, "ANSWER_LIMIT", 0.3)
    model.set({"replies": [{"hang": True}]})
    client = limited(model, 10_000)
    assert client.error("POST", "/v1/responses", {**ASK, "max_output_tokens": 3000})[:2] == (502, "pccpipe_upstream")
    assert settled(client).tokens.estimated >= 3000
    free = Client(Proxy(), f"{model.url}/v1")
    free.ask("POST", "/v1/responses", {**ASK, "input": "x" * 4000})
    assert 1000 <= settled(free).tokens.estimated <= 1100


def test_a_cut_answer_counts_all_of_its_input(model: ModelServer) -> None:
    model.set({"replies": [{"text": "z" * 400, "cut": {"times": 1}}]})
    client = Client(Proxy(), f"{model.url}/v1")
    client.ask("POST", "/v1/responses", {**ASK, "input": "x" * 40_000})
    assert settled(client).tokens.total >= 10_000


def test_a_client_that_leaves_while_its_call_waits_for_its_turn_costs_no_call(model: ModelServer) -> None:
    model.set({"replies": [{"text": "ok"}]})
    client = limited(model, 10_000)
    first = client.grant.reserve(Request([b"x"], most_input=9000, likely_input=9000, output=900))
    body = json.dumps(ASK).encode()
    connected = client.connect()
    head = f"POST /v1/responses HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {client.tokens['KEY']}\r\n"
    connected.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    time.sleep(0.5)
    connected.close()
    time.sleep(1)
    client.grant.settle(first, Tokens(10, 0, 10))
    assert client.ask("POST", "/v1/responses", ASK)[0] == 200
    time.sleep(0.5)
    assert len(model.requests) == 1
    assert client.meter.used.refused == 0
