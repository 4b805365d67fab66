"""The engine's multiplexed output and chunked answers, cut in any way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccpipe.docker_api.stream import Beginning, Body, FrameParser, Skip
from pccpipe.outcome import Stream
from pccpipe.target import Chunk
from tests.growth import is_linear

STREAMS = {Stream.STDOUT: 1, Stream.STDERR: 2}
frames = st.lists(st.tuples(st.sampled_from(list(Stream)), st.binary(max_size=30)), max_size=10)


def framed(pieces: list[tuple[Stream, bytes]]) -> bytes:
    return b"".join(bytes([STREAMS[stream], 0, 0, 0]) + len(data).to_bytes(4, "big") + data for stream, data in pieces)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts: list[bytes] = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [*parts, data]


@given(frames, st.lists(st.integers(1, 12), max_size=80))
def test_frames_are_complete_with_any_cuts(pieces: list[tuple[Stream, bytes]], sizes: list[int]) -> None:
    parser = FrameParser()
    got = dict.fromkeys(Stream, b"")
    for part in cut(framed(pieces), sizes):
        for chunk in parser.feed(part):
            got[chunk.stream] += chunk.data
    assert got == {stream: b"".join(data for of, data in pieces if of is stream) for stream in Stream}
    assert parser.is_between_frames


@given(frames.filter(lambda pieces: any(data for _, data in pieces)), st.data())
def test_a_cut_frame_is_not_an_end(pieces: list[tuple[Stream, bytes]], data: st.DataObject) -> None:
    whole = framed([piece for piece in pieces if piece[1]])
    size = data.draw(st.integers(1, len(whole) - 1))
    parser = FrameParser()
    list(parser.feed(whole[:size]))
    boundaries = {0}
    for _, piece in (piece for piece in pieces if piece[1]):
        boundaries.add(max(boundaries) + 8 + len(piece))
    assert parser.is_between_frames is (size in boundaries)


def test_an_invalid_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="no frame"):
        list(FrameParser().feed(b"HTTP/1.1"))


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=20), st.lists(st.integers(1, 7), max_size=60))
def test_a_chunked_body_is_joined(data: bytes, chunks: list[int], sizes: list[int]) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in cut(data, chunks) if part) + b"0\r\n\r\n"
    reader = Body(chunked=True)
    assert b"".join(reader.feed(part) for part in cut(body, sizes)) == data
    assert reader.ended


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60), st.lists(st.integers(1, 9), max_size=20))
def test_output_that_was_given_before_is_skipped(data: bytes, given_before: int, sizes: list[int]) -> None:
    skip = Skip({Stream.STDOUT: given_before})
    chunks = [skip.feed(Chunk(Stream.STDOUT, part)) for part in cut(data, sizes) if part]
    assert b"".join(chunk.data for chunk in chunks if chunk) == data[given_before:]


def test_a_small_line_costs_no_copy_of_the_others() -> None:
    line = framed([(Stream.STDOUT, b"y\n")])

    def read(lines: int) -> None:
        piece = b"%x\r\n%s\r\n" % (len(line), line) * lines
        body, parser = Body(chunked=True), FrameParser()
        assert list(parser.feed(body.feed(piece))) == [Chunk(Stream.STDOUT, b"y\n" * lines)]

    assert is_linear(read, 10_000)


def test_an_endless_line_before_a_chunk_is_an_error() -> None:
    body = Body(chunked=True)
    for _ in range(5):
        body.feed(b";" * 200)
    with pytest.raises(ValueError, match="no size of a chunk"):
        body.feed(b";" * 200)


LINE = "pccpipe: the command begins"


@given(st.binary(max_size=60), st.booleans(), st.lists(st.integers(1, 9), max_size=20))
def test_the_line_that_marks_the_beginning_is_removed_once(data: bytes, is_said: bool, sizes: list[int]) -> None:
    beginning = Beginning(LINE)
    said = f"{LINE}\n".encode() + data if is_said else b"?" + data
    given_on = [beginning.feed(Chunk(Stream.STDOUT, part)) for part in cut(said, sizes) if part]
    assert b"".join(chunk.data for chunk in given_on if chunk) == (data if is_said else said)
    assert beginning.is_known


def test_half_of_that_line_is_output() -> None:
    beginning = Beginning(LINE)
    other = Chunk(Stream.STDERR, b"exec /bin/sh failed")
    assert beginning.feed(other) is other
    assert beginning.feed(Chunk(Stream.STDOUT, b"pccpipe: the")) is None
    assert not beginning.is_known
    assert beginning.rest() == Chunk(Stream.STDOUT, b"pccpipe: the")


def test_a_container_of_an_older_version_prints_no_such_line() -> None:
    beginning = Beginning("")
    assert beginning.is_known
    said = Chunk(Stream.STDOUT, f"{LINE}\n".encode())
    assert beginning.feed(said) is said
