"""The events as they are, one a line, output included: for programs."""

from __future__ import annotations

from typing import BinaryIO

from pccpipe.record.codec import encode
from pccpipe.record.events import Event


class JsonLinesView:
    """Writes each event as a line of JSON; the journal's format, and `output` beside it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        self._stream.write(encode(event))
        self._stream.flush()

    def close(self) -> None:
        """Nothing is kept open; for the sake of the other views."""
