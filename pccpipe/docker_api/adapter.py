"""The Docker SDK's client, whose requests go through `Machine.dial`.

It reaches the VM's engine by a channel of the run's one SSH connection, and the local engine by its socket. A call over
the channel takes 0.5 ms; one by `docker system dial-stdio` takes 97 to 137 ms.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

import docker
from pccpipe import limits
from pccpipe.errors import LimitExceeded
from pccpipe.json_reader import NotJson, read_json
from pccpipe.limits import Limit
from pccpipe.machine.base import ByteStream
from pccpipe.values import Json

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

BASE_URL = "http+docker://engine"
CALL_TIMEOUT = 60.0
"""Seconds for one call of the API. Calls that last (wait, attach, logs, build) have limits of their own."""

Dial = Callable[[], ByteStream]


def make_client(dial: Dial, version: str) -> docker.APIClient:
    """Return a client for an engine of this API version, without a connection yet."""
    # The SDK wants an address; the lines below replace it.
    client = _Client(base_url="tcp://127.0.0.1:9", version=version, timeout=int(CALL_TIMEOUT))
    client.base_url = BASE_URL
    client.mount("http+docker://", _EngineAdapter(dial))
    client.trust_env = False
    return client


class _Client(docker.APIClient):
    """Reads answers of bounded size, into values of bounded size."""

    def _result(self, response: Response, json: bool = False, binary: bool = False) -> Any:
        self._raise_for_status(response)
        if not json:
            return response.content if binary else response.text
        return read_json(response.content, "the engine's answer", limits.ENGINE_VALUES)

    def _raise_for_status(self, response: Response) -> None:
        if response.status_code >= 400 and len(response.content) > limits.ENGINE_ERROR.most:
            raise LimitExceeded(limits.ENGINE_ERROR)
        super()._raise_for_status(response)  # type: ignore[misc]

    def _stream_helper(self, response: Response, decode: bool = False) -> Iterator[Any]:
        """Return the values of an answer that lasts, such as a build's: one on each line."""
        pieces = super()._stream_helper(response, False)  # type: ignore[misc]
        if not decode:
            yield from pieces
            return
        held: list[bytes] = []
        size = 0
        for given in pieces:
            piece = given.encode() if isinstance(given, str) else given
            if b"\n" in piece:
                *lines, piece = b"".join([*held, piece]).split(b"\n")
                held, size = [], 0
                yield from (self._value_of(line) for line in lines if line.strip())
            held.append(piece)
            size += len(piece)
            if size > limits.ENGINE_LINE.most:
                raise LimitExceeded(limits.ENGINE_LINE)
        if (line := b"".join(held)).strip():
            yield self._value_of(line)

    def _value_of(self, line: bytes) -> Json:
        value = read_json(line, "the engine's answer", limits.ENGINE_VALUES)
        if not isinstance(value, dict):
            raise NotJson("a line of the engine's answer is not an object")
        return value


class _EngineAdapter(HTTPAdapter):
    def __init__(self, dial: Dial) -> None:
        self._limit = threading.local()
        self._pool = _Pool(dial, lambda: self._limit.most)
        super().__init__()

    def send(self, request: PreparedRequest, stream: bool = False, **options: Any) -> Response:  # type: ignore[override]
        self._limit.most = limits.ENGINE_STREAM if stream else limits.ENGINE_ANSWER
        return super().send(request, stream=stream, **options)

    def get_connection_with_tls_context(
        self,
        request: PreparedRequest,  # noqa: ARG002 - requests' own signature
        verify: bool | str | None,  # noqa: ARG002
        proxies: Mapping[str, str] | None = None,  # noqa: ARG002
        cert: object = None,  # noqa: ARG002
    ) -> HTTPConnectionPool:
        return self._pool

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:  # noqa: ARG002
        return request.path_url

    def close(self) -> None:
        self._pool.close()
        super().close()


class _Pool(HTTPConnectionPool):
    def __init__(self, dial: Dial, most: Callable[[], Limit]) -> None:
        super().__init__("localhost", maxsize=4)
        self._dial = dial
        self._most = most

    def _new_conn(self) -> HTTPConnection:
        return _Connection(self._dial, self._most)


class _Connection(HTTPConnection):
    def __init__(self, dial: Dial, most: Callable[[], Limit]) -> None:
        super().__init__("localhost")
        self._dial = dial
        self._most = most

    def connect(self) -> None:
        self.sock = _ApiSocket(self._dial(), self._most)
        self.sock.settimeout(self.timeout if isinstance(self.timeout, int | float) else CALL_TIMEOUT)

    @property
    def is_connected(self) -> bool:
        """True if it can take one more request; urllib3 also asks a connection whose stream is closed."""
        try:
            return super().is_connected
        except OSError:
            return False


class _ApiSocket:
    """A `ByteStream` as the socket that http.client wants: it stays open while a file made of it is open."""

    def __init__(self, stream: ByteStream, most: Callable[[], Limit]) -> None:
        self._stream = stream
        self._most = most
        self._lock = threading.Lock()
        self._files = 0
        self._closed = False

    def makefile(self, mode: str, buffering: int | None = None) -> io.BufferedReader:  # noqa: ARG002
        with self._lock:
            self._files += 1
        return io.BufferedReader(_ApiReader(self._stream, self._file_closed, self._most()), 64 * 1024)

    def sendall(self, data: bytes) -> None:
        self._stream.sendall(bytes(data))

    def settimeout(self, seconds: float | None) -> None:
        self._stream.settimeout(seconds)

    def fileno(self) -> int:
        return self._stream.fileno()

    def shutdown(self, how: int) -> None:  # noqa: ARG002
        self._stream.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._files:
                return
        self._stream.close()

    def _file_closed(self) -> None:
        with self._lock:
            self._files -= 1
            if self._files or not self._closed:
                return
        self._stream.close()


class _ApiReader(io.RawIOBase):
    def __init__(self, stream: ByteStream, closed: Callable[[], None], most: Limit) -> None:
        self._stream = stream
        self._on_close = closed
        self._read = 0
        self._most = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self._stream.recv(len(buffer))
        # Each answer has a reader of its own.
        self._read += len(data)
        if self._read > self._most.most:
            raise LimitExceeded(self._most)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._on_close()
