"""Checks and builds the budgets of a step and of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pccpipe.spec import units
from pccpipe.spec.expression import Expression
from pccpipe.spec.model import Budget, Value
from pccpipe.spec.names import Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.source import Source
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json

_FIX = "set `via: proxy` for the model's key, and list it in the step's `secrets:`"


def build_budget(source: Source, path: KeyPath, data: Mapping[str, Json]) -> Budget:
    """Return the budget at a path of a pipeline without problems."""

    def expression(key: str) -> Expression | None:
        text = data[key]
        is_expression = isinstance(text, str) and "${{" in text
        return Expression(str(text), source.of_value((*path, key))) if is_expression else None

    tokens: Value[int] | None = None
    usd: Value[float] | None = None
    if "tokens" in data:
        later = expression("tokens")
        tokens = Value(expression=later) if later else Value(units.tokens(cast("str | int", data["tokens"])))
    if "usd" in data:
        later = expression("usd")
        usd = Value(expression=later) if later else Value(float(cast("float", data["usd"])))
    return Budget(tokens, usd, asks=data.get("at_end") == "ask")


def check_budget(values: ValueChecker, path: KeyPath, data: Json, visible: Visible) -> None:
    """Check the expressions of a budget."""
    if isinstance(data, dict):
        for key in ("tokens", "usd"):
            values.expression_or_plain((*path, key), data.get(key), visible)


def check_counted(values: ValueChecker, path: KeyPath, key: str, whose: str) -> None:
    """Report a limit of calls that nothing counts."""
    message = f"`{key}` has no effect: no secret of {whose} goes through the proxy"
    values.say((*path, key), message, _FIX, at_key=True)
