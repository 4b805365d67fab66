"""Finds contradictions in a step's `retry:`."""

from __future__ import annotations

from pccpipe.spec import units
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.position import KeyPath
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json


def check_retry(values: ValueChecker, path: KeyPath, retry: Json) -> None:
    """Find exit codes of an outcome that is not retried, and a longest wait below the first one."""
    spec = mapping(retry)
    if "exit_codes" in spec and "on" in spec and "failed" not in listed(spec["on"]):
        message = "`exit_codes` has no effect: `on` does not name `failed`"
        values.say((*path, "exit_codes"), message, "add `failed` to `on:`, or leave out `on:`", at_key=True)
    first, longest = (_seconds(spec.get(key)) for key in ("backoff", "max_backoff"))
    first = 1.0 if "backoff" not in spec else first
    if first is not None and longest is not None and longest < first:
        message = f"`max_backoff` is shorter than the first wait, {first:g} s"
        values.say((*path, "max_backoff"), message, "set a longer one, or a shorter `backoff:`")


def _seconds(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return units.seconds(value)
    except ValueError:
        return None
