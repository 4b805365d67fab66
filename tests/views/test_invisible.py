"""No view hides or reorders a stranger's text."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest

from pccpipe.record.events import Event, Happening, InputAsked
from pccpipe.record.run_events import RunWaiting
from pccpipe.record.state import RunState
from pccpipe.spec.position import Position
from pccpipe.spec.problem import Problem, Rule
from pccpipe.views.board import final_board
from pccpipe.views.plain import PlainView
from pccpipe.views.problems import ProblemFormat, shown
from pccpipe.views.show import show_text
from pccpipe.views.summary import summary
from tests.record.script import START, default_run, events, failed_run

HIDDEN = "\u202e\u200b\U000e0041\u2066\u3164\ufe0f\x1b[2J\x9b"
# Made by pccpipe itself: names that the reader of pipelines checks, and fields by which views find things.
OWN = {"path", "key", "stream", "step", "start", "stdout", "stderr", "action", "kind", "run_id", "status", "steps"}


def tainted(value: object) -> object:
    """Give every text in an event the hidden characters, unless pccpipe itself made it."""
    match value:
        case str() if type(value) is str:
            return f"{value}{HIDDEN}."
        case list() | tuple():
            return type(value)(tainted(item) for item in value)
        case dict():
            return {key: tainted(item) for key, item in value.items()}
        case msgspec.Struct():
            fields = {name: getattr(value, name) for name in value.__struct_fields__ if name not in OWN}
            return msgspec.structs.replace(value, **{name: tainted(item) for name, item in fields.items()})
        case _:
            return value


def tainted_events(happenings: list[Happening]) -> list[Event]:
    return [msgspec.structs.replace(event, what=tainted(event.what)) for event in events(happenings)]


def asking() -> list[Happening]:
    asked = {f"host{HIDDEN}": "where it is"}
    return [*failed_run()[:-1], InputAsked("test", "a host", "to guess", asked), RunWaiting("for a person")]


RUNS = {"default": default_run(), "failed": failed_run(), "asking": asking()}


@pytest.mark.parametrize("name", RUNS)
def test_no_view_of_a_run_has_invisible_characters(name: str, tmp_path: Path) -> None:
    made = tainted_events(RUNS[name])
    state = RunState()
    for event in made:
        state.apply(event)
    out = io.StringIO()
    view = PlainView(out, tmp_path)
    for event in made:
        view(event)
    texts = {
        "show": "\n".join(show_text(state, tmp_path)),
        "summary": "\n".join(summary(state, tmp_path, lambda _: [])),
        "board": "\n".join("".join(text for text, _ in line) for line in final_board(state, START, 400)),
        "plain": out.getvalue(),
    }
    for where, text in texts.items():
        assert "\\u202e" in text, where
        assert not [line for line in text.split("\n") if any(character in line for character in HIDDEN[:6])], where
        assert "\x1b" not in text, where
        assert "\x9b" not in text, where


def test_an_annotation_has_no_invisible_characters() -> None:
    problem = Problem(Position("a\u202e.yaml", 1, 1), Rule.MEANING, "no step \u200bb", "did you mean \u2066c?")
    text = shown([problem], ProblemFormat.GITHUB)
    assert "\\u202e" in text
    assert text.isascii()
