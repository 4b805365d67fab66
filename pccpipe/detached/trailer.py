"""Finds the end of a command's output in a stream, which says so in-band behind a mark that nobody can guess."""

from __future__ import annotations

from msgspec import Struct

from pccpipe import limits
from pccpipe.errors import Nonsense
from pccpipe.machine.answers import EXIT_CODES, number


class Trailer(Struct, frozen=True):
    """The line behind a command's output."""

    code: int | None
    """The exit code; None if the command's supervisor was killed, so it is unknown."""
    timed_out: bool
    reusable: bool
    """False if some process still holds the lane's FIFOs."""
    left_processes: bool = False
    """True if it left processes in the background, which were killed."""

    @staticmethod
    def of(host: str, said: str) -> Trailer:
        """Read the words of lane.sh: `0 -`. Raises Nonsense."""
        code, _, flag = said.strip().partition(" ")
        if flag.strip() not in {"-", "t", "d", "b"}:
            raise Nonsense(host, "report on a command's end", said)
        ended = None if code == "lost" else number(host, "exit code", code, EXIT_CODES)
        return Trailer(ended, flag.strip() == "t", flag.strip() != "d", flag.strip() == "b")


class TrailerFinder:
    """The finder for one output stream of one command: bytes in, output out, and at the end the trailer.

    Args:
        host: the machine, for errors.
    """

    def __init__(self, mark: str, host: str = "") -> None:
        self._host = host
        # It begins with a control character, because `feed` holds back a possible beginning of the mark.
        self._mark = b"\x1e" + mark.encode()
        self._held = b""
        self._line: bytearray | None = None
        self.trailer: Trailer | None = None

    @property
    def has_found(self) -> bool:
        """True once the trailer has begun."""
        return self._line is not None

    def feed(self, data: bytes) -> bytes:
        """Return the output in `data`, and in what it held back before. Raises Nonsense."""
        if self._line is not None:
            self._read_line(data)
            return b""
        if self._held:
            data = self._held + data
            self._held = b""
        at = data.find(self._mark)
        if at >= 0:
            self._line = bytearray()
            self._read_line(data[at + len(self._mark) :])
            return data[:at]
        keep = self._beginning(data)
        if keep:
            self._held = data[-keep:]
            return data[:-keep]
        return data

    def give_up(self) -> bytes:
        """Return what it held back, which was output after all, because nothing more comes."""
        held, self._held = self._held, b""
        return held

    def _beginning(self, data: bytes) -> int:
        """Count the bytes at the end of `data` that may be the beginning of the mark."""
        at = data.find(self._mark[:1], max(0, len(data) - len(self._mark) + 1))
        while at >= 0:
            if self._mark.startswith(data[at:]):
                return len(data) - at
            at = data.find(self._mark[:1], at + 1)
        return 0

    def _read_line(self, data: bytes) -> None:
        assert self._line is not None
        self._line += data
        if self._line.endswith(b"\n") or len(self._line) > limits.TRAILER.most:
            self.trailer = Trailer.of(self._host, self._line.decode("ascii", "replace"))
