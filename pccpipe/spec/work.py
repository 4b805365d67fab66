"""Counts the work of an expression, so that a short text cannot ask for much: each operation pays for what it reads.

A value costs what it is when written out: a list that has the same list in it a thousand times costs that a thousand
times. Jinja2 has no place for this in most operations, so their operands pass a filter that nobody can name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2 import nodes
from jinja2.exceptions import SecurityError

from pccpipe import limits
from pccpipe.spec.bounds import left

PAID = "\0paid"
"""The name of the filter. No text can have it: a NUL is no part of a name."""
EACH = "\0each"
"""The same for what a loop goes over: each turn costs one."""
_CHARACTERS = 16
"""Of text that cost as much as a value."""


class WorkExceeded(SecurityError):
    """What is evaluated exceeds a limit."""

    def __init__(self, limit: limits.Limit) -> None:
        super().__init__(limit.exceeded())
        self.limit = limit


def spend(units: int) -> None:
    """Take from what is left. Raises TooMuch when it is used up."""
    if left.units is None:
        return
    left.units -= units
    if left.units < 0:
        raise WorkExceeded(left.limit)


def paid(value: object) -> object:
    """The value, paid for; what comes one by one is paid for one by one. Raises TooMuch."""
    if isinstance(value, Iterator):
        return _paid_each(value)
    spend(weight(value, left.units))
    return value


def weight(value: object, most: int | None = None) -> int:
    """What a value costs, or a little more than `most`: then the rest is not looked at."""
    total = 0
    waiting = [value]
    while waiting:
        one = waiting.pop()
        total += 1
        if isinstance(one, str):
            total += len(one) // _CHARACTERS
        elif isinstance(one, list | tuple):
            waiting.extend(one)
        elif isinstance(one, Mapping):
            waiting.extend(one)
            waiting.extend(one.values())
        elif isinstance(one, range):
            total += len(one)
        if most is not None and total + len(waiting) > most:
            return total + len(waiting)
    return total


def pay_for_all(tree: nodes.Node) -> None:
    """Let all operands in a template pay that have no other place for it: of loops, comparisons, filters, lists."""
    for node in list(tree.find_all(nodes.Node)):
        match node:
            case nodes.For():
                node.iter = _paying(node.iter, each=True)
            case nodes.Concat():
                node.nodes = [_paying(each) for each in node.nodes]
            case nodes.Compare():
                node.expr = _paying(node.expr)
            case nodes.Operand():
                node.expr = _paying(node.expr)
            case nodes.Filter() | nodes.Test() if node.node is not None and node.name not in {PAID, EACH}:
                node.node = _paying(node.node)
            case nodes.Getitem() if isinstance(node.arg, nodes.Slice):
                node.node = _paying(node.node)
            case nodes.List() | nodes.Tuple() if not isinstance(node, nodes.Tuple) or node.ctx == "load":
                node.items = [_paying(each) for each in node.items]
            case nodes.Pair():
                node.value = _paying(node.value)
            case _:
                pass


def each(values: object) -> object:
    """What a loop goes over, each paid for as its turn comes. Raises TooMuch."""
    return _paid_turns(iter(values)) if hasattr(values, "__iter__") else values


def _paid_turns(values: Iterator[object]) -> Iterator[object]:
    for value in values:
        spend(1)
        yield value


def _paid_each(values: Iterator[object]) -> Iterator[object]:
    for value in values:
        spend(weight(value, left.units))
        yield value


def _paying(node: nodes.Node, *, each: bool = False) -> nodes.Expr:
    assert isinstance(node, nodes.Expr)
    if isinstance(node, nodes.Const):
        return node
    made = nodes.Filter(node, EACH if each else PAID, [], [], None, None, lineno=node.lineno)
    if node.environment:
        made.set_environment(node.environment)
    return made
