"""Makes a graph of a pipeline, and writes it as Mermaid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import assert_never

from msgspec import Struct

from pccpipe.executor.actions import kind_of
from pccpipe.outcome import Place
from pccpipe.spec import jinja
from pccpipe.spec.agent_task import AgentTask
from pccpipe.spec.matrix import described
from pccpipe.spec.model import (
    Build,
    Diff,
    Download,
    Group,
    Host,
    Parallel,
    Pipeline,
    Remove,
    Repeat,
    Run,
    Step,
    Upload,
    Value,
)
from pccpipe.views.text import harmless_line
from pccpipe.views.words import with_codes
from pccpipe.words import limit


class Look(StrEnum):
    """Name how a step is drawn: by where it runs."""

    CONTAINER = "container"
    VM = "vm"
    LOCAL = "local"
    ACTION = "action"


class Flow(StrEnum):
    """Name how the steps of a group follow one another."""

    REPEAT = "repeat"
    PARALLEL = "parallel"
    ORDER = "order"


class Card(Struct, frozen=True):
    """Draw a step that does one thing."""

    id: str
    look: Look
    does: str
    """The place where it runs, or the work of the action."""
    command: str = ""
    """The first line of its script."""
    rules: tuple[str, ...] = ()
    fallback: str = ""
    """The place where it runs if its own is unavailable; empty for none."""
    fallback_look: Look = Look.LOCAL
    several: bool = False
    """True for a step with a matrix."""


class Box(Struct, frozen=True):
    """Draw a group of steps."""

    id: str
    flow: Flow
    rules: tuple[str, ...]
    inner: tuple[Card | Box, ...]
    several: bool = False
    needs: tuple[tuple[int, int], ...] = ()
    """The pairs of a needed step and one that needs it, by their places in `inner`."""
    always: tuple[Card | Box, ...] = ()


class Graph(Struct, frozen=True):
    """Draw a whole pipeline."""

    name: str
    description: str
    steps: tuple[Card | Box, ...]
    always: tuple[Card | Box, ...]


def make_graph(pipeline: Pipeline) -> Graph:
    """Make the graph of a pipeline."""
    return Graph(
        harmless_line(pipeline.name),
        harmless_line(pipeline.description),
        tuple(map(_node, pipeline.steps)),
        tuple(map(_node, pipeline.always)),
    )


def mermaid(graph: Graph) -> str:
    """Write the graph as Mermaid, which GitHub, GitLab and many editors show."""
    lines = ["flowchart TD", *_mermaid_nodes(graph.steps, "s", "  ", chain=True)]
    if graph.always:
        lines += ['  subgraph always["always, whatever happens"]', "    direction TB"]
        lines += _mermaid_nodes(graph.always, "a", "    ", chain=True)
        lines += ["  end", f"  s{len(graph.steps) - 1} --> always"]
    lines += [f"  classDef {look} {style}" for look, style in _STYLES.items()]
    return "\n".join(lines) + "\n"


_STYLES = {
    Look.CONTAINER: "fill:#fbefff,stroke:#8250df,color:#24292f",
    Look.VM: "fill:#ddf4ff,stroke:#0969da,color:#24292f",
    Look.LOCAL: "fill:#f6f8fa,stroke:#57606a,color:#24292f",
    Look.ACTION: "fill:#dafbe1,stroke:#1a7f37,color:#24292f",
}


def _node(step: Step) -> Card | Box:
    body = step.body
    rules = tuple(map(harmless_line, _rules(step)))
    inner, always = tuple(map(_node, step.own_steps)), tuple(map(_node, step.always))
    match body:
        case Run():
            fallback = body.fallback
            return Card(
                id=step.id,
                look=Look(body.where.on.value),
                does=harmless_line(_place(body.where)),
                command=_agents(body.agent) if body.agent else _first_line(body.where.run.source),
                rules=rules,
                fallback=harmless_line(_place(fallback)) if fallback else "",
                fallback_look=Look(fallback.on.value) if fallback else Look.LOCAL,
                several=bool(step.matrix),
            )
        case Upload() | Download() | Diff() | Remove() | Build():
            falls_back = isinstance(body, Upload) and body.fall_back_locally
            return Card(
                id=step.id,
                look=Look.ACTION,
                does=harmless_line(f"{kind_of(body)} {_object(body)}"),
                rules=rules,
                fallback="a copy on this machine" if falls_back else "",
                several=bool(step.matrix),
            )
        case Repeat():
            until = (f"until {jinja.bare(body.until.source)}",) if body.until else ()
            own = (f"repeat, at most {_value(body.max)} rounds", *map(harmless_line, until))
            return Box(step.id, Flow.REPEAT, (*own, *rules), inner, bool(step.matrix), always=always)
        case Parallel():
            own = (
                "side by side",
                f"at most {body.max_parallel} at once",
                *(["until one fails"] if body.fail_fast else []),
            )
            needs = _needs(body.steps)
            return Box(step.id, Flow.PARALLEL, (*own, *rules), inner, bool(step.matrix), needs, always)
        case Group():
            return Box(step.id, Flow.ORDER, rules, inner, bool(step.matrix), always=always)
        case _:
            assert_never(body)


def _needs(steps: Sequence[Step]) -> tuple[tuple[int, int], ...]:
    place_of = {step.id: place for place, step in enumerate(steps)}
    return tuple((place_of[need], place) for place, step in enumerate(steps) for need in step.needs)


def _agents(task: AgentTask) -> str:
    return harmless_line("agent " + ", then ".join(f"{each.name} ({each.model.source})" for each in task.agents))


def _place(where: Host) -> str:
    match where.on:
        case Place.LOCAL:
            return "on this machine"
        case Place.VM:
            return "on the VM"
        case Place.CONTAINER:
            if where.choice:
                return f"in the container {where.choice.name.source}"
            assert where.container
            return f"in a container of {where.container.image.source}"


def _object(body: Upload | Download | Diff | Remove | Build) -> str:
    match body:
        case Upload():
            return "the workspace, with a git repository" if body.with_git else "the workspace"
        case Download():
            without = f" without {', '.join(body.exclude)}" if body.exclude else ""
            return ", ".join(path.source for path in body.paths) + without
        case Diff():
            return f"into {body.path.source}"
        case Remove():
            return "the run's workspace"
        case Build():
            return f"the image {body.image.source}"
        case _:
            assert_never(body)


def _rules(step: Step) -> Iterator[str]:
    if isinstance(step.body, Run) and step.body.background:
        yield "in the background, until its group ends"
    if step.services:
        yield f"beside {', '.join(f'{name} ({one.image.source})' for name, one in step.services.items())}"
    if step.condition:
        yield f"if {jinja.bare(step.condition.source)}"
    if step.matrix:
        yield described(step.matrix)
    if step.own_workspace:
        yield "a workspace of its own" if not step.matrix else "a workspace for each"
    if step.needs:
        yield f"needs {', '.join(step.needs)}"
    if step.timeout:
        yield f"at most {limit(step.timeout.known) if step.timeout.known is not None else _value(step.timeout)}"
    if step.retry.attempts > 1:
        after = " if it fails" if step.retry.exit_codes else ""
        yield f"{step.retry.attempts} attempts{after}{with_codes(step.retry.exit_codes)}"
    if step.continue_on_error:
        yield f"run continues if it fails{with_codes(step.continue_exit_codes)}"
    if isinstance(step.body, Run | Upload) and step.body.isolation_required:
        yield "isolation required"
    if isinstance(step.body, Download) and step.body.required:
        yield "fails without a file"
    if step.fails_as:
        yield f"fails as {step.fails_as}"


def _value(value: Value[int] | Value[float]) -> str:
    return jinja.bare(value.expression.source) if value.expression else str(value.known)


def _first_line(script: str) -> str:
    lines = [line.strip() for line in script.splitlines() if line.strip()]
    return harmless_line(f"{lines[0]}{' ...' if len(lines) > 1 else ''}") if lines else ""


def _mermaid_nodes(nodes: Sequence[Card | Box], prefix: str, indent: str, *, chain: bool) -> Iterator[str]:
    names = [f"{prefix}{index}" for index in range(len(nodes))]
    for name, node in zip(names, nodes, strict=True):
        if isinstance(node, Card):
            yield from _mermaid_card(node, name, indent)
        else:
            yield f'{indent}subgraph {name}["{_quoted(": ".join((node.id, ", ".join(node.rules))))}"]'
            yield f"{indent}  direction {'LR' if node.flow is Flow.PARALLEL else 'TB'}"
            yield from _mermaid_nodes(node.inner, f"{name}_", f"{indent}  ", chain=node.flow is not Flow.PARALLEL)
            if node.flow is Flow.REPEAT and len(node.inner) > 1:
                yield f"{indent}  {name}_{len(node.inner) - 1} -. again .-> {name}_0"
            yield from (f"{indent}  {name}_{one} --> {name}_{other}" for one, other in node.needs)
            if node.always:
                yield f'{indent}  subgraph {name}_always["always, whatever happens"]'
                yield from _mermaid_nodes(node.always, f"{name}_a", f"{indent}    ", chain=True)
                yield f"{indent}  end"
                yield f"{indent}  {name}_{len(node.inner) - 1} --> {name}_always"
            yield f"{indent}end"
    if chain:
        yield from (f"{indent}{one} --> {other}" for one, other in itertools.pairwise(names))


def _mermaid_card(card: Card, name: str, indent: str) -> Iterator[str]:
    text = "<br/>".join(_quoted(line) for line in (card.id, card.does, ", ".join(card.rules)) if line)
    brackets = ('[["', '"]]') if card.several else ('["', '"]')
    yield f"{indent}{name}{brackets[0]}{text}{brackets[1]}:::{card.look}"
    if card.fallback:
        yield f'{indent}{name} -. unavailable .-> {name}_f(["{_quoted(card.fallback)}"]):::{card.fallback_look}'


def _quoted(text: str) -> str:
    """Quote text for Mermaid, which has HTML's entities with `#` in place of `&`."""
    for character, entity in (("#", "#35;"), ("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(character, entity)
    return text
