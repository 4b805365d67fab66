"""Makes a tree of a run's steps: groups, their rounds and matrix legs, their steps."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from pccpipe.record import step_path as paths
from pccpipe.record.state import RunState
from pccpipe.record.step_state import StepState
from pccpipe.views.words import FINE


class Node(Struct):
    """Hold a step, or a round of a `repeat`, which has no state of its own."""

    path: str
    step: StepState | None = None
    children: list[Node] = field(default_factory=list)
    over: bool = False
    """True for a round that ended: the next one began, or its group ended."""

    @property
    def label(self) -> str:
        text = paths.label(self.path)
        return f"round {text}" if self.step is None and paths.split(self.path)[-1].startswith("[") else text

    @property
    def running(self) -> bool:
        """True between its beginning and its end."""
        if self.step:
            return self.step.outcome is None and self.step.started_at is not None
        return not self.over and any(child.running or child.ended for child in self.children)

    @property
    def ended(self) -> bool:
        return self.over if self.step is None else self.step.outcome is not None

    @property
    def fine(self) -> bool:
        """True if all steps in it that ended have passed."""
        passed = self.step is None or self.step.outcome is None or self.step.outcome in FINE or self.step.ignored
        return passed and all(child.fine for child in self.children)

    def all(self) -> Iterator[Node]:
        """Yield this node and all nodes inside, in order."""
        yield self
        for child in self.children:
            yield from child.all()


def tree(state: RunState) -> list[Node]:
    """Return the top steps of a run with all steps inside, in the order of their turns; steps to come are last."""
    nodes: dict[str, Node] = {}
    tops: list[Node] = []

    def node_of(path: str) -> Node:
        if path not in nodes:
            nodes[path] = Node(path)
            around = paths.parent(path)
            (node_of(around).children if around else tops).append(nodes[path])
        return nodes[path]

    for path, step in state.steps.items():
        node_of(path).step = step
    for path in state.planned:
        node_of(path)
    for node in nodes.values():
        if node.step is None:
            node.over = _is_over(node, nodes, state)
    return tops


def _is_over(node: Node, nodes: dict[str, Node], state: RunState) -> bool:
    around = paths.parent(node.path)
    group = nodes[around].step if around else None
    if state.ended_at is not None or (group and group.outcome):
        return True
    return bool(group and group.round is not None and paths.label(node.path) != str(group.round))
