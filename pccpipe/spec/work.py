"""Counts the work of an expression, so that a short text cannot cause much: each operation pays for its operands.

A value costs its expanded size: a list that contains another list a thousand times pays for it a thousand times. Most
operations of Jinja2 have no hook for this: their operands pass through a filter that no text can name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2 import nodes
from jinja2.exceptions import SecurityError

from pccpipe import limits
from pccpipe.spec.bounds import left

PAID = "\0paid"
"""The name of the filter. No text can use it: a name cannot contain a NUL."""
EACH = "\0each"
"""The filter for the values of a loop: each turn costs one."""
_CHARACTERS = 16
"""The characters of text that cost as much as one value."""


class WorkExceeded(SecurityError):
    """An evaluation exceeds a limit."""

    def __init__(self, limit: limits.Limit) -> None:
        super().__init__(limit.exceeded())
        self.limit = limit


def spend(units: int) -> None:
    """Subtract from the remaining work. Raises WorkExceeded if none is left."""
    if left.units is None:
        return
    left.units -= units
    if left.units < 0:
        raise WorkExceeded(left.limit)


def paid(value: object) -> object:
    """Pay for a value and return it; an iterator pays for each item as it gives it. Raises WorkExceeded."""
    if isinstance(value, Iterator):
        return _paid_each(value)
    spend(weight(value, left.units))
    return value


def weight(value: object, most: int | None = None) -> int:
    """Return the cost of a value; stop counting soon after `most`."""
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
    """Add the filter to the operands that no hook sees: of loops, comparisons, filters and lists."""
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
    """Return the values of a loop; each pays in its turn. Raises WorkExceeded."""
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
