"""Expressions: types, strictness, the sandbox, and values that never become shell code."""

from __future__ import annotations

import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pccpipe.errors import ExpressionError
from pccpipe.spec import jinja
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.position import Position
from pccpipe.spec.shell_text import misplaced_value

AT = Position("p.yaml", 3, 7)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


def evaluate(source: str, **scope: object) -> object:
    return Expression(source, AT).evaluate(scope)


@pytest.mark.parametrize(
    ("source", "value"),
    [("n", 5), ("${{ n }}", 5), ("n == 5 and s == 'x'", True), ("items", [1]), ("m.items", "own"), ("m['keys']", None)],
)
def test_a_lone_expression_keeps_its_type(source: str, value: object) -> None:
    scope = {"n": 5, "s": "x", "items": [1], "m": {"items": "own", "keys": None}}
    assert Expression(source, AT).evaluate(scope) == value


@pytest.mark.parametrize("source", ["nothing", "m.nothing", "m.a.b", "steps.x.outcome"])
def test_an_undefined_name_is_an_error_with_its_position(source: str) -> None:
    with pytest.raises(ExpressionError, match=r"^p\.yaml:3:7: "):
        evaluate(source, m={"a": {}}, steps={})


@pytest.mark.parametrize(
    "source",
    [
        "m.__class__",
        "''.__class__.__mro__",
        "'a' * 10**9",
        "10 ** 10 ** 10",
        "'%099999999d' % 1",
        "range(10**9)",
        "'a'.ljust(10**9)",
        "'{:>999999999}'.format(1)",
        "[1] * 10**9",
        "1 / 0",
    ],
)
def test_a_costly_or_escaping_expression_is_refused_at_once(source: str) -> None:
    began = time.monotonic()
    with pytest.raises(ExpressionError):
        evaluate(source, m={})
    assert time.monotonic() - began < 1


def test_other_tools_braces_are_plain_text() -> None:
    text = "docker ps --format '{{.Names}}'; echo ${#a[@]} ${x} $(y) {% z %} {# c #}"
    assert Template(text, AT).render_for_shell({}) == text


def test_values_are_shown_as_yaml_and_json_write_them() -> None:
    text = Template("${{ t }} ${{ n }} ${{ l }} ${{ d }}", AT).render(
        {"t": True, "n": None, "l": [1, "a"], "d": {"k": 1}}
    )
    assert text == 'true  [1, "a"] {"k": 1}'


@given(words)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
def test_any_value_is_one_word_of_the_shell(value: str) -> None:
    script = Template("printf '%s' ${{ x }}", AT).render_for_shell({"x": value})
    said = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True, timeout=5).stdout
    assert said == value.encode()


@given(st.lists(words, max_size=4))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=30)
def test_args_gives_each_item_as_a_word(values: list[str]) -> None:
    script = Template("printf '[%s]' x ${{ x | args }}", AT).render_for_shell({"x": values})
    said = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True, timeout=5).stdout
    assert said.decode() == "[x]" + "".join(f"[{value}]" for value in values)


@pytest.mark.parametrize(
    "script",
    [
        'echo "${{ x }}"',
        "echo '${{ x }}'",
        "echo `cat ${{ x }}`",
        "cat <<END\n${{ x }}\nEND",
        "cat <<'END'\nline\n${{ x }}\nEND\n",
        "cat <<-END\n\tline\n\t${{ x }}\n\tEND\n",
        "echo $((1 + ${{ x }}))",
        'echo "${y:-${{ x }}}"',
        'echo "$(case a in a) echo "${{ x }}";; esac)"',
        'echo "$(echo "${{ x }}")"',
    ],
)
def test_a_value_at_an_unsafe_place_is_found(script: str) -> None:
    assert misplaced_value(jinja.analyse(script).pieces)


@pytest.mark.parametrize(
    "script",
    [
        "echo ${{ x }}",
        "echo a${{ x }}b",
        'echo "$(cat ${{ x }})"',
        "cat <<END\nit's\nEND\necho ${{ x }}",
        "# don't\necho ${{ x }}",
        "echo it\\'s ${{ x }}",
        'echo "it\'s" ${{ x }}',
        "grep -c '\"' f; echo ${{ x }}",
        "echo ${#a} ${b%.*} ${{ x }}",
        "case $a in b) echo ${{ x }};; esac",
        "echo <<<word ${{ x }}",
    ],
)
def test_a_value_at_a_safe_place_is_accepted(script: str) -> None:
    assert misplaced_value(jinja.analyse(script).pieces, "bash") is None


@given(words)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
def test_a_value_in_a_quoted_command_substitution_is_one_word(value: str) -> None:
    script = Template('printf "%s." "$(printf "%s" a; printf \'%s.\' ${{ x }})"', AT)
    assert misplaced_value(jinja.analyse(script.source).pieces) is None
    said = subprocess.run(
        ["sh"], input=script.render_for_shell({"x": value}).encode(), capture_output=True, check=True
    ).stdout
    assert said == f"a{value}..".encode()
