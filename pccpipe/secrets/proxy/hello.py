"""Reads the first message of TLS, to know the server of a tunnel before it sends a byte there."""

from __future__ import annotations

import ipaddress

from pccpipe import limits
from pccpipe.errors import PccpipeError
from pccpipe.values import cut

HANDSHAKE, ALERT_UNRECOGNIZED_NAME = 22, bytes.fromhex("15030300020270")
_CHANGE_CIPHER_SPEC = bytes.fromhex("140303000101")
_CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 1, 0, 0
_ENCRYPTED = {0xFE0D: "an encrypted ClientHello (ECH)", 0xFFCE: "an encrypted server name (ESNI)"}
_RECORD = 1 << 14
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a server's answer that asks for another ClientHello (RFC 8446, 4.1.3)."""
ANSWER_HEAD = 43
"""Bytes of a server's first record up to the end of that random."""


class RefusedHelloError(PccpipeError):
    """A tunnel begins with bytes that may not pass."""


class HelloScreen:
    """Lets the beginning of a tunnel through if it is TLS for the host that was asked for.

    Args:
        host: the name or address that the tunnel was asked for.
        plain: bytes without TLS may pass too.
    """

    def __init__(self, host: str, *, plain: bool) -> None:
        self._host = host.lower().rstrip(".")
        self._plain = plain
        self._held = bytearray()
        self._message = _Message()
        self._answer = bytearray()
        self._retried = False
        self.is_waiting = True
        """The client has not named its server yet."""
        self.needs_answer = False
        """Do not read from the client before the server answers."""

    @property
    def is_due(self) -> bool:
        """The client still has to send a ClientHello, or the rest of one."""
        return self.is_waiting and (bool(self._held) or self._retried or not self._plain)

    def from_client(self, data: bytes) -> bytes:
        """Add bytes of the client; return those that may go to the server. Raises RefusedHelloError."""
        if not self.is_waiting:
            return data
        self._held += data
        if self._plain and not self._retried and self._held and self._held[0] != HANDSHAKE:
            self.is_waiting = False
            return self._release(len(self._held))
        if self._retried and len(self._held) < len(_CHANGE_CIPHER_SPEC):
            return b""
        before = self._prefix_size()
        message = self._message.read(self._held[before:])
        if message is None:
            if len(self._held) > limits.CLIENT_HELLO.most:
                raise RefusedHelloError(limits.CLIENT_HELLO.exceeded())
            return b""
        self._check(message)
        size = before + self._message.size
        if size < len(self._held):
            # The rest could hide a second hello, which only the server's answer would reveal.
            raise RefusedHelloError("it sends more after its ClientHello before the server answers (early data)")
        self.is_waiting = False
        self.needs_answer = not self._retried
        return self._release(size)

    def from_server(self, data: bytes) -> None:
        """Inspect the beginning of the server's answer: it may ask for a second ClientHello."""
        if not self.needs_answer:
            return
        self._answer += data[:ANSWER_HEAD]
        # An answer that is not a ServerHello (an alert, 7 bytes long) asks for nothing.
        if self._answer[0] == HANDSHAKE and len(self._answer) < ANSWER_HEAD:
            return
        self.needs_answer = False
        if self._answer[0] == HANDSHAKE and self._answer[11:ANSWER_HEAD] == _RETRY:
            self.is_waiting = self._retried = True

    def _prefix_size(self) -> int:
        """Return the size of the empty message that may precede a second ClientHello."""
        return len(_CHANGE_CIPHER_SPEC) if self._retried and self._held.startswith(_CHANGE_CIPHER_SPEC) else 0

    def _release(self, size: int) -> bytes:
        passed = bytes(self._held[:size])
        self._held.clear()
        self._message = _Message()
        return passed

    def _check(self, message: bytes) -> None:
        names = _server_names(message)
        if not names and _is_address(self._host):
            return
        if not names:
            raise RefusedHelloError("its ClientHello names no server (SNI)")
        if len(names) > 1 or names[0].lower().rstrip(".") != self._host:
            raise RefusedHelloError(f"its ClientHello is for {cut(', '.join(names), 200)!r}")


class _HelloReader:
    """Reads numbers and fields of a message. Raises RefusedHelloError if it is too short or too long."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise RefusedHelloError("its ClientHello is malformed")
        self._at += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def field(self, size: int) -> _HelloReader:
        """Read a field that follows its length, a number of `size` bytes."""
        return _HelloReader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)


class _Message:
    """Assembles a ClientHello from its records. Reads each byte once, however small the pieces are."""

    def __init__(self) -> None:
        self._message = bytearray()
        self.size = 0
        """The size of the records so far."""

    def read(self, data: bytes | bytearray) -> bytes | None:
        """Continue with all data so far; None if something is missing. Raises RefusedHelloError."""
        while True:
            head = bytes(data[self.size : self.size + 5])
            if head[:1] not in {b"", bytes([HANDSHAKE])} or head[1:2] not in {b"", b"\x03"}:
                raise RefusedHelloError("it is not TLS")
            if len(head) < 5:
                return None
            end = self.size + 5 + int.from_bytes(head[3:5], "big")
            if not self.size + 5 < end <= self.size + 5 + _RECORD:
                raise RefusedHelloError("it is not TLS")
            if end > len(data):
                return None
            self._message += data[self.size + 5 : end]
            self.size = end
            if self._is_whole():
                return bytes(self._message[4:])

    def _is_whole(self) -> bool:
        if self._message[0] != _CLIENT_HELLO:
            raise RefusedHelloError("it does not begin with a ClientHello")
        if len(self._message) < 4:
            return False
        whole = 4 + int.from_bytes(self._message[1:4], "big")
        if whole > limits.CLIENT_HELLO.most:
            raise RefusedHelloError(limits.CLIENT_HELLO.exceeded())
        if len(self._message) > whole:
            raise RefusedHelloError("its ClientHello is followed by more data")
        return len(self._message) == whole


def _server_names(message: bytes) -> list[str]:
    """Return the names that a ClientHello asks for. Raises RefusedHelloError."""
    reader = _HelloReader(message)
    reader.take(2 + 32)  # version, random
    reader.field(1)  # session
    reader.field(2)  # ciphers
    reader.field(1)  # compressions
    names: list[str] = []
    if reader.is_over:
        return names
    extensions = reader.field(2)
    if reader.rest():
        raise RefusedHelloError("its ClientHello is malformed")
    seen: set[int] = set()
    while not extensions.is_over:
        kind, content = extensions.number(2), extensions.field(2)
        if kind in _ENCRYPTED:
            raise RefusedHelloError(f"it carries {_ENCRYPTED[kind]}, which hides the server's name")
        if kind in seen:
            raise RefusedHelloError("its ClientHello has an extension twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            entries = content.field(2)
            while not entries.is_over:
                of, name = entries.number(1), entries.field(2).rest()
                names.append(name.decode("ascii", "replace") if of == _HOST_NAME else f"a name of the kind {of}")
            if not content.is_over or not names:
                raise RefusedHelloError("its ClientHello is malformed")
    return names


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
