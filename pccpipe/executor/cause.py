"""Say why a group or a run did not succeed: name the step, the round and the cause."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.executor.context import StepOutcome
from pccpipe.executor.scope import StepView
from pccpipe.outcome import Code, Outcome
from pccpipe.spec.absent import NoResult
from pccpipe.spec.model import Repeat

_FAILED = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.UNAVAILABLE, Outcome.LOST})
_RED = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
_READS = re.compile(r"\bsteps\.(\w+)\.result((?:\.\w+)*)")
_LONGEST_VALUE = 100


def name_failed_step(ended: StepOutcome, where: str = "") -> StepOutcome:
    """Name in the message the step that ended a sequence: `build failed in round 1: exit code 1`.

    Args:
        where: the round, for a `repeat`: ` in round 1`.
    """
    if not ended.at or ended.outcome not in _FAILED:
        return ended
    outcome = ended.outcome.value.replace("_", " ")
    because = f": {ended.message}" if ended.message else ""
    return replace(ended, message=f"{ended.at} {outcome}{where}{because}", at="")


def rounds_exhausted(body: Repeat, fails_as: str | None, rounds: int, views: Mapping[str, StepView]) -> StepOutcome:
    """Return the outcome of a `repeat` that ran out of rounds: why its condition was not true after the last one.

    If a step failed, so that the steps did not run that the condition reads, the status is not its `fails_as`: no
    reviewer said no.
    """
    assert body.until is not None
    source = body.until.source
    goal = fails_as.replace("_", " ") if fails_as else f"`{source}` did not become true"
    failed = [_failure(step.id, views[step.id]) for step in body.steps if views[step.id].outcome in _FAILED]
    read = {match[1]: match[2] for match in _READS.finditer(source)}
    skipped = [id_ for id_ in read if id_ in views and views[id_].outcome == Outcome.SKIPPED]
    text = f"{goal} after {rounds} of {rounds} rounds"
    ended = StepOutcome(Outcome.FAILED, message=text, fails_as=fails_as, at="")
    if failed:
        is_red = any(views[step.id].outcome in _RED for step in body.steps)
        code = Code.TESTS_FAILED if is_red else None
        text += f": in round {rounds} {', '.join(failed)}"
        if skipped:
            text += f", so {', '.join(skipped)} did not run"
            fails_as = code.value if code and fails_as else None
        return replace(ended, message=text, code=code, fails_as=fails_as)
    if skipped:
        return replace(ended, message=f"{text}: in round {rounds} {', '.join(skipped)} was skipped")
    given = [_value(id_, keys, views[id_]) for id_, keys in read.items() if id_ in views]
    if given:
        return replace(ended, message=f"{text}: in round {rounds} {', '.join(given)}", code=Code.CHANGES_REQUESTED)
    return ended


def _failure(id_: str, view: StepView) -> str:
    code = f" (exit code {view.exit_code})" if view.exit_code else ""
    return f"{id_} {str(view.outcome).replace('_', ' ')}{code}"


def _value(id_: str, keys: str, view: StepView) -> str:
    """Quote from a step's result the value that the condition reads: `review gave status "rejected"`."""
    value: object = view.result
    if isinstance(value, NoResult):
        return f"{id_} gave no result"
    names = keys.split(".")[1:]
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            return f"{id_} gave no {'.'.join(names)}"
        value = value[name]
    text = json.dumps(value, ensure_ascii=False, default=str)
    shown = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
    return f"{id_} gave {'.'.join(names) or 'the result'} {shown}"
