from __future__ import annotations

import hashlib
import itertools
import re

import pytest

from pccpipe.record.step_path import file_name, label, parent, split


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


def test_no_two_legs_get_the_same_file_name_though_a_stranger_searched_for_their_values() -> None:
    # All these values have one name, and some two of them one short hash.
    known: dict[str, str] = {}
    for number in itertools.count():
        path = f"unit[a={number:020b}]".replace("0", "/").replace("1", ":")
        short = hashlib.sha256(path.encode()).hexdigest()[:8]
        if short in known:
            break
        known[short] = path
    assert file_name(path) != file_name(known[short])


def test_the_file_names_of_plain_legs_stay_short() -> None:
    assert re.fullmatch(r"unit-node-20-os-alpine-[0-9a-f]{8}", file_name("unit[node=20,os=alpine]"))
    assert re.fullmatch(r"iterate-2.unit-node-20-[0-9a-f]{8}", file_name("iterate[2].unit[node=20]"))
    assert file_name("iterate[2].build") == "iterate-2.build"
