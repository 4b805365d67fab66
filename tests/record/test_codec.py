from __future__ import annotations

import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccpipe.outcome import Outcome, Stream
from pccpipe.record.codec import UnreadableEventError, decode, encode, kind_of
from pccpipe.record.events import Event, Happening, Output, StepEnded, StepStarted
from pccpipe.record.run_events import RunEnded
from pccpipe.values import Json

text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
st.register_type_strategy(str, text)
st.register_type_strategy(float, numbers)


def happenings() -> st.SearchStrategy[Happening]:
    """Return a strategy for one event of every kind, with anything in its fields."""
    return st.one_of([_of(kind) for kind in typing.get_args(Happening)])


def _of(kind: type) -> st.SearchStrategy[Happening]:
    anything: dict[str, st.SearchStrategy[object]] = {
        "inputs": st.dictionaries(text, json_values, max_size=3),
        "values": st.dictionaries(text, json_values, max_size=3),
        "facts": st.dictionaries(text, json_values, max_size=3),
        "modes": st.dictionaries(text, json_values, max_size=3),
        "tokens": st.dictionaries(text, json_values, max_size=3),
        "token": st.dictionaries(text, json_values, max_size=3),
        "result": json_values,
    }
    hints = typing.get_type_hints(kind)
    chosen = {
        name: anything[name] if name in anything else st.from_type(typing.cast("type[object]", hint))
        for name, hint in hints.items()
    }
    return typing.cast("st.SearchStrategy[Happening]", st.builds(kind, **chosen))


@given(st.integers(0), numbers, happenings())
def test_every_kind_of_event_comes_back_as_it_was(seq: int, time: float, what: Happening) -> None:
    line = encode(Event(seq, time, what))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == Event(seq, round(time, 6), what)


def test_a_line_names_its_kind_in_snake_case() -> None:
    line = json.loads(encode(Event(3, 1.5, StepEnded("a", Outcome.TIMED_OUT, 2.0))))
    assert (line["seq"], line["time"], line["event"], line["outcome"]) == (3, 1.5, "step_ended", "timed_out")
    assert kind_of(Output("a", Stream.STDOUT, "x")) == "output"


@given(happenings(), st.data())
def test_a_torn_line_is_unreadable(what: Happening, data: st.DataObject) -> None:
    line = encode(Event(1, 0.0, what)).rstrip(b"\n")
    cut = data.draw(st.integers(0, len(line) - 1))
    with pytest.raises(UnreadableEventError):
        decode(line[:cut])


def test_a_kind_of_a_newer_version_is_unreadable() -> None:
    with pytest.raises(UnreadableEventError):
        decode('{"seq":1,"time":0,"event":"step_teleported","step":"a"}')


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        '{"seq":1,"time":0,"event":["step_started"]}',
        '{"seq":"1","time":0,"event":"step_started","step":"a","kind":"run"}',
        '{"seq":1,"time":0,"event":"step_started","step":5,"kind":"run"}',
        '{"seq":1,"time":0,"event":"step_started","step":"a","kind":"run","asked":"moon"}',
        '{"seq":1,"time":0,"event":"step_started","step":"a","kind":"run","always":1}',
        '{"seq":1,"time":0,"event":"step_ended","step":"a","outcome":"failed","seconds":"1"}',
        '{"seq":1,"time":0,"event":"command_started","step":"a","attempt":1,"command":"c","had":"x"}',
        '{"seq":1,"time":0,"event":"step_started"}',
    ],
)
def test_a_line_whose_fields_are_of_other_types_is_unreadable(line: str) -> None:
    with pytest.raises(UnreadableEventError):
        decode(line)


def test_fields_that_an_older_version_did_not_write_keep_their_defaults() -> None:
    event = decode('{"seq":1,"time":0,"event":"step_started","step":"a","kind":"run"}')
    assert event.what == StepStarted("a", "run")


def test_fields_that_a_newer_version_added_are_ignored() -> None:
    event = decode(
        '{"seq":1,"time":0,"event":"run_ended","outcome":"failed","status":"x","downgraded":false,"seconds":1,"mood":"sad"}'
    )
    assert event.what == RunEnded(Outcome.FAILED, "x", False, 1.0)


def test_a_number_that_json_cannot_write_becomes_null() -> None:
    line = encode(Event(1, 0.0, StepEnded("a", Outcome.SUCCEEDED, 1.0, result={"x": float("nan")})))
    assert json.loads(line, parse_constant=pytest.fail)["result"] == {"x": None}


def test_a_lone_surrogate_does_not_break_the_journal() -> None:
    event = decode(encode(Event(1, 0.0, StepEnded("a", Outcome.FAILED, 1.0, message="bad \udc80 name"))))
    assert isinstance(event.what, StepEnded)
    assert event.what.message == "bad ? name"
