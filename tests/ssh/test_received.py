"""Data between the kernel and a channel's reader: none is lost, and none arrives twice."""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st

from pccpipe.ssh.channels import _Received
from pccpipe.ssh.heard import AHEAD, HeardSocket

pieces = st.lists(st.binary(min_size=1, max_size=50))


@given(pieces, st.lists(st.integers(1, 30)))
def test_a_channels_buffer_returns_its_input(given: list[bytes], sizes: list[int]) -> None:
    buffer = _Received()
    fed = got = b""
    for piece, size in zip(given, sizes, strict=False):
        buffer.feed(piece)
        fed += piece
        read = buffer.read(size)
        assert len(read) == min(size, len(fed) - len(got))
        got += read
    assert len(buffer) == len(fed) - len(got)
    assert got + buffer.empty() == fed
    assert not buffer.read_ready()
    buffer.close()
    assert buffer.read(1) == b""


@given(pieces, st.integers(1, 200))
def test_the_socket_returns_its_input_in_pieces_of_any_size(given: list[bytes], size: int) -> None:
    here, there = _pair()
    with here, there:
        heard = HeardSocket(here)
        heard.settimeout(1.0)
        for piece in given:
            there.sendall(piece)
        there.shutdown(socket.SHUT_WR)
        got = b""
        while data := heard.recv(size):
            assert len(data) <= size
            got += data
        assert got == b"".join(given)
        assert heard.recv(size) == b""


def test_more_than_one_read_takes_arrives_complete() -> None:
    here, there = _pair()
    with here, there:
        sent = bytes(range(256)) * (AHEAD // 256) + b"and more"
        there.sendall(sent)
        heard = HeardSocket(here)
        got = b""
        while len(got) < len(sent):
            got += heard.recv(1000)
        assert got == sent


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        return here, server.accept()[0]
