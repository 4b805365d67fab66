"""A gap in a flood of output may begin or end in a secret: no part of it reaches the log or a view."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pccpipe.cancel import Cancel
from pccpipe.executor.context import RunContext
from pccpipe.executor.follow import MARGIN, follow
from pccpipe.outcome import Place, Stream
from pccpipe.record.events import Event, Output
from pccpipe.record.journal import Journal
from pccpipe.record.logs import CommandLog
from pccpipe.record.room import Room
from pccpipe.secrets.mask import Masker
from pccpipe.target import Chunk, Exit, Isolation, Token

SECRET = b"sk-HOLE-4f9a7c21e8d35b60"
LIMIT = 4000
PIECE = 6
"""The number of bytes of it that may appear by chance."""


class Flood:
    """A `Running` that returns the chunks of a test."""

    token: Token = {}  # noqa: RUF012 - never changed
    isolation = Isolation(Place.LOCAL, "localhost", "1:1")

    def __init__(self, *chunks: Chunk) -> None:
        self._left: list[Chunk | Exit] = [*chunks, Exit(0)]

    def read(self, timeout: float) -> Chunk | Exit:
        return self._left.pop(0)

    def may_skip(self, beginning: int, ending: int) -> None: ...
    def cpu_seconds(self) -> float | None: ...
    def stop(self, grace: float) -> None: ...
    def fetch(self, name: str, limit: int) -> bytes:
        return b""

    def let_go(self) -> None: ...

    def discard(self) -> None: ...


@pytest.mark.parametrize("cut", range(1, len(SECRET)))
@pytest.mark.parametrize("more", [False, True])
def test_no_part_of_a_secret_is_kept_or_shown_at_the_edges_of_a_hole(tmp_path: Path, cut: int, more: bool) -> None:
    before, after = SECRET[:cut], SECRET[cut:]
    last = b"x" * (MARGIN + Masker([SECRET.decode()]).longest) + b"\nlast words\n"
    out = Stream.STDOUT
    hole = Chunk(out, after + last, skipped=0 if more else 10**9, skipped_more=more)
    log, text = followed(tmp_path, Flood(Chunk(out, b"first words " + before), hole))
    assert log.startswith(b"first words \n...")
    assert log.endswith(b"last words\n")
    for seen in (log, text.encode()):
        assert not any(SECRET[at : at + PIECE] in seen for at in range(len(SECRET) - PIECE + 1))
        assert not seen.startswith(b"first words " + before[:1])


@pytest.mark.parametrize("cut", range(1, len(SECRET)))
def test_what_ends_right_after_a_hole_is_left_out_as_it_may_be_the_rest_of_a_secret(tmp_path: Path, cut: int) -> None:
    out = Stream.STDOUT
    log, _ = followed(tmp_path, Flood(Chunk(out, SECRET[:cut]), Chunk(out, SECRET[cut:] + b"\n", skipped=100)))
    assert log == b"... %d bytes left out here by log_limit ...\n" % (100 + len(SECRET) + 1)


@pytest.mark.parametrize("cut", range(1, len(SECRET)))
def test_no_part_of_a_secret_is_kept_where_the_beginning_of_a_log_ends(tmp_path: Path, cut: int) -> None:
    filler = b"a" * (LIMIT // 2 - cut)
    chunks = [Chunk(Stream.STDOUT, piece) for piece in (filler, SECRET, b"b" * LIMIT)]
    log, text = followed(tmp_path, Flood(*chunks))
    for seen in (log, text.encode()):
        assert not any(SECRET[at : at + PIECE] in seen for at in range(len(SECRET) - PIECE + 1))


def followed(folder: Path, flood: Flood) -> tuple[bytes, str]:
    """Follow it to its end; return the log, and the text that a view got."""
    shown: list[str] = []

    def show(event: Event) -> None:
        if isinstance(event.what, Output):
            shown.append(event.what.text)

    masker = Masker([SECRET.decode()])
    journal = Journal.create(folder / "run", [show], masker.text)
    parts = cast("RunContext", SimpleNamespace(masker=masker, journal=journal, cancel=Cancel(), room=Room()))
    with CommandLog(folder / "run", "out.log", "err.log", limit=LIMIT) as log:
        follow(parts, "flood", flood, log, None)
    journal.close()
    return log.stdout_path.read_bytes(), "".join(shown)
