"""Habits from other tools: the schema accepts them, but here they do not do what their author means."""

from __future__ import annotations

import re
from collections.abc import Collection

from pccpipe.outcome import Outcome
from pccpipe.spec.problem import did_you_mean

STEP_OUTCOMES = (*(outcome.value for outcome in Outcome), "not_run")
RUN_OUTCOMES = (*(outcome.value for outcome in Outcome if outcome is not Outcome.SKIPPED), "running")

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")

MessageAndHint = tuple[str, str]
"""A message and its hint."""


def of_variable(name: str, value: object) -> MessageAndHint | None:
    """Find a variable whose new value names the old one, as in a shell."""
    if not isinstance(value, str) or not any(name in match.groups() for match in _VARIABLE.finditer(value)):
        return None
    message = f"`${name}` is not expanded here: the command would see it as plain text"
    return message, f'set it on the first line of `run:`: export {name}="{value}"'


def of_comparison(
    chain: tuple[str, ...],
    values: tuple[object, ...],
    statuses: frozenset[str],
    texts: frozenset[str],
    backgrounds: Collection[str] = (),
) -> MessageAndHint | None:
    """Find a comparison that is never true.

    Args:
        chain: the compared name: `("steps", "a", "outcome")`.
        values: the values on the other side.
        statuses: the words of the file's `fails_as:`.
        texts: the names of the matrix whose values are text.
        backgrounds: the ids of the steps that run in the background.
    """
    match chain:
        case ("steps", step, "outcome"):
            known: tuple[str, ...] = (*STEP_OUTCOMES, "running") if step in backgrounds else STEP_OUTCOMES
        case ("run", "outcome"):
            known = RUN_OUTCOMES
        case ("run", "status"):
            known = (*RUN_OUTCOMES, *sorted(statuses))
        case ("matrix", name) if name in texts:
            numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
            if not numbers:
                return None
            message = f"the values of `matrix.{name}` are text, and {numbers[0]} is a number"
            return message, f"write '{numbers[0]}', or `matrix.{name} | float`"
        case _:
            return None
    wrong = next((value for value in values if value not in known), None)
    if wrong is None:
        return None
    what = "an outcome" if chain[-1] == "outcome" else "the status of a run"
    return f"{what} is never `{wrong}`", did_you_mean(str(wrong), known)
