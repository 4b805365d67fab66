"""Jinja2 as a language for values: sandboxed, strict and bounded.

The sandbox limits expressions to their own data; the bounds keep a slip (`'a' * 10**9`) from filling the memory.
"""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Literal

import jinja2
from jinja2 import nodes
from jinja2.exceptions import FilterArgumentError, SecurityError
from jinja2.filters import do_round, do_sum
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from pccpipe import limits
from pccpipe.spec.absent import NoResult, Result
from pccpipe.spec.problem import did_you_mean
from pccpipe.spec.work import EACH, PAID, WorkExceeded, each, paid, pay_for_all, spend, weight

_MOST = limits.EXPRESSION_MADE.most

# fmt: off
_FILTERS = (
    "abs", "capitalize", "count", "dictsort", "first", "float", "int", "items", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr",
    "sort", "string", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
)
"""Jinja2's filters for values, not for HTML or layout, whose results are not much larger than their inputs."""
_STRING_METHODS = frozenset((
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isspace",
    "istitle", "isupper", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rfind", "rpartition",
    "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
))
# fmt: on
_LIST_METHODS = frozenset({"count", "index"})


class Raw(str):
    """Text that the author declared to be shell code, by `| raw` or `| args`: not quoted again."""

    __slots__ = ()


class _Undefined(jinja2.StrictUndefined):
    """An undefined name: an error whose message suggests a similar name."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is missing:
            return f"`{self._undefined_name}` is not defined"
        known = [str(key) for key in self._undefined_obj] if isinstance(self._undefined_obj, Mapping) else []
        hint = did_you_mean(str(self._undefined_name), known)
        return f"there is no `{self._undefined_name}`{f': {hint}' if hint else ''}"


def _pay(*values: object) -> None:
    for value in values:
        paid(value)


class Environment(ImmutableSandboxedEnvironment):
    """The language; its `finalize` turns a value into text."""

    intercepted_binops = frozenset({"**", "*", "%", "+"})

    def __init__(self, finalize: Callable[[object], str], *, blocks: bool) -> None:
        # Without blocks, their delimiters are strings that no file contains.
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
            # Optimizing evaluates constants at compile time, where no work is counted.
            optimized=False,
        )
        self.globals = {"range": self.globals["range"]}
        self.filters = {name: self.filters[name] for name in _FILTERS} | {
            "args": _args,
            "d": _default,
            "default": _default,
            "join": _join,
            "raw": lambda value: Raw(plain(value)),
            "replace": _replace,
            "round": _round,
            "sum": _sum,
            "tojson": _to_json,
            PAID: paid,
            EACH: each,
        }
        self.tests = self.tests | {
            "defined": lambda value: not _is_missing(value),
            "none": lambda value: value is None or isinstance(value, NoResult),
            "undefined": _is_missing,
        }

    def getattr(self, obj: object, attribute: str) -> object:
        # A mapping's keys come before its methods: a result may have a key `items`.
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self._lacking(obj, attribute)
        if isinstance(obj, str) and attribute in {"format", "format_map"}:
            # The sandbox would wrap these before it calls `is_safe_attribute`.
            return self.unsafe_undefined(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: object, argument: object) -> object:
        if isinstance(obj, Mapping):
            return obj[argument] if argument in obj else self._lacking(obj, str(argument))
        return super().getitem(obj, argument)

    def _lacking(self, obj: Mapping[str, object], name: str) -> object:
        return NoResult() if isinstance(obj, Result) else self.undefined(obj=obj, name=name)

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        match obj:
            case str():
                return attr in _STRING_METHODS
            case list() | tuple():
                return attr in _LIST_METHODS
            case int() | float():
                return False
            case _:
                return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        match operator, left, right:
            case "**", int() | float(), int() | float() if abs(left) <= 1e6 and abs(right) <= 64:
                pass
            case (("*" | "%" | "+"), int() | float(), int() | float()):
                _bound_digits(left, right)
            case "+", (str() | list() | tuple()), (str() | list() | tuple()):
                _bound_made(weight(left, _MOST) + weight(right, _MOST))
            case "*", (str() | list() | tuple()) as many, int() as times:
                _bound_made(_repeated(many, times))
            case "*", int() as times, (str() | list() | tuple()) as many:
                _bound_made(_repeated(many, times))
            case "+", _, _:
                pass
            case _:
                raise SecurityError(f"`{operator}` does not work with these values")
        return super().call_binop(context, operator, left, right)

    def call_filter(
        self,
        name: str,
        value: object,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        context: Context | None = None,
        eval_ctx: EvalContext | None = None,
    ) -> object:
        # `map` and similar filters call this for each item.
        _pay(value, *(args or ()), *(kwargs or {}).values())
        return super().call_filter(name, value, args, kwargs, context, eval_ctx)

    def call_test(
        self,
        name: str,
        value: object,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        context: Context | None = None,
        eval_ctx: EvalContext | None = None,
    ) -> object:
        _pay(value, *(args or ()), *(kwargs or {}).values())
        return super().call_test(name, value, args, kwargs, context, eval_ctx)

    def call(self, context: Context, obj: object, /, *args: object, **kwargs: object) -> object:
        for each_ in (getattr(obj, "__self__", None), *args, *kwargs.values()):
            if not isinstance(each_, ModuleType):
                paid(each_)
        return super().call(context, obj, *args, **kwargs)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        pay_for_all(source)
        return super()._generate(source, name, filename, defer_init)


def _repeated(many: str | list[object] | tuple[object, ...], times: int) -> int:
    if len(many) * times > _MOST:
        return _MOST + 1
    # Each copy of an inner list costs its full weight.
    return len(many) * max(times, 0) if isinstance(many, str) else weight(many, _MOST) * max(times, 0)


def _bound_made(size: int) -> None:
    if size > _MOST:
        raise WorkExceeded(limits.EXPRESSION_MADE)
    spend(size // 16)


def _bound_digits(left: float, right: float) -> None:
    bits = sum(abs(number).bit_length() for number in (left, right) if isinstance(number, int))
    if bits > limits.EXPRESSION_BITS.most:
        raise WorkExceeded(limits.EXPRESSION_BITS)


def plain(value: object) -> str:
    """Return a value as text: lists and mappings as JSON, null as "", booleans as YAML writes them."""
    value = paid(_listed(value))
    if isinstance(value, jinja2.Undefined):
        value._fail_with_undefined_error()
    if value is None:
        return ""
    if isinstance(value, bool | list | tuple | dict):
        return _to_json(value)
    return str(value)


def settled(value: object) -> object:
    """Return an expression's value as plain data. Raises jinja2.UndefinedError."""
    if isinstance(value, jinja2.Undefined):
        value._fail_with_undefined_error()
    return str.__str__(value) if isinstance(value, str) else paid(_listed(value))


def shell_word(value: object) -> str:
    """Return a value as one shell word; unchanged if the author declared it to be shell code."""
    return value if isinstance(value, Raw) else shlex.quote(plain(value))


@functools.cache
def text_environment(*, blocks: bool) -> Environment:
    return Environment(plain, blocks=blocks)


@functools.cache
def shell_environment() -> Environment:
    return Environment(shell_word, blocks=False)


def _listed(value: object) -> object:
    """Collect the items of filters such as `map`, which give them one by one."""
    return list(value) if isinstance(value, Iterator | range) else value


def _default(value: object, default: object = "", boolean: bool = False) -> object:
    """Do as Jinja2's `default`, and treat missing keys of a result as undefined."""
    return default if _is_missing(value) or (boolean and not value) else value


def _is_missing(value: object) -> bool:
    return isinstance(value, jinja2.Undefined | NoResult)


def _args(values: object) -> Raw:
    items = _listed(values)
    if not isinstance(items, list | tuple):
        raise FilterArgumentError("`args` needs a list")
    return Raw(" ".join(shlex.quote(plain(item)) for item in items))


def _join(values: Iterable[object], between: str = "") -> str:
    items = [plain(value) for value in values]
    _bounded(sum(map(len, items)) + len(items) * len(between))
    return between.join(items)


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    before = plain(text)
    _bounded(len(before) + before.count(old) * len(new))
    return before.replace(old, new, count)


def _round(value: float, precision: int = 0, method: Literal["common", "ceil", "floor"] = "common") -> float:
    if abs(precision) > limits.ROUND_DIGITS.most:
        raise FilterArgumentError(f"`round` takes at most {limits.ROUND_DIGITS.most} digits")
    return do_round(value, precision, method)


def _sum(values: Iterable[object], attribute: str | int | None = None, start: float = 0) -> object:
    # Python would copy the sum of lists once for each addition.
    if not isinstance(start, int | float):
        raise FilterArgumentError("`sum` needs numbers")
    return do_sum(text_environment(blocks=False), values, attribute, start)


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_as_json)


def _as_json(value: object) -> object:
    value = settled(value)
    if isinstance(value, list):
        return value
    if isinstance(value, NoResult):
        return None
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _bounded(size: int) -> None:
    if size > limits.EXPRESSION_TEXT.most:
        raise WorkExceeded(limits.EXPRESSION_TEXT)
    spend(size // 16)
