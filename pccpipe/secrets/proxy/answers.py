"""Bounds what an API, or another server that may be hostile, sends around the body of an answer."""

from __future__ import annotations

import http.client
import io
import socket

from pccpipe import limits


class TooLongError(http.client.HTTPException):
    """A head, or the lines between two pieces of a body, exceed the limit."""


class BoundedResponse(http.client.HTTPResponse):
    """An answer with one limit for all of its lines: heads, interim ones too, sizes of chunks, and trailers."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = _Reader(self.fp.detach())


class _Reader(io.BufferedReader):
    """Counts the bytes of lines since the last piece of a body."""

    _in_lines = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self._in_lines += len(line)
        if self._in_lines > limits.ANSWER_HEAD.most:
            raise TooLongError(limits.ANSWER_HEAD.exceeded())
        return line

    def read1(self, size: int = -1, /) -> bytes:
        self._in_lines = 0
        return super().read1(size)
