"""Which legs a matrix has: combinations, what GitHub Actions' rules add and remove, and what a stranger may give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccpipe.errors import ExpressionError, SpecError, UsageError
from pccpipe.record.step_path import parent, split
from pccpipe.spec.expression import Expression
from pccpipe.spec.inputs import Repeated, resolve_inputs
from pccpipe.spec.load import load_text
from pccpipe.spec.matrix import Leg, Matrix, combined, label, labels
from pccpipe.spec.position import Position
from pccpipe.values import Json

FRUIT = {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}


def legs_of(text: str, folder: Path) -> tuple[Leg, ...]:
    pipeline = load_text(f"version: 1\nname: x\nsteps: [{{id: a, run: x, matrix: {text}}}]\n", folder)
    matrix = pipeline.steps[0].matrix
    assert matrix
    assert matrix.known is not None
    return matrix.known


def of_result(data: object) -> tuple[Leg, ...]:
    whole = Expression("${{ steps.plan.result }}", Position("p.yaml", 1, 1))
    return Matrix(whole=whole).legs({"steps": {"plan": {"result": data}}})


def test_the_example_of_githubs_documentation_gives_its_legs() -> None:
    include: list[Leg] = [
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert combined(FRUIT, include, ()) == (
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    )


def test_an_entry_of_exclude_removes_all_that_match_and_include_comes_after_it() -> None:
    left = combined(FRUIT, [{"fruit": "apple", "animal": "cat", "why": "again"}], [{"fruit": "apple"}])
    assert left == (
        {"fruit": "pear", "animal": "cat"},
        {"fruit": "pear", "animal": "dog"},
        {"fruit": "apple", "animal": "cat", "why": "again"},
    )


def test_a_matrix_of_include_alone_has_a_leg_for_each_entry(tmp_path: Path) -> None:
    assert legs_of("{include: [{a: 42}, {a: foo, b: true}]}", tmp_path) == ({"a": 42}, {"a": "foo", "b": True})


def test_values_of_a_name_are_all_texts_if_one_is_no_canonical_number(tmp_path: Path) -> None:
    text = "{go: [1.19, 20], include: [{go: 1.20, race: 1.0}, {go: 20, race: 2}], exclude: [{go: 1.19}]}"
    assert legs_of(text, tmp_path) == ({"go": "20", "race": 2}, {"go": "1.20", "race": 1.0})
    assert legs_of("{go: [1.5, 20], exclude: [{go: '20'}]}", tmp_path) == ({"go": 1.5},)


def test_a_result_gives_a_mapping_as_in_the_file_or_a_list_of_legs() -> None:
    whole = {"node": [18, 20], "os": ["a"], "exclude": [{"node": 18}], "include": [{"node": 22, "os": "b", "x": True}]}
    legs = ({"node": 20, "os": "a"}, {"node": 22, "os": "b", "x": True})
    assert of_result(whole) == legs
    assert of_result(list(legs)) == legs
    assert of_result({"node": []}) == of_result([]) == of_result({}) == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "a matrix must be a mapping or a list of legs, not nothing"),
        ("[1]", "a matrix must be a mapping or a list of legs, not the text `[1]`"),
        ({"node": "18"}, "`node` must be a list, not the text `18`"),
        ({"node": [{"a": 1}]}, "a value of `node` must be text, a number, true or false, not a mapping"),
        ({"node": [None]}, "a value of `node` must be text, a number, true or false, not nothing"),
        ({"node": [2**64]}, "a value of `node` must be"),
        ({"node": [float("nan")]}, "a value of `node` must be"),
        ({"node": ["\ud800"]}, "a value of `node` must be"),
        ({"node": ["a\0b"]}, "a value of `node` must be"),
        ({"no de": [1]}, "invalid name of a matrix's value: the text `no de`"),
        ({"a\n": [1]}, "invalid name of a matrix's value: this text"),
        ([{"include": 1}], "invalid name of a matrix's value: the text `include`"),
        ([1], "the matrix must be a list of mappings such as {node: 20}, not this list"),
        ([{}], "the matrix must be a list of mappings"),
        ({"node": [1], "include": {"a": 1}}, "include must be a list of mappings"),
        ({"node": [1, "1"]}, "two legs have the same values: node=1"),
        ([{"a": 1}, {"a": 1}], "two legs have the same values: a=1"),
        ({"node": list(range(257))}, "the number of a matrix's legs exceeds the limit of 256"),
        ({name: list(range(10)) for name in "abcdefghijklmnopqrst"}, "the number of a matrix's legs exceeds"),
        ({"a": list(range(17)), "b": list(range(17))}, "the number of a matrix's legs exceeds"),
        ({"a": [1, 2] * 32, "b": [1, 2] * 50} | {f"k{i}": [1] for i in range(400)}, "the work on a matrix"),
        ({"a": [1, 2] * 999, "include": [{f"k{i}": 1} for i in range(256)], "exclude": [{"a": 3}]}, "the work on a"),
        ({"a": ["x" * 100_001]}, "the text of a matrix's legs exceeds the limit of 100,000"),
        ({"a": ["x" * 9000, "y" * 9000], "b": list(range(100))}, "the text of a matrix's legs exceeds"),
    ],
)
def test_what_a_stranger_gives_that_is_no_matrix_is_refused(data: Json, words: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        of_result(data)
    assert raised.value.message.startswith(words)


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "include", "exclude", "", "a b"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(DATA)
def test_no_data_of_a_stranger_does_more_than_give_legs_or_an_error(data: object) -> None:
    try:
        legs = of_result(data)
    except ExpressionError:
        return
    assert all(isinstance(value, str | int | float) for leg in legs for value in leg.values())
    assert len({label(leg) for leg in legs}) == len(legs)


def test_a_label_is_the_values_unless_they_could_end_it() -> None:
    assert label({"node": 20, "os": "debian:12/slim", "flag": "-DX=1"}) == "node=20,os=debian:12/slim,flag=-DX=1"
    assert label({"a": "1].x[b=2"}).startswith("a=1_.x_b=2~")
    assert label({"a": "1,b=2"}) != label({"a": "1_b=2"}) != label({"a": 1, "b": 2})
    assert "\n" not in label({"a": "x\ny\x1b[31m\u202e"})
    assert len(label({"a": "x" * 10_000})) < 250


def test_the_names_of_legs_leave_out_what_include_adds_if_the_rest_tells_them_apart() -> None:
    values: dict[str, tuple[int, ...]] = {"a": (1, 2)}
    added = Matrix(values, include=({"a": 1, "port": 80}, {"a": 3, "port": 81}))
    assert labels(added, added.legs({})) == ["a=1", "a=2", "a=3"]
    alike = Matrix(values, include=({"a": 3, "port": 80}, {"a": 3, "port": 81}))
    assert labels(alike, alike.legs({})) == ["a=1", "a=2", "a=3,port=80", "a=3,port=81"]
    other = Matrix(values, include=({"port": 80}, {"name": "x"}))
    assert labels(other, other.legs({})) == ["a=1", "a=2"]


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=300), min_size=1))
def test_no_value_makes_another_path_of_its_label(leg: dict[str, str]) -> None:
    path = f"group.unit[{label(leg)}].inner"
    assert split(path) == ("group", "unit", f"[{label(leg)}]", "inner")
    assert parent(path) == f"group.unit[{label(leg)}]"
    assert path.isprintable()


INPUTS = "version: 1\nname: x\ninputs: {v: {type: list%s}, s: {type: string, default: a}}\nsteps: [{id: a, run: x}]\n"


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("18,20", [18, 20]),
        (" 18 , lts ", [18, "lts"]),
        ("1.20,18", ["1.20", "18"]),
        ("[18, 20]", [18, 20]),
        ('[1.20, "x", 3]', ["1.20", "x", "3"]),
        ('["18", true]', ["18", True]),
        ("true,x", [True, "x"]),
        ("", []),
        ("a", ["a"]),
        (Repeated(["18", "20"]), [18, 20]),
        ([18, "20"], [18, "20"]),
    ],
)
def test_an_input_that_is_a_list(given: Json, value: Json, tmp_path: Path) -> None:
    pipeline = load_text(INPUTS % "", tmp_path)
    assert resolve_inputs(pipeline, {"v": given})["v"] == value


def test_a_default_list_keeps_the_authors_text(tmp_path: Path) -> None:
    pipeline = load_text(INPUTS % ", default: [1.20, 18]", tmp_path)
    assert resolve_inputs(pipeline, {})["v"] == ["1.20", "18"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"v": "[1,"}, 'must be a list, not "[1,"'),
        ({"v": "[" * 100_000}, "must be a list, not"),
        ({"v": '{"a": 1}'}, None),
        ({"v": "[[1]]"}, "must be a list of texts, numbers, true or false"),
        ({"v": "[NaN]"}, None),
        ({"v": 5}, "must be a list, not 5"),
        ({"v": "a", "s": Repeated(["a", "b"])}, "the input `s` is given twice"),
        ({"v": "a", "s": ["a"]}, "the input `s` must be text"),
    ],
)
def test_what_is_no_list_is_refused(given: dict[str, Json], words: str | None, tmp_path: Path) -> None:
    pipeline = load_text(INPUTS % "", tmp_path)
    if words is None:
        assert all(isinstance(each, str) for each in resolve_inputs(pipeline, given)["v"])  # type: ignore[union-attr]
        return
    with pytest.raises(UsageError, match="input") as raised:
        resolve_inputs(pipeline, given)
    assert words in raised.value.message


def test_the_choices_of_a_list_are_those_of_each_value(tmp_path: Path) -> None:
    pipeline = load_text(INPUTS % ", enum: [18, 20]", tmp_path)
    assert resolve_inputs(pipeline, {"v": "18"})["v"] == [18]
    with pytest.raises(UsageError, match="may have 18, 20, not 22"):
        resolve_inputs(pipeline, {"v": "18,22"})
    with pytest.raises(SpecError, match="the default of the input `v` may have"):
        load_text(INPUTS % ", enum: [18], default: [19]", tmp_path)


def test_a_written_matrix_may_not_take_more_work_than_one_of_a_stranger(tmp_path: Path) -> None:
    values = ", ".join(f"{name}: [1, 2, 3, 4, 5, 6, 7, 8]" for name in "abcd")
    further = ", ".join(f"{{a: 9, k{number}: 1}}" for number in range(200))
    with pytest.raises(SpecError) as raised:
        legs_of(f"{{{values}, include: [{further}]}}", tmp_path)
    assert "the work on a matrix: its combinations times all names in it exceeds" in str(raised.value)
