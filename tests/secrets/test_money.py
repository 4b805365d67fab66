"""Calls are held to budgets of money as to those of tokens: over a turn, a step, a run and a day."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from pccpipe.secrets.prices import MICROS, Price, Prices
from pccpipe.secrets.proxy.accounts import BudgetAccount, Money, Payer, SpendLimits
from pccpipe.secrets.proxy.day import DayAccount
from pccpipe.secrets.proxy.grant import Api, Grant
from pccpipe.secrets.proxy.meter import BudgetExceededError, Meter, ModelUse, Reservation, WantedCall
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.proxy.usage import Tokens
from tests.secrets.test_proxy import ASK, KEY, Client
from tests.secrets.test_spending import hang_up, settled
from tests.testbed.model import ModelServer

PRICES = Prices("2026-11-30", {"m": Price(2, 10, 0.2), "free": Price(0, 0)})


class Spender(Client):
    """A client whose meter has accounts."""

    def __init__(self, base: str, *accounts: BudgetAccount) -> None:
        super().__init__(Proxy(), base)
        self.accounts = accounts
        self.meter = Meter(None, ModelUse(), self.used.append, accounts, prices=PRICES)
        api = Api.at("KEY", KEY, base, ("POST /responses", "GET /models"))
        self.grant = Grant((api,), (), self.meter, self.warnings.append)
        self.tokens = self.proxy.issue(self.grant)


def step(usd: float | None = None, tokens: int | None = None, payer: Payer = Payer.STEP) -> BudgetAccount:
    return BudgetAccount(payer, SpendLimits(tokens, None if usd is None else round(usd * MICROS)))


def meter(*accounts: BudgetAccount, used: ModelUse | None = None, noted: list[ModelUse] | None = None) -> Meter:
    on_use = noted.append if noted is not None else lambda _: None
    return Meter(None, used or ModelUse(), on_use, accounts, prices=PRICES)


def reserve(of: Meter, wanted: WantedCall) -> BudgetExceededError | None:
    try:
        of.reserve(wanted, lambda: True)
    except BudgetExceededError as error:
        return error
    return None


@pytest.mark.parametrize("payer", [Payer.STEP, Payer.RUN])
def test_fifty_calls_in_parallel_do_not_exceed_a_small_budget_of_money(model: ModelServer, payer: Payer) -> None:
    # Each call takes all that it may: 1,000 tokens of input and 400 of output are 0.006 USD.
    model.set({"replies": [{"text": "ok", "delay_s": 0.03, "usage": {"input_tokens": 1000, "output_tokens": 400}}]})
    client = Spender(f"{model.url}/v1", step(0.049, payer=payer))
    ask = {**ASK, "input": "hello " * 600, "max_output_tokens": 400}
    threads = [threading.Thread(target=client.ask, args=("POST", "/v1/responses", ask)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = settled(client)
    assert used.micros is not None
    assert 0.049 * MICROS - 2 * 6000 <= used.micros <= 0.049 * MICROS
    assert (used.refused, used.refused_by) == (50 - used.calls, f"{payer.name.lower()}.usd")
    assert client.accounts[0].used == Money(used.tokens.total, used.micros)
    assert client.accounts[0].reserved == Money()


def test_two_runs_in_parallel_do_not_exceed_the_budget_of_the_day(model: ModelServer, tmp_path: Path) -> None:
    model.set({"replies": [{"text": "ok", "delay_s": 0.03, "usage": {"input_tokens": 1000, "output_tokens": 400}}]})
    limits = SpendLimits(None, round(0.049 * MICROS))
    clients = [Spender(f"{model.url}/v1", step(), DayAccount(tmp_path / "p", limits, f"r{number}")) for number in "12"]
    ask = {**ASK, "input": "hello " * 600, "max_output_tokens": 400}
    threads = [
        threading.Thread(target=client.ask, args=("POST", "/v1/responses", ask))
        for client in clients
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    uses = [settled(client) for client in clients]
    spent = sum(used.micros or 0 for used in uses)
    assert 0.049 * MICROS - 3 * 6000 <= spent <= 0.049 * MICROS
    later = DayAccount(tmp_path / "p", limits, "r3")
    with later.held():
        assert later.used == Money(sum(used.tokens.total for used in uses), spent)


def test_a_call_waits_for_one_of_another_run_that_reserves_the_rest_of_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = SpendLimits(100_000)
    one, other = (meter(DayAccount(tmp_path / "p", limits, f"r{number}")) for number in "12")
    wanted = WantedCall(100, 25, None, model="m")
    first = one.reserve(wanted, lambda: False)
    assert first.tokens == 100_000, "alone, it may take all"
    got: list[Reservation] = []
    second = threading.Thread(target=lambda: got.append(other.reserve(wanted, lambda: False)))
    second.start()
    time.sleep(0.3)
    assert not got
    one.settle(first, Tokens(100, 0, 50))
    second.join(5)
    assert got[0].tokens == 99_850
    # A process that is stopped does not stop the others.
    monkeypatch.setattr("pccpipe.secrets.proxy.meter.OTHERS_LIMIT", 0.3)
    with pytest.raises(BudgetExceededError, match="the project's budget of the day"):
        one.reserve(wanted, lambda: False)


def test_a_refusal_names_the_budget_and_how_to_raise_it(model: ModelServer) -> None:
    client = Spender(f"{model.url}/v1", step(0.01), step(5.0, payer=Payer.RUN))
    status, code, message = client.error("POST", "/v1/responses", {**ASK, "input": "x" * 40_000})
    assert (status, code) == (400, "budget_exceeded")
    assert "about 0.00 USD of the step's budget of 0.01 USD" in message
    assert "the call needs about 0.02" in message
    assert "fix: raise `budget: usd` of the step" in message
    assert not model.requests


def test_a_model_without_a_price_is_refused_only_with_a_budget_of_money(model: ModelServer) -> None:
    limited, unlimited = Spender(f"{model.url}/v1", step(1.0)), Spender(f"{model.url}/v1", step(tokens=10**6))
    ask = {**ASK, "model": "strange"}
    status, code, message = limited.error("POST", "/v1/responses", ask)
    assert (status, code) == (400, "budget_exceeded")
    assert "'strange' has no price" in message
    assert "`prices:` in the project file" in message
    assert limited.used[-1].refused_by == "prices"
    assert limited.ask("GET", "/v1/models")[0] == 200
    assert unlimited.ask("POST", "/v1/responses", ask)[0] == 200
    assert unlimited.used[-1].micros is None
    assert unlimited.ask("POST", "/v1/responses", ASK)[0] == 200
    assert unlimited.used[-1].micros is None


def test_a_free_model_has_a_budget_of_money_too() -> None:
    assert reserve(meter(step(0.0001)), WantedCall(10**6, 250_000, 1000, model="free")) is None


def test_the_price_is_that_of_the_answers_usage(model: ModelServer) -> None:
    usage = {"input_tokens": 1000, "cached_tokens": 600, "output_tokens": 50}
    model.set({"replies": [{"text": "ok", "usage": usage}]})
    client = Spender(f"{model.url}/v1", step(1.0))
    client.ask("POST", "/v1/responses", ASK)
    used = settled(client)
    assert used.micros == 400 * 2 + 600 * 0.2 + 50 * 10
    assert used.reserved_micros == 0


def test_a_client_that_hangs_up_pays_the_money_too(model: ModelServer) -> None:
    model.set({"replies": [{"text": "z" * 800, "usage": {"input_tokens": 900, "output_tokens": 2000}}]})
    client = Spender(f"{model.url}/v1", step(1.0))
    hang_up(client, 2)
    assert settled(client).micros == 2 * (900 * 2 + 2000 * 10)


def test_a_step_that_ends_during_a_call_pays_all_of_its_reservation(model: ModelServer) -> None:
    model.set({"replies": [{"hang": True}]})
    account = step(1.0)
    client = Spender(f"{model.url}/v1", account)
    threading.Timer(0.3, client.proxy.end, [client.grant]).start()
    client.ask("POST", "/v1/responses", {**ASK, "max_output_tokens": 3000})
    used = client.used[-1]
    assert used.micros is not None
    assert used.micros >= 30_000
    assert (used.reserved, used.reserved_micros) == (0, 0)
    assert (account.used.micros, account.reserved, account.calls) == (used.micros, Money(), 0)


@pytest.mark.parametrize("usage", [{}, {"input_tokens": -5, "output_tokens": 10**30}])
def test_an_answer_without_usable_usage_is_not_free(model: ModelServer, usage: dict[str, object]) -> None:
    client = Spender(f"{model.url}/v1", step(1.0))
    model.set({"replies": [{"text": "z" * 4000, "usage": usage}]})
    client.ask("POST", "/v1/responses", {**ASK, "input": "x" * 4000})
    used = settled(client)
    assert used.calls == 1
    assert (used.micros or 0) > 0
    assert used.tokens.total > 0


def test_huge_usage_uses_up_the_budget_and_no_more_calls_go_out(model: ModelServer) -> None:
    model.set({"replies": [{"text": "ok", "usage": {"input_tokens": 10**11, "output_tokens": 1}}]})
    client = Spender(f"{model.url}/v1", step(1.0))
    assert client.ask("POST", "/v1/responses", ASK)[0] == 200
    assert client.ask("POST", "/v1/responses", ASK)[0] == 400
    assert len(model.requests) == 1
    assert client.meter.is_overdrawn


def test_a_reservation_of_a_killed_process_costs_money() -> None:
    noted: list[ModelUse] = []
    first = meter(step(1.0), noted=noted)
    first.reserve(WantedCall(100, 25, 400, model="m"), lambda: False)
    assert noted[-1].reserved_micros == 100 * 2 + 400 * 10
    later = meter(step(1.0), used=noted[-1])
    assert later.used.micros == 4200
    assert later.used.reserved_micros == 0


def test_equal_calls_at_the_same_time_settle_one_by_one() -> None:
    account = step(1.0)
    of = meter(account)
    wanted = WantedCall(100, 25, 400, model="m")
    one, two = of.reserve(wanted, lambda: False), of.reserve(wanted, lambda: False)
    of.settle(one, Tokens(10))
    of.settle(one, Tokens(10))
    assert (account.reserved.micros, account.calls) == (4200, 1)
    of.settle(two, Tokens(10))
    assert (account.used.micros, account.reserved, account.calls) == (40, Money(), 0)


@pytest.mark.parametrize("is_full", [True, False])
def test_a_day_that_cannot_be_written_refuses_the_call_and_reserves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_full: bool
) -> None:
    if is_full:
        monkeypatch.setattr(os, "write", lambda fd, data: 0)
    else:
        (tmp_path / "p").write_text("not a folder")
    account = step(1.0)
    of = meter(account, DayAccount(tmp_path / "p", SpendLimits(100), "r"))
    error = reserve(of, WantedCall(10, 2, 20, model="m"))
    monkeypatch.undo()
    assert "the account of the project's day cannot be kept" in str(error)
    assert (account.reserved, account.calls) == (Money(), 0)
    assert of.used.refused == 1


def test_a_call_waits_for_calls_of_another_step_of_the_run() -> None:
    run, lock = step(0.03, payer=Payer.RUN), threading.Condition()
    one = Meter(None, ModelUse(), lambda _: None, (step(), run), lock, PRICES)
    two = Meter(None, ModelUse(), lambda _: None, (step(), run), lock, PRICES)
    wanted = WantedCall(100, 25, 2000, model="m")
    first = one.reserve(wanted, lambda: False)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(two.reserve(wanted, lambda: False)))
    thread.start()
    thread.join(0.3)
    assert not got
    one.settle(first, Tokens(100, 0, 50))
    thread.join(5)
    assert len(got) == 1


def test_a_call_that_asks_for_one_token_gets_it() -> None:
    of = meter(step(0.001))
    assert of.reserve(WantedCall(10, 2, 1, model="m"), lambda: False).output == 1


def test_the_name_of_a_model_does_not_break_the_words() -> None:
    error = reserve(meter(step(1.0)), WantedCall(1, 1, 16, model="\x1b[2J" + "x" * 10**6))
    assert error
    assert json.dumps(str(error)).count("x") < 300
    assert "\x1b" not in str(error)
