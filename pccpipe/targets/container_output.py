"""One connection's output of a container, and the engine's answer on the container's end."""

from __future__ import annotations

import json
import select
from collections.abc import Sequence

from pccpipe import limits
from pccpipe.docker_api.stream import Beginning, Body, EngineAnswer, FrameParser, Skip
from pccpipe.errors import Nonsense
from pccpipe.machine.answers import EXIT_CODES, number
from pccpipe.target import Chunk


class OutputReader:
    """Reads the command's own output from a stream of the engine.

    Args:
        mark: the line before it; empty for none.
        skip: what was read from an earlier connection.
    """

    def __init__(self, host: str, answer: EngineAnswer, mark: str, skip: Skip) -> None:
        self._host = host
        self.answer = answer
        self._body = Body(chunked=answer.is_chunked)
        self._frames = FrameParser()
        self._beginning = Beginning(mark)
        self._skip = skip
        self.has_ended = False

    @property
    def has_begun(self) -> bool:
        """True if the command has begun."""
        return self._beginning.is_known

    def read(self) -> list[Chunk]:
        """Read once, and return what is new. Raises Nonsense, ConnectionError."""
        data = self.answer.read()
        try:
            chunks = [self._beginning.feed(chunk) for chunk in self._frames.feed(self._body.feed(data))]
        except ValueError as error:
            raise Nonsense(self._host, "output", str(error)) from error
        self.has_ended = not data or self._body.ended
        if self.has_ended:
            if not self._frames.is_between_frames:
                raise ConnectionResetError("the output was cut")
            chunks.append(self._beginning.rest())
        return [new for chunk in chunks if chunk and (new := self._skip.feed(chunk))]


class ExitReader:
    """Reads the exit code in the answer to a call that waits for a container's end."""

    def __init__(self, host: str, answer: EngineAnswer) -> None:
        self._host = host
        self.answer = answer
        self._body = Body(chunked=answer.is_chunked)
        self._text = b""

    def read(self) -> int | None:
        """Read once; return the exit code if it is there. Raises Nonsense, ConnectionError."""
        data = self.answer.read()
        try:
            self._text += self._body.feed(data)
        except ValueError as error:
            raise Nonsense(self._host, "report on a container's end", str(error)) from error
        if len(self._text) > limits.WAIT_ANSWER.most:
            raise Nonsense(self._host, "report on a container's end", self._text)
        try:
            answer = json.loads(self._text)
        except (ValueError, RecursionError):
            if not data:
                raise ConnectionResetError("the engine ended the wait") from None
            return None
        code = answer.get("StatusCode") if isinstance(answer, dict) else None
        return number(self._host, "container's exit code", code, EXIT_CODES)


def wait_readable(answers: Sequence[EngineAnswer], timeout: float) -> list[EngineAnswer]:
    """Wait until some of the answers can be read, and return those."""
    if unread := [answer for answer in answers if answer.has_more]:
        return unread
    poller = select.poll()
    by_fd = {answer.fileno(): answer for answer in answers}
    for fd in by_fd:
        poller.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poller.poll(max(0.0, timeout) * 1000)]
