from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccpipe.outcome import Place
from pccpipe.target import Isolation
from pccpipe.views.text import (
    Lines,
    cells,
    facts_text,
    harmless,
    harmless_line,
    harmless_lines,
    isolation,
    output_line,
    shorten,
)
from pccpipe.words import duration, size
from tests.record.script import BOXED


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u2028c", "a\\u202eb\\u2028c"),
        ("step failed\rstep succeeded", "step failed\\x0dstep succeeded"),
        ("10%\r20%\r30%\r\n", "10%\\x0d20%\\x0d30%"),
        ("a\tb", "a       b"),
        ("ä 漢 ✔", "ä 漢 ✔"),
    ],
)
def test_a_control_character_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert harmless_line(text) == shown


INVISIBLE = [
    *"\x00\x07\x7f\x85\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u200b\u200c\u200d\u200e\u200f\u2028\u2029",
    *"\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2066\u2067\u2068\u2069\u206a\u3164\ufe00\ufe0e\ufe0f\ufeff\uffa0",
    *"\ufff9\ufffb\U000e0001\U000e0041\U000e007f\U000e0100\U000e01ef\U0001d173",
]


@pytest.mark.parametrize("hidden", INVISIBLE, ids=ascii)
def test_an_invisible_character_is_shown(hidden: str) -> None:
    for text in (f"approve{hidden}d", f"日{hidden}本", f"x{hidden}", f"1{hidden}2"):
        before, after = text.split(hidden)
        code = ord(hidden)
        escape = f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
        assert harmless(text) == harmless_line(text) == f"{before}{escape}{after}"
        assert harmless_lines(f"{text}\n") == f"{before}{escape}{after}\n"


@pytest.mark.parametrize(
    "text",
    [
        "שלום עולם",
        "مرحبا بالعالم",
        "नमस्ते",
        "한국어 조선",
        "e\u0301",  # a letter with a combining accent
        "👩\u200d💻",
        "🏳\ufe0f\u200d🌈",
        "👩🏽\u200d🚀 ❤\ufe0f",
        "1\ufe0f\u20e3",
        "⚠\ufe0f warning",
    ],
)
def test_scripts_and_emoji_stay_readable(text: str) -> None:
    assert harmless(text) == harmless_line(text) == text
    assert harmless_lines(f"{text}\n") == f"{text}\n"


def test_joiners_and_selectors_outside_of_emoji_are_shown() -> None:
    assert harmless("ad\u200dmin") == "ad\\u200dmin"
    assert harmless("👩\u200dx") == "👩\\u200dx"
    assert harmless("x\u200d👩") == "x\\u200d👩"
    assert harmless("❤\ufe0f\ufe0f") == "❤\ufe0f\\ufe0f"


@given(st.text())
def test_harmless_text_has_no_controls_but_tabs_and_newlines(text: str) -> None:
    assert all(character.isprintable() or character in "\t\n" or ord(character) > 0x9F for character in harmless(text))
    assert "\x1b" not in harmless(text)


def test_a_long_line_is_cut_and_says_how_long_it_was() -> None:
    line = harmless_line("x" * 5000)
    assert len(line) < 2100
    assert line.endswith("(5000 characters)")


@given(st.lists(st.text(st.sampled_from("ab\n"), max_size=5)))
def test_lines_are_put_together_from_pieces(pieces: list[str]) -> None:
    lines = Lines()
    whole = "".join(pieces)
    assert "".join(lines.feed(piece) for piece in pieces) == whole[: whole.rfind("\n") + 1]
    assert lines.finish().removesuffix("\n") == whole[whole.rfind("\n") + 1 :]


def test_a_line_that_never_ends_does_not_fill_the_memory() -> None:
    lines = Lines()
    for _ in range(100):
        lines.feed("x" * 1000)
    assert len(lines.rest) < 10_000


def test_a_very_long_line_is_one_line_and_says_how_long_it_was() -> None:
    lines = Lines()
    made = ("".join(lines.feed("\x1b" * 1000) for _ in range(1000)) + lines.feed("end\nnext\n")).splitlines()
    assert len(made) == 2
    assert made[0].endswith(" ... (1000003 characters)")
    assert harmless_line(made[0]).endswith("characters)")
    assert made[1] == "next"


def test_a_progress_bar_without_an_end_shows_its_last_state() -> None:
    lines = Lines()
    for percent in range(10_000):
        lines.feed(f"{percent} of 9999\r")
    assert output_line(lines.rest) == "9999 of 9999"
    assert harmless_lines(lines.feed("done\n")) == "done\n"


@given(st.lists(st.text(st.sampled_from("ab\t\r\x1bä漢"), max_size=5), min_size=1))
def test_many_lines_are_as_harmless_as_each_of_them(lines: list[str]) -> None:
    lines.append("x" * 2001)
    assert harmless_lines("".join(f"{line}\n" for line in lines)).split("\n")[:-1] == [
        output_line(line) for line in lines
    ]


def test_a_long_line_among_others_is_shortened() -> None:
    lines = Lines()
    assert [len(line) for line in lines.feed(f"a\n{'x' * 2000}\n{'x' * 8000}\n{'x' * 8001}\nb\n").split("\n")] == [
        *(1, 2000, 8000, 1950 + len(" ... (8001 characters)"), 1, 0)
    ]


def test_durations_and_sizes_read_well() -> None:
    assert [duration(s) for s in (0.04, 9.94, 9.96, 59.4, 61, 3600, 7384)] == [
        "0.0s",
        "9.9s",
        "10s",
        "59s",
        "1m01s",
        "1h00m",
        "2h03m",
    ]
    assert [size(n) for n in (0, 999, 1000, 34567, 5e8, 2e10)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "34.6 kB",
        "500 MB",
        "20.0 GB",
    ]


def test_shortened_text_fits_its_columns() -> None:
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("漢字漢字", 5) == "漢字…"
    assert cells("漢字") == 4
    assert shorten("abc", 0) == ""


def test_isolation_says_all_that_a_command_had() -> None:
    assert isolation(BOXED) == (
        "container pcc-runner:latest on 10.0.0.2, user 1000:1000, name pcc-run-r1-build-1, image sha256:abababababab, "
        "network host, memory 4g, cpus 2, pids 1000, workspace /workspace"
    )
    bare = Isolation(Place.CONTAINER, "localhost", "0:0", image="x", read_only_workspace=True, workspace="/workspace")
    assert "memory unlimited" in isolation(bare)
    assert "/workspace (read-only)" in isolation(bare)


def test_facts_of_actions_read_well() -> None:
    assert facts_text("upload", {"files": 1, "bytes": 5, "method": "tar", "seconds": 1}) == "1 file, 5 B, by tar"
    assert facts_text("diff", {"path": "diff.patch", "files": 2, "insertions": 3, "deletions": 1}) == (
        "2 files, +3 -1 lines, in diff.patch"
    )
    assert facts_text("build", {"image": "i", "built": False, "seconds": 1}) == "image i was there"
    assert facts_text("download", {"files": 0, "bytes": 0, "missing": ["x"], "refused": []}) == (
        "0 files, 0 B, missing: x"
    )


def test_text_that_a_return_did_not_overwrite_is_shown() -> None:
    assert output_line("error: cannot open foo.c\r: not found\n") == "error: cannot open foo.c\\x0d: not found"
    assert output_line("10%\r50%\r100%\rdone\n") == "done"
    assert output_line("downloading\rdownloaded it\n") == "downloaded it"
    assert output_line("with a Windows line end\r\n") == "with a Windows line end"
