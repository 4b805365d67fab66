"""The end of a command's output in a stream that may be cut anywhere."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccpipe.detached.trailer import Trailer, TrailerFinder

MARK = "00ff" * 8


def trailer(code: object = 0, flag: str = "-", mark: str = MARK) -> bytes:
    return f"\x1e{mark} {code} {flag}\n".encode()


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Make output full of near marks, and its stream with the trailer, cut anywhere."""
    pieces = st.one_of(
        st.binary(max_size=50),
        st.just(b"\x1e"),
        st.integers(1, len(MARK) - 1).map(lambda n: b"\x1e" + MARK[:n].encode()),
        st.just(trailer(mark="00fe" * 8)),
    )
    output = b"".join(draw(st.lists(pieces, max_size=10)))
    stream = output + trailer(7, "t")
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return output, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(cut_streams())
def test_the_output_is_complete_wherever_the_stream_is_cut(case: tuple[bytes, list[bytes]]) -> None:
    output, pieces = case
    finder = TrailerFinder(MARK)
    assert b"".join(finder.feed(piece) for piece in pieces) == output
    assert finder.trailer == Trailer(7, timed_out=True, reusable=True)


def test_output_passes_at_once_unless_it_may_begin_the_mark() -> None:
    finder = TrailerFinder(MARK)
    assert finder.feed(b"a line\n") == b"a line\n"
    assert finder.feed(b"a prompt: 0") == b"a prompt: 0"
    assert finder.feed(b"x\x1e00f") == b"x"
    assert finder.feed(b"g") == b"\x1e00fg"
    assert finder.trailer is None


def test_held_back_bytes_are_output_at_the_streams_end() -> None:
    finder = TrailerFinder(MARK)
    finder.feed(b"\x1e00")
    assert finder.give_up() == b"\x1e00"
    assert finder.give_up() == b""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (trailer(0), Trailer(0, timed_out=False, reusable=True)),
        (trailer("255 "), Trailer(255, timed_out=False, reusable=True)),
        (trailer("lost"), Trailer(None, timed_out=False, reusable=True)),
        (trailer(137, "d"), Trailer(137, timed_out=False, reusable=False)),
    ],
)
def test_the_trailer_says_how_the_command_ended(line: bytes, expected: Trailer) -> None:
    finder = TrailerFinder(MARK)
    assert finder.feed(line) == b""
    assert finder.trailer == expected


def test_a_gigabyte_of_the_worst_output_is_read_in_seconds() -> None:
    finder = TrailerFinder(MARK)
    chunk = b"\x1e" * (256 * 1024)
    started = time.monotonic()
    for _ in range(400):
        finder.feed(chunk)
    assert time.monotonic() - started < 2
