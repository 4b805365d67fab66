"""Writes a run's events as lines of JSON, output included: for programs."""

from __future__ import annotations

from typing import BinaryIO

from pccpipe.record.codec import encode
from pccpipe.record.events import Event


class JsonLinesView:
    """Write each event in the journal's format; `output` events too."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        self._stream.write(encode(event))
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: other views have something to close."""
