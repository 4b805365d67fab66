"""Random files: each loads, or has problems with valid positions; nothing else happens."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pccpipe.errors import SpecError
from pccpipe.spec.data import walk
from pccpipe.spec.load import check_schema_file, load_pipeline
from pccpipe.spec.problem import Problem
from pccpipe.spec.project import load_project
from pccpipe.values import Json
from pccpipe.views.problems import ProblemFormat, shown

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "pipeline": [*sorted((ROOT / "examples/pipelines").glob("*.yaml")), ROOT / "pipelines/default-run.yaml"],
    "project": [ROOT / "examples/pccpipe.yaml"],
    "schema": sorted((ROOT / "schemas").glob("*-result.schema.json")),
}
KINDS = st.sampled_from(sorted(GOOD))
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORDS = [
    "on",
    "run",
    "steps",
    "id",
    "${{ inputs.x }}",
    "${{",
    "vm",
    "container",
    "type",
    "properties",
    "required",
    "$ref",
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(WORDS))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


_LOAD: Mapping[str, Callable[[Path], object]] = {
    "pipeline": load_pipeline,
    "project": load_project,
    "schema": check_schema_file,
}


def check(kind: str, content: bytes) -> Sequence[Problem]:
    """Return the problems of a file; check that each has a valid position in an existing file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.json" if kind == "schema" else "file.yaml")
        path.write_bytes(content)
        try:
            _LOAD[kind](path)
        except SpecError as error:
            problems = error.problems
        else:
            return ()
        for problem in problems:
            place = problem.position
            assert problem.message.strip()
            assert Path(place.file) == path or Path(place.file).exists()
            if Path(place.file) == path:
                # Lines end as in YAML.
                lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", content.decode("utf-8-sig", "replace"))
                assert 1 <= place.line <= len(lines), problem
                assert 1 <= place.column <= len(lines[place.line - 1]) + 1, problem
        assert list(problems) == sorted(problems, key=lambda problem: problem.position)
        assert len({(problem.position, problem.message) for problem in problems}) == len(problems)
        for how in ProblemFormat:
            assert shown(problems, how)
        return problems


@FUZZ
@given(st.data(), KINDS)
def test_changed_values_and_keys_load_or_are_problems(data: st.DataObject, kind: str) -> None:
    tree = yaml.load(data.draw(st.sampled_from(GOOD[kind])).read_text(), Loader=yaml.BaseLoader)
    for _ in range(data.draw(st.integers(1, 3))):
        _change(tree, data)
    check(kind, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "replace"))


def _change(tree: Any, data: st.DataObject) -> None:
    """Replace, rename, double or remove one value somewhere in the tree."""
    paths = [path for path, _ in walk(tree) if path]
    if not paths:
        return
    *around, chosen = data.draw(st.sampled_from(paths))
    last: Any = chosen
    for part in around:
        tree = tree[part]
    match data.draw(st.sampled_from(["replace", "rename", "double", "remove"])):
        case "rename" if isinstance(tree, dict):
            tree[data.draw(st.sampled_from(WORDS) | st.text(max_size=5))] = tree.pop(last)
        case "double" if isinstance(tree, list):
            tree.append(tree[last])
        case "remove":
            del tree[last]
        case _:
            tree[last] = data.draw(VALUES)


@FUZZ
@given(st.data(), KINDS)
def test_changed_text_loads_or_is_a_problem(data: st.DataObject, kind: str) -> None:
    content = data.draw(st.sampled_from(GOOD[kind])).read_bytes()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.sampled_from([start, start + 1, start + 7, len(content)]))
    between = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"\t", b"\n", b": ", b"- ", b"[", b"}", b"'", b"&a ", b"*a"])
    )
    check(kind, content[:start] + between + content[end:])


@FUZZ
@given(st.binary(max_size=60), KINDS)
@example(b"[" * 100_000, "pipeline")
@example(b'{"a":' * 100_000, "schema")
@example(b"\xef\xbb\xbfname: \xff", "pipeline")
@example(b"a: &a [*a, *a]", "project")
@example("a: \u2028\n b: [".encode(), "pipeline")
def test_random_bytes_load_or_are_problems(content: bytes, kind: str) -> None:
    check(kind, content)


@FUZZ
@given(VALUES, st.sampled_from(["steps", "inputs", "secrets", "containers", "always", "defaults", "env", "vm", "id"]))
def test_any_value_of_a_key_loads_or_is_a_problem(value: Json, key: str) -> None:
    for kind, head in (
        ("pipeline", {"version": 1, "name": "x", "steps": [{"id": "a", "run": "x"}]}),
        ("project", {"id": "x"}),
    ):
        check(kind, yaml.safe_dump({**head, key: value}, allow_unicode=True).encode("utf-8", "replace"))
