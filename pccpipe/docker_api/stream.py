"""Readers of the engine's long answers: a container's attached output, its logs, and the wait for its end.

The SDK's readers lose output on some connections (https://github.com/docker/docker-py/pull/3438), and take a broken
connection for the end. Each also blocks a thread; these can be polled, so one thread reads output and end together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pccpipe import limits
from pccpipe.machine.answers import number_or_none
from pccpipe.machine.base import ByteStream
from pccpipe.outcome import Stream
from pccpipe.target import Chunk

READ_SIZE = 256 * 1024
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_LINE_ENDS = re.compile(rb"[\r\n]*")
_STATUS = re.compile(r"HTTP/1\.[01] ([0-9]{3})( .*)?")
HEAD_TIMEOUT = 30.0
"""Seconds for the engine to begin its answer."""


class EngineAnswerError(Exception):
    """An error that the engine answered: its status and its own words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status
        self.words = words


class EngineAnswer:
    """The answer to one call of the API, over a stream of its own: the head is read at once, the body by `read`."""

    def __init__(self, stream: ByteStream, method: str, path: str, *, upgrade: bool = False) -> None:
        """Send the call and read the head. Raises EngineAnswerError, ValueError, ConnectionError, TimeoutError."""
        self.stream = stream
        head = f"{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n"
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else "Connection: close\r\n"
        stream.settimeout(HEAD_TIMEOUT)
        stream.sendall(f"{head}\r\n".encode())
        status, headers, self._left = self._read_head()
        self.is_chunked = "chunked" in headers.get("transfer-encoding", "")
        self._length = number_or_none(headers.get("content-length"))
        if status not in {101, 200, 201, 204}:
            raise EngineAnswerError(status, self._error_words())

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def has_more(self) -> bool:
        """True if bytes came with the head that `read` has not returned yet."""
        return bool(self._left)

    def read(self) -> bytes:
        """Return the next bytes of the connection; wait if there are none; empty at its end.

        Raises ConnectionError if the connection broke.
        """
        data, self._left = self._left or self.stream.recv(READ_SIZE), b""
        return data

    def close(self) -> None:
        self.stream.close()

    def _read_head(self) -> tuple[int, dict[str, str], bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.stream.recv(READ_SIZE)
            if not more or len(data) > limits.ENGINE_HEAD.most:
                raise ConnectionResetError("the engine ended the connection before it answered")
            data += more
        head, _, left = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        status = _STATUS.fullmatch(lines[0])
        if status is None:
            raise ValueError(f"not an engine's answer: {lines[0][: limits.ENGINE_CHUNK_LINE.most]!r}")
        return int(status[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}, left

    def _error_words(self) -> str:
        body = Body(chunked=self.is_chunked)
        data = body.feed(self.read())
        while not body.ended and (self._length is None or len(data) < self._length):
            more = self.read()
            if not more:
                break
            data += body.feed(more)
        text = data.decode("utf-8", "replace").strip()
        try:
            return str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError):
            return text or "no words"


class Body:
    """Removes the frames of a chunked body."""

    def __init__(self, *, chunked: bool) -> None:
        self._chunked = chunked
        self._rest = b""
        """The beginning of an incomplete line."""
        self._needed = 0
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the content in `data`. Raises ValueError."""
        if not self._chunked:
            return data
        # An engine sends each line of a log as a chunk. Thousands come at once, so no chunk may cost a copy of all.
        data = self._rest + data
        at, content = 0, []
        while not self.ended:
            if self._needed:
                piece = data[at : at + self._needed]
                if not piece:
                    break
                at += len(piece)
                self._needed -= len(piece)
                content.append(piece)
                continue
            at = _line_ends_at(data, at)
            end = data.find(b"\r\n", at, at + limits.ENGINE_CHUNK_LINE.most)
            if end < 0 and len(data) - at < limits.ENGINE_CHUNK_LINE.most:
                break
            size = data[at : end if end >= 0 else at + limits.ENGINE_CHUNK_LINE.most].split(b";")[0].strip()
            if end < 0 or not _SIZE.fullmatch(size):
                raise ValueError(f"the engine sent no size of a chunk: {size!r}")
            at = end + 2
            self._needed = int(size, 16)
            self.ended = self._needed == 0
        self._rest = data[at:]
        return b"".join(content)


def _line_ends_at(data: bytes, at: int) -> int:
    """Return the place after the ends of lines at `at`."""
    found = _LINE_ENDS.match(data, at)
    assert found
    return found.end()


class FrameParser:
    """The engine's multiplexed output: an 8-byte head (stream, three zeros, length) before each piece."""

    _STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self._rest = b""
        """The beginning of an incomplete head."""
        self._stream = Stream.STDOUT
        self._needed = 0

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Return the output in `data`, with adjacent pieces of one stream joined. Raises ValueError.

        An incomplete piece is returned at once.
        """
        data = self._rest + data
        at = 0
        pieces: list[bytes] = []
        while at < len(data):
            if self._needed:
                pieces.append(data[at : at + self._needed])
                at += len(pieces[-1])
                self._needed -= len(pieces[-1])
                continue
            head = data[at : at + 8]
            if len(head) < 8:
                break
            stream = self._STREAMS.get(head[0])
            if stream is None or head[1:4] != b"\0\0\0":
                raise ValueError(f"the engine sent no frame of output: {head!r}")
            if stream is not self._stream and pieces:
                yield Chunk(self._stream, b"".join(pieces))
                pieces = []
            self._stream = stream
            self._needed = int.from_bytes(head[4:], "big")
            at += 8
        self._rest = data[at:]
        if pieces:
            yield Chunk(self._stream, b"".join(pieces))

    @property
    def is_between_frames(self) -> bool:
        """True if the output may end here; otherwise it was cut."""
        return not self._needed and not self._rest


class Beginning:
    """Removes the first line of stdout, which says that the command begins.

    Args:
        line: the line; empty for a container that prints none.
    """

    def __init__(self, line: str) -> None:
        self._line = f"{line}\n".encode() if line else b""
        self._held = b""
        self.is_known = not line
        """True if the command has begun: its line came, or other output instead."""

    def feed(self, chunk: Chunk) -> Chunk | None:
        """Return the command's part of the chunk; None if there is none."""
        if self.is_known or chunk.stream is not Stream.STDOUT:
            return chunk
        self._held += chunk.data
        if self._line.startswith(self._held) and self._held != self._line:
            return None
        self.is_known = True
        own = self._held.removeprefix(self._line)
        return Chunk(Stream.STDOUT, own) if own else None

    def rest(self) -> Chunk | None:
        """Return the bytes that were held back, at the end of the output."""
        return None if self.is_known or not self._held else Chunk(Stream.STDOUT, self._held)


class Skip:
    """Skips the part of repeated output that was given before."""

    def __init__(self, given: dict[Stream, int]) -> None:
        self._left = dict(given)

    def feed(self, chunk: Chunk) -> Chunk | None:
        """Return the new part of the chunk; None if there is none."""
        left = self._left.get(chunk.stream, 0)
        if not left:
            return chunk
        self._left[chunk.stream] = max(0, left - len(chunk.data))
        rest = chunk.data[left:]
        return Chunk(chunk.stream, rest) if rest else None
