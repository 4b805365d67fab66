"""A drawn pipeline is complete, nothing overlaps, and no text breaks out of its element."""

from __future__ import annotations

import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pccpipe.spec.load import load_pipeline
from pccpipe.views.graph import Box, Card, Flow, Graph, make_graph, mermaid
from pccpipe.views.svg import svg

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = sorted([*ROOT.glob("pipelines/*.yaml"), *ROOT.glob("examples/pipelines/*.yaml")])
SVG = "{http://www.w3.org/2000/svg}"
ALL = """
containers: {box: {image: "img:1"}}
steps:
  - {id: sync, upload: workspace, fallback: {on: local}}
  - id: again
    repeat: {max: 3, until: steps.inner.succeeded}
    steps:
      - {id: inner, on: container, container: box, run: "one\\ntwo", fallback: {on: vm}, if: "true"}
      - {id: second, on: vm, run: echo, timeout: 90m, retry: {attempts: 2}, isolation: required}
  - id: both
    parallel:
      - {id: left, run: echo}
      - {id: right, run: echo, matrix: {n: [1, 2]}}
always:
  - {id: clean, remove: workspace, continue_on_error: true}
"""


def drawn(tmp_path: Path, text: str, name: str = "test") -> Graph:
    path = tmp_path / "p.yaml"
    path.write_text(f"version: 1\nname: {name}\n" + textwrap.dedent(text))
    return make_graph(load_pipeline(path))


def test_a_graph_has_places_rules_groups_and_fallbacks(tmp_path: Path) -> None:
    graph = drawn(tmp_path, ALL)
    sync, again, both = graph.steps
    assert isinstance(sync, Card)
    assert isinstance(again, Box)
    assert isinstance(both, Box)
    assert sync.fallback == "a copy on this machine"
    assert (again.flow, again.rules) == (Flow.REPEAT, ("repeat, at most 3 rounds", "until steps.inner.succeeded"))
    inner, second = again.inner
    assert isinstance(inner, Card)
    assert isinstance(second, Card)
    assert (inner.does, inner.command, inner.fallback) == ("in a container of img:1", "one ...", "on the VM")
    assert second.rules == ("at most 1h30m", "2 attempts", "isolation required")
    assert [each.several for each in both.inner] == [False, True]


def test_mermaid_has_each_step_group_fallback_and_arrow(tmp_path: Path) -> None:
    assert mermaid(drawn(tmp_path, ALL)).splitlines()[:-4] == [
        "flowchart TD",
        '  s0["sync<br/>upload the workspace"]:::action',
        '  s0 -. unavailable .-> s0_f(["a copy on this machine"]):::local',
        '  subgraph s1["again: repeat, at most 3 rounds, until steps.inner.succeeded"]',
        "    direction TB",
        '    s1_0["inner<br/>in a container of img:1<br/>if true"]:::container',
        '    s1_0 -. unavailable .-> s1_0_f(["on the VM"]):::vm',
        '    s1_1["second<br/>on the VM<br/>at most 1h30m, 2 attempts, isolation required"]:::vm',
        "    s1_0 --> s1_1",
        "    s1_1 -. again .-> s1_0",
        "  end",
        '  subgraph s2["both: side by side, at most 8 at once"]',
        "    direction LR",
        '    s2_0["left<br/>on this machine"]:::local',
        '    s2_1[["right<br/>on this machine<br/>n: 1, 2"]]:::local',
        "  end",
        "  s0 --> s1",
        "  s1 --> s2",
        '  subgraph always["always, whatever happens"]',
        "    direction TB",
        '    a0["clean<br/>remove the run\'s workspace<br/>run continues if it fails"]:::action',
        "  end",
        "  s2 --> always",
    ]


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_every_step_is_in_the_svg_and_nothing_lies_over_anything_else(path: Path) -> None:
    pipeline = load_pipeline(path)
    _check(svg(make_graph(pipeline)), [step.id for step in pipeline.all_steps()])


def test_groups_within_groups_and_a_matrix_do_not_overlap(tmp_path: Path) -> None:
    text = ALL.replace("{id: left, run: echo}", "{id: left, repeat: {max: 2}, steps: [{id: deep, run: echo}]}")
    _check(svg(drawn(tmp_path, text)), ["sync", "again", "inner", "second", "both", "left", "deep", "right", "clean"])


def test_many_steps_side_by_side_are_drawn_in_rows(tmp_path: Path) -> None:
    steps = ", ".join(f"{{id: s{number}, on: vm, run: echo, fallback: {{on: local}}}}" for number in range(8))
    text = svg(drawn(tmp_path, f"steps: [{{id: many, parallel: [{steps}]}}]"))
    _check(text, [f"s{number}" for number in range(8)])
    assert float(ET.fromstring(text).get("width", "0")) < 2200


def test_no_text_of_a_pipeline_breaks_out(tmp_path: Path) -> None:
    odd = '"a]b\\"<script>&#quot;\\e[31m\\uFFFE"'
    graph = drawn(tmp_path, "steps: [{id: a, run: 'echo \"</text>\" && x', if: \"'<' == '&'\"}]", odd)
    texts = [each.text for each in ET.fromstring(svg(graph)).iter(f"{SVG}text")]
    assert 'echo "</text>" && x' in texts
    assert not [text for text in texts if text and "\x1b" in text]
    assert "<br/>if '#lt;' == '#amp;'" in mermaid(graph)


def _check(text: str, ids: list[str]) -> None:
    root = ET.fromstring(text)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert not [step for step in ids if step not in texts]
    boxes = [_box(each) for each in root.iter(f"{SVG}rect")]
    cards = sorted(box for box in boxes if box[2] - box[0] in {384, 232})
    assert cards
    for left, top, right, bottom in boxes:
        assert 0 <= left <= right <= width + 8
        assert 0 <= top <= bottom <= height + 8
    for index, one in enumerate(cards):
        for other in cards[index + 1 :]:
            # The cards behind a matrix's card are 4 and 8 to the side.
            is_behind = abs(one[0] - other[0]) <= 8 and abs(one[1] - other[1]) <= 8
            is_apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert is_behind or is_apart, (one, other)


def _box(rect: ET.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(rect.get(name, "0")) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height
