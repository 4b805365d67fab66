"""The language between the delimiters: Jinja2's, sandboxed and bounded; and what can be known of a text without
evaluating it.
"""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Iterator, Mapping

import jinja2
from jinja2 import meta, nodes
from jinja2.environment import TemplateExpression
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pccpipe.spec.problem import did_you_mean

MAX_TEXT = 1_000_000
"""Characters or items that an operator may make of its operands: a value is no way to fill the memory."""

# Of the other methods, and of these filters, some make something as large as an argument says.
_STRING_METHODS = frozenset(
    [
        "capitalize",
        "count",
        "endswith",
        "find",
        "index",
        "isalnum",
        "isalpha",
        "isdigit",
        "islower",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "rfind",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "title",
        "upper",
    ]
)
_WITHOUT_FILTERS = ("center", "format", "indent", "pprint", "urlize", "xmlattr", "random")


class Raw(str):
    """Text that the author declared to be shell code, by `| raw` or `| args`: it is not quoted again."""

    __slots__ = ()


class _Undefined(jinja2.StrictUndefined):
    """An undefined name is an error, in words that name its neighbours."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        owner = self._undefined_obj
        if isinstance(owner, Mapping):
            hint = did_you_mean(str(self._undefined_name), [str(key) for key in owner])
            return f"there is no `{self._undefined_name}`{f': {hint}' if hint else ''}"
        if repr(owner) == "missing":
            return f"`{self._undefined_name}` is not defined"
        return f"there is no `{self._undefined_name}` in it"


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"**", "*", "%"})

    def __init__(self, finalize: Callable[[object], str], *, blocks: bool) -> None:
        # Without blocks, their delimiters are such as nobody writes.
        block, comment = (("<%", "%>"), ("<#", "#>")) if blocks else (("\0<%", "%>\0"), ("\0<#", "#>\0"))
        super().__init__(
            variable_start_string="${{",
            variable_end_string="}}",
            block_start_string=block[0],
            block_end_string=block[1],
            comment_start_string=comment[0],
            comment_end_string=comment[1],
            undefined=_Undefined,
            finalize=finalize,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )
        self.globals = {"range": self.globals["range"]}
        for name in _WITHOUT_FILTERS:
            del self.filters[name]
        self.filters["raw"] = lambda value: Raw(plain(value))
        self.filters["args"] = lambda values: Raw(" ".join(shlex.quote(plain(value)) for value in values))

    def getattr(self, obj: object, attribute: str) -> object:
        # What a mapping holds comes before its methods: a result may have a key `items`.
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, str) and attribute in {"format", "format_map"}:
            # The sandbox would wrap these before it asks `is_safe_attribute`.
            return self.unsafe_undefined(obj, attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        if isinstance(obj, str):
            return attr in _STRING_METHODS
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: object, right: object) -> object:
        match operator, left, right:
            case "**", int() | float(), int() | float() if abs(left) <= 1e6 and abs(right) <= 64:
                pass
            case "*" | "%", int() | float(), int() | float():
                pass
            case "*", (str() | list() | tuple()) as many, int() as times if len(many) * times <= MAX_TEXT:
                pass
            case "*", int() as times, (str() | list() | tuple()) as many if len(many) * times <= MAX_TEXT:
                pass
            case _:
                raise SecurityError(f"`{operator}` is not for these values")
        return super().call_binop(context, operator, left, right)


def plain(value: object) -> str:
    """A value as text: lists and mappings as JSON, nothing as "", truth values as YAML writes them."""
    if isinstance(value, jinja2.Undefined):
        value._fail_with_undefined_error()
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _shell_word(value: object) -> str:
    return value if isinstance(value, Raw) else shlex.quote(plain(value))


@functools.cache
def _for_text(*, blocks: bool) -> _Environment:
    return _Environment(plain, blocks=blocks)


@functools.cache
def _for_shell() -> _Environment:
    return _Environment(_shell_word, blocks=False)


@functools.lru_cache(8192)
def _text_template(source: str, blocks: bool) -> jinja2.Template:
    return _for_text(blocks=blocks).from_string(source)


@functools.lru_cache(8192)
def _shell_template(source: str) -> jinja2.Template:
    return _for_shell().from_string(source)


@functools.lru_cache(8192)
def _expression(source: str) -> TemplateExpression:
    return _for_text(blocks=False).compile_expression(bare(source), undefined_to_none=False)


def evaluate(source: str, scope: Mapping[str, object]) -> object:
    """An expression's value. Raises jinja2.TemplateError, and what operators raise."""
    value = _expression(source)(**scope)
    if isinstance(value, jinja2.Undefined):
        value._fail_with_undefined_error()
    return value


def render(source: str, scope: Mapping[str, object], *, blocks: bool) -> str:
    """A template's text. Raises as `evaluate`."""
    return _text_template(source, blocks).render(**scope)


def render_for_shell(source: str, scope: Mapping[str, object]) -> str:
    """A template's text with its values as quoted words. Raises as `evaluate`."""
    return _shell_template(source).render(**scope)


def syntax_error(source: str, *, is_expression: bool = False, blocks: bool = False) -> str | None:
    """What is wrong with the syntax, in words; None if nothing. Compiles it, for later."""
    try:
        if is_expression:
            _expression(source)
        else:
            _text_template(source, blocks)
    except jinja2.TemplateError as error:
        message = str(error.message).rstrip(".")
        return "it has no end: `}}` is missing" if message.startswith("unexpected end of template") else message
    except RecursionError:
        return "it is nested too deep"
    return None


def references(source: str, *, is_expression: bool, blocks: bool = False) -> Iterator[tuple[str, ...]]:
    """Each name that the text reads and does not set, with its attributes: `("steps", "test", "outcome")`."""
    text = f"${{{{ {bare(source)} }}}}" if is_expression else source
    tree = _for_text(blocks=blocks).parse(text)
    given = meta.find_undeclared_variables(tree)
    inner = {
        node.node
        for node in tree.find_all((nodes.Getattr, nodes.Getitem))
        if isinstance(node, nodes.Getattr | nodes.Getitem) and _attribute(node) is not None
    }
    for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)):
        if node not in inner:
            chain = _chain(node)
            if chain and chain[0] in given:
                yield chain


def segments(source: str, *, blocks: bool = False) -> Iterator[tuple[str, bool]]:
    """The text cut into what is text and what is a value with its delimiters (True), in order; together, the text."""
    value = ""
    for _, kind, text in _for_text(blocks=blocks).lex(source):
        if kind == "variable_begin" or value:
            value += text
            if kind == "variable_end":
                yield value, True
                value = ""
        else:
            yield text, False


def pieces(source: str) -> Iterator[str | None]:
    """The text of a `run:` cut at its values: text, then None for each value that will be quoted, "" for one declared
    raw.
    """
    for output in _for_text(blocks=False).parse(source).find_all(nodes.Output):
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                yield node.data
            else:
                yield "" if isinstance(node, nodes.Filter) and node.name == "raw" else None


def bare(source: str) -> str:
    """An expression without delimiters around it."""
    text = source.strip()
    return text[3:-2].strip() if text.startswith("${{") and text.endswith("}}") else text


def _chain(start: nodes.Node) -> tuple[str, ...]:
    names: list[str] = []
    node: nodes.Node = start
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        attribute = _attribute(node)
        # A computed key ends what can be known: what comes after it is no attribute of the name before.
        names = [attribute, *names] if attribute is not None else []
        node = node.node
    return (node.name, *names) if isinstance(node, nodes.Name) and node.ctx == "load" else ()


def _attribute(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None
