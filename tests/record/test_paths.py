from __future__ import annotations

import itertools

import pytest

from pccpipe.record.step_path import label, parent, split


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("build", ("build",)),
        ("iterate[2].build", ("iterate", "[2]", "build")),
        ("unit[node=20.1,os=a]", ("unit", "[node=20.1,os=a]")),
        ("g.unit[n=1][3].x", ("g", "unit", "[n=1]", "[3]", "x")),
        ("u[a=[x]].b", ("u", "[a=[x]]", "b")),
    ],
)
def test_a_path_is_split_at_dots_and_brackets(path: str, parts: tuple[str, ...]) -> None:
    assert split(path) == parts


def test_the_parent_of_each_part_is_the_one_around_it() -> None:
    chain = ["g.unit[n=1][3].x", "g.unit[n=1][3]", "g.unit[n=1]", "g.unit", "g", None]
    for path, around in itertools.pairwise(chain):
        assert path is not None
        assert parent(path) == around


def test_a_label_is_the_last_part_without_brackets() -> None:
    assert [label(path) for path in ("a.b", "a[2]", "a[n=1.5]")] == ["b", "2", "n=1.5"]
