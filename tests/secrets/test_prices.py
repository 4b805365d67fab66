"""Money is estimated by a price file, which an operator may replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.errors import SpecError
from pccpipe.secrets.prices import Price, load_prices
from pccpipe.secrets.proxy.usage import Tokens

OWN = """
as_of: "2026-12-24"
models:
  house-large: {input: 2, cached_input: 0.5, cache_write: 3, output: 10}
  "house-*": {input: 1, output: 4}
"""


def test_the_built_in_prices_have_a_date_and_the_models_of_the_examples() -> None:
    prices = load_prices()
    assert prices.as_of
    for model in ("gpt-5.2-codex", "claude-sonnet-5", "claude-sonnet-4-5-20250929", "gpt-5-2025-08-07"):
        price = prices.of(model)
        assert price, model
        assert price.output > price.input > (price.cached_input or 0) > 0


@pytest.mark.parametrize("model", ["", "gpt-5-20", "gpt-5.2-codex-pro", "claude", "*", "gpt-5-2025-08-07-2025-08-07"])
def test_an_unknown_model_has_no_price(model: str) -> None:
    assert load_prices().of(model) is None


def test_a_file_of_the_operator_replaces_the_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(OWN)
    prices = load_prices(tmp_path / "prices.yaml")
    assert prices.of("house-large") == Price(2, 10, 0.5, 3)
    assert prices.of("house-small") == Price(1, 4)
    assert prices.of("gpt-5.2") is None


@pytest.mark.parametrize("wrong", ["input: -1", "input: .nan", "input: .inf", "input: free", "inputs: 1"])
def test_a_wrong_price_is_a_problem_with_its_place(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "prices.yaml").write_text(OWN.replace("input: 1", wrong))
    with pytest.raises(SpecError, match=r"prices.yaml:5"):
        load_prices(tmp_path / "prices.yaml")


def test_each_kind_of_token_has_its_price() -> None:
    price = Price(2, 10, 0.5, 3)
    assert price.of(Tokens(1000), 0) == 2000
    assert price.of(Tokens(1000, cached_input=600, cache_write_input=300), 0) == 100 * 2 + 600 // 2 + 300 * 3
    assert price.of(Tokens(0, 0, 70), 0) == 700
    # Of tokens by size, the request's are input, and the rest is output.
    assert price.of(Tokens(estimated=100), 80) == 80 * 3 + 20 * 10
    assert Price(2, 10).of(Tokens(1000, cached_input=600, cache_write_input=300), 0) == 2000
    assert price.most(100, 10) == 400
