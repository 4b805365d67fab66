"""Compares a run with what a case expects, in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pccpipe import limits
from pccpipe.outcome import Outcome
from pccpipe.record.state import RunState
from pccpipe.record.step_state import StepState
from pccpipe.scripted.case import Expectation
from pccpipe.scripted.dialect import compact
from pccpipe.scripted.script import Script, id_of, names_of
from pccpipe.values import Json, cut

_SHOWN = 200
"""Characters of a value in a sentence."""
_FILE = re.compile(r'^diff --git "?[ab]/.* "?b/([^"\n]*)"?$', re.MULTILINE)
_ABSENT = "absent"


def differences(expect: Expectation, state: RunState | None, script: Script, record: Path) -> tuple[str, ...]:
    """Return a sentence for each expectation that does not hold, and for each prompt without a turn."""
    if state is None:
        return ("the run left no record",)
    return (
        *script.unscripted,
        *_of_the_run(expect, state),
        *_of_steps(expect, state),
        *_of_the_model(expect, script),
        *_of_the_diff(expect, state, record),
    )


def _of_the_run(expect: Expectation, state: RunState) -> Iterator[str]:
    outcome = state.outcome.value if state.outcome else "none"
    wanted = expect.outcome or (None if expect.status else Outcome.SUCCEEDED.value)
    why = f" ({state.message})" if state.message else ""
    if wanted not in {None, outcome}:
        yield f"outcome: expected {wanted}, not {outcome}{why}"
    if expect.status not in {None, state.status}:
        yield f"status: expected {expect.status}, not {state.status}{why}"
    code = state.code.value if state.code else "none"
    if expect.code not in {None, code}:
        yield f"code: expected {expect.code}, not {code}{why}"
    if expect.message is not None and expect.message not in state.message:
        yield f"message: expected {_shown(expect.message)} in {_shown(state.message)}"
    downgraded = {id_of(each.step) for each in state.downgrades}
    for name in sorted(downgraded ^ set(expect.downgraded)):
        yield f"downgraded: {name} was {'' if name in downgraded else 'not '}downgraded"
    if expect.warnings is not None:
        for warning in state.warnings:
            if not any(part in warning for part in expect.warnings):
                yield f"warnings: did not expect {_shown(warning)}"
        for part in expect.warnings:
            if not any(part in warning for warning in state.warnings):
                yield f"warnings: expected {_shown(part)}"


def _of_steps(expect: Expectation, state: RunState) -> Iterator[str]:
    for name, outcome in expect.steps.items():
        step = _step(state, name)
        actual = step.outcome.value if step and step.outcome else _ABSENT
        if actual != outcome:
            why = f" ({step.message})" if step and step.message else ""
            yield f"steps: {name}: expected {outcome}, not {actual}{why}"
    for name, agent in expect.agents.items():
        step = _step(state, name)
        attempts = [attempt.started.agent for attempt in step.attempts if attempt.started] if step else []
        last = attempts[-1] if attempts else "none"
        if last != agent:
            yield f"agents: {name}: expected {agent}, not {last or 'none'}"
    for name, rounds in expect.rounds.items():
        step = _step(state, name)
        actual_rounds = (step.round or 0) if step else 0
        if actual_rounds != rounds:
            yield f"rounds: {name}: expected {rounds}, not {actual_rounds}"
    for name, wanted in expect.results.items():
        step = _step(state, name)
        result = step.ended.result if step and step.ended else None
        if not _has(result, wanted):
            yield f"results: {name}: expected {_shown(compact(wanted))} in {_shown(compact(result))}"


def _of_the_model(expect: Expectation, script: Script) -> Iterator[str]:
    for name, calls in expect.calls.items():
        actual = sum(count for path, count in script.calls.items() if name in names_of(path))
        if actual != calls:
            yield f"calls: {name}: expected {calls} of the model, not {actual}"
    for name, texts in expect.prompts.items():
        prompts = [prompt for path, given in script.prompts.items() if name in names_of(path) for prompt in given]
        for text in texts:
            if not any(text in prompt for prompt in prompts):
                yield f"prompts: {name}: expected {_shown(text)} in one of its {len(prompts)} prompts"


def _of_the_diff(expect: Expectation, state: RunState, record: Path) -> Iterator[str]:
    if expect.changed is None and not expect.patch:
        return
    paths = [step.facts["path"] for step in state.steps.values() if step.kind == "diff" and "path" in step.facts]
    file = record / str(paths[-1]) if paths else None
    if file is None or not file.is_file():
        yield "changed: the run has no `diff:`"
        return
    with file.open("rb") as patch:
        text = patch.read(limits.FILE_INPUT.most).decode(errors="replace")
    changed = set(_FILE.findall(text))
    for name in sorted(changed ^ set(expect.changed if expect.changed is not None else changed)):
        yield f"changed: {name} {'changed' if name in changed else 'did not change'}"
    for part in expect.patch:
        if part not in text:
            yield f"patch: expected {_shown(part)} in {paths[-1]}"


def _step(state: RunState, name: str) -> StepState | None:
    """Return the last turn of a step."""
    return next((step for path, step in reversed(state.steps.items()) if name in names_of(path)), None)


def _has(actual: Json, wanted: Json) -> bool:
    """Say whether a value has all that is wanted: of a mapping, the keys that are named."""
    if isinstance(wanted, Mapping):
        return isinstance(actual, dict) and all(key in actual and _has(actual[key], wanted[key]) for key in wanted)
    return actual == wanted


def _shown(text: str) -> str:
    return repr(cut(text, _SHOWN))
