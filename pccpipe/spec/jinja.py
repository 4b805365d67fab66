"""The language between the delimiters: parses, analyses and evaluates it."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping

import jinja2
from jinja2 import meta, nodes
from jinja2.environment import TemplateExpression
from jinja2.exceptions import TemplateRuntimeError, TemplateSyntaxError
from jinja2.parser import Parser
from msgspec import Struct

from pccpipe import limits
from pccpipe.spec.bounds import bounded_work
from pccpipe.spec.problem import did_you_mean
from pccpipe.spec.sandbox import plain, settled, shell_environment, text_environment

__all__ = ["Analysis", "Chain", "SyntaxProblem", "analyse", "bare", "evaluate", "plain", "references", "render"]


_OPERATORS = {
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`, or `!=`",
    "=": "to compare, write `==`",
    "?": "write A if CONDITION else B",
    "$": "an expression knows no shell variables: declare an input, and write inputs.NAME",
}

Chain = tuple[str, ...]
"""A name with its attributes: `("steps", "test", "outcome")`."""


class SyntaxProblem(Struct, frozen=True):
    """A syntax error of the language."""

    message: str
    hint: str = ""
    line: int = 1
    """The line of the text, from 1."""


_TOO_DEEP = SyntaxProblem("it is nested too deep", "move a part of it into a step or an input of its own")


class Analysis(Struct, frozen=True):
    """Facts about a text that need no evaluation."""

    wrong: SyntaxProblem | None = None
    references: tuple[Chain, ...] = ()
    """The names that the text reads and does not set."""
    comparisons: tuple[tuple[Chain, tuple[object, ...]], ...] = ()
    """The names that the text compares with constants, by `==`, `<`, `in` and so on."""
    pieces: tuple[str | None, ...] = ()
    """The template cut at its values: text, None for a value that will be quoted, "" for a raw one."""
    has_constants: bool = False
    """True if a value reads no name and is more than a constant: it can be evaluated by itself."""


@functools.lru_cache(8192)
def analyse(source: str, *, is_expression: bool = False, blocks: bool = False) -> Analysis:
    """Parse a text without compiling it. A text without a problem here compiles."""
    try:
        if limit := _too_long(source, is_expression=is_expression):
            return Analysis(limit)
        tree = _expression_tree(source) if is_expression else text_environment(blocks=blocks).parse(source)
        if wrong := _too_deep(tree) or _unknown_function(tree):
            return Analysis(wrong)
    except jinja2.TemplateSyntaxError as error:
        message, hint = _in_words(str(error.message), is_expression=is_expression)
        if is_expression and bare(source).startswith(("{{", "{%", "<%")):
            hint = "write the expression alone, or one ${{ }} around it"
        return Analysis(SyntaxProblem(message, hint, error.lineno))
    except RecursionError:
        return Analysis(_TOO_DEEP)
    # Blocks can set names; a text without blocks reads all its names.
    given = meta.find_undeclared_variables(tree) if isinstance(tree, nodes.Template) and blocks else None
    found = tuple(_references(tree, given)), tuple(_comparisons(tree)), tuple(_pieces(tree))
    return Analysis(None, *found, _has_constants(tree))


def evaluate(source: str, scope: Mapping[str, object]) -> object:
    """Return an expression's value. Raises jinja2.TemplateError, and the errors of operators."""
    with bounded_work():
        return settled(_expression(source)(**scope))


def render(source: str, scope: Mapping[str, object], *, blocks: bool) -> str:
    """Return a template's text. Raises as `evaluate`."""
    with bounded_work():
        return _sound(_text_template(source, blocks).render(**scope))


def render_for_shell(source: str, scope: Mapping[str, object]) -> str:
    """Return a template's text with its values as quoted words. Raises as `evaluate`."""
    with bounded_work():
        return _sound(_shell_template(source).render(**scope))


def references(source: str, *, is_expression: bool) -> tuple[Chain, ...]:
    """Return the names that a text without problems reads."""
    return analyse(source, is_expression=is_expression).references


def segments(source: str, *, blocks: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the parts of the text in order: plain text (False), and values with their delimiters (True)."""
    value = ""
    for _, kind, text in text_environment(blocks=blocks).lex(source):
        if kind == "variable_begin" or value:
            value += text
            if kind == "variable_end":
                yield value, True
                value = ""
        else:
            yield text, False


def text_outside(source: str, *, blocks: bool) -> str:
    """Return the text without its values; empty if its syntax is wrong."""
    if "${{" not in source:
        return source
    try:
        return "".join(text for text, is_value in segments(source, blocks=blocks) if not is_value)
    except TemplateSyntaxError:
        return ""


def bare(source: str) -> str:
    """Return an expression without its delimiters."""
    text = source.strip()
    return text[3:-2].strip() if text.startswith("${{") and text.endswith("}}") else text


@functools.lru_cache(8192)
def _text_template(source: str, blocks: bool) -> jinja2.Template:
    return text_environment(blocks=blocks).from_string(source)


@functools.lru_cache(8192)
def _shell_template(source: str) -> jinja2.Template:
    return shell_environment().from_string(source)


@functools.lru_cache(8192)
def _expression(source: str) -> TemplateExpression:
    return text_environment(blocks=False).compile_expression(bare(source), undefined_to_none=False)


def _sound(text: str) -> str:
    if "\0" in text:
        raise TemplateRuntimeError("a value contains a NUL character, which no script, variable or text file can hold")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise TemplateRuntimeError(f"a value contains half a character (U+{code:04X})") from None
    return text


def _expression_tree(source: str) -> nodes.Node:
    environment = text_environment(blocks=False)
    if not bare(source):
        raise TemplateSyntaxError("", 1)
    parser = Parser(environment, bare(source), state="variable")
    tree = parser.parse_expression()
    if not parser.stream.eos:
        raise TemplateSyntaxError(f"unexpected '{parser.stream.current.value}'", parser.stream.current.lineno)
    tree.set_environment(environment)
    # The expression needs a root above it, because `find_all` leaves out the root.
    return nodes.Output([tree])


def _unknown_function(tree: nodes.Node) -> SyntaxProblem | None:
    environment = text_environment(blocks=False)
    for kind, type_, known in (("filter", nodes.Filter, environment.filters), ("test", nodes.Test, environment.tests)):
        for node in tree.find_all(type_):
            if node.name not in known:
                return SyntaxProblem(f"there is no {kind} `{node.name}`", did_you_mean(node.name, known), node.lineno)
    return None


def _too_long(source: str, *, is_expression: bool) -> SyntaxProblem | None:
    most = limits.EXPRESSION.most
    begin = 0
    while is_expression or (begin := source.find("${{", begin)) >= 0:
        end = len(source) if is_expression else source.find("}}", begin)
        if (end if end >= 0 else len(source)) - begin > most:
            hint = "move a part of it into a step or an input of its own"
            return SyntaxProblem(limits.EXPRESSION.exceeded("it"), hint, source.count("\n", 0, begin) + 1)
        if is_expression or end < 0:
            break
        begin = end
    return None


def _has_constants(tree: nodes.Node) -> bool:
    outputs = [tree] if isinstance(tree, nodes.Output) else tree.find_all(nodes.Output)
    values = (node for output in outputs for node in output.nodes)
    return any(not isinstance(node, nodes.TemplateData | nodes.Const) and not _reads(node) for node in values)


def _reads(node: nodes.Node) -> bool:
    """Say whether it reads a name that a step or an input gives a value."""
    return isinstance(node, nodes.Name) or any(name.name != "range" for name in node.find_all(nodes.Name))


def _too_deep(tree: nodes.Node) -> SyntaxProblem | None:
    level: list[nodes.Node] = [tree]
    for _ in range(limits.EXPRESSION_DEPTH.most):
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return None
    return _TOO_DEEP


def _references(tree: nodes.Node, given: set[str] | None) -> Iterator[Chain]:
    found: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
    inner = {id(node.node) for node in found if _attribute(node) is not None}
    for node in (*tree.find_all(nodes.Name), *found):
        chain = _chain(node) if id(node) not in inner else ()
        if chain and (given is None or chain[0] in given):
            yield chain


def _comparisons(tree: nodes.Node) -> Iterator[tuple[Chain, tuple[object, ...]]]:
    for compare in tree.find_all(nodes.Compare):
        sides = [compare.expr, *(operand.expr for operand in compare.ops)]
        for left, right in itertools.pairwise(sides):
            for name, values in ((left, right), (right, left)):
                chain, constants = _chain(name), _constants(values)
                if chain and constants:
                    yield chain, constants


def _constants(node: nodes.Node) -> tuple[object, ...]:
    """Return the constants of an expression or a list."""
    items = node.items if isinstance(node, nodes.List | nodes.Tuple) else [node]
    return tuple(item.value for item in items if isinstance(item, nodes.Const))


def _pieces(tree: nodes.Node) -> Iterator[str | None]:
    for output in tree.find_all(nodes.Output):
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                yield node.data
            else:
                yield "" if isinstance(node, nodes.Filter) and node.name == "raw" else None


def _chain(start: nodes.Node) -> Chain:
    names: list[str] = []
    node: nodes.Node = start
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        attribute = _attribute(node)
        # A computed key ends the known chain: the attributes after it belong to another value.
        names = [attribute, *names] if attribute is not None else []
        node = node.node
    return (node.name, *names) if isinstance(node, nodes.Name) and node.ctx == "load" else ()


def _attribute(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None


def _in_words(message: str, *, is_expression: bool) -> tuple[str, str]:
    """Return Jinja2's message in the user's words, with a hint."""
    message = message.rstrip(".")
    if char := re.match(r"unexpected char (?:'(.)'|\"(.)\") at", message):
        found = char[1] or char[2]
        if found in "'\"":
            return "a quote is never closed", ""
        return f"unexpected `{found}`", _OPERATORS.get(found, "")
    if message == "expected token 'name', got '|'":
        return "unexpected `||`", _OPERATORS["|"]
    if message == "unexpected '='":
        return "unexpected `=`", _OPERATORS["="]
    if message.startswith("Expected an expression, got 'end of print statement'") or not message:
        return "it is empty", "write an expression, such as inputs.name"
    if "unexpected '}}'" in message:
        return message, "write one ${{ }} around the whole, or none"
    if "end of template" in message and "tags" not in message:
        return ("it ends too early", "") if is_expression else ("`}}` is missing", "")
    return message.replace("end of print statement", "}}"), ""
