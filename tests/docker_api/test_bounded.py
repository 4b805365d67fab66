"""A hostile engine, whose answers are too large."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pccpipe import limits
from tests.stall import measured

HOSTILE = """
import socket
import threading
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.machine.local import LocalMachine

def serve(path, answer):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    def one(connection):
        try:
            while head := connection.recv(65536):
                if b"_ping" in head:
                    connection.sendall(b"HTTP/1.1 200 OK\\r\\nApi-Version: 1.45\\r\\nContent-Length: 2\\r\\n\\r\\nOK")
                else:
                    for piece in answer():
                        connection.sendall(piece)
        except OSError:
            pass
    def loop():
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()

def endless():
    yield b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
    for _ in range(1500):
        yield b"100000\\r\\n" + b" " * (1 << 20) + b"\\r\\n"

def whole(status, body):
    yield b"HTTP/1.1 %s X\\r\\nContent-Length: %d\\r\\n\\r\\n" % (status, len(body))
    yield body

ANSWERS = {
    "endless": endless,
    "large": lambda: whole(b"200", b'{"Id": "' + b"a" * (9 << 20) + b'"}'),
    "values": lambda: whole(b"200", b"[" + b"[]," * (5 << 20) + b"1]"),
    "nested": lambda: whole(b"200", b"[" * 100_000),
    "error": lambda: whole(b"500", b'{"message": "' + b"x" * (1 << 20) + b'"}'),
    "wide error": lambda: whole(b"500", b"[" + b"[]," * 300_000 + b"1]"),
    "number": lambda: whole(b"200", b'{"Id": ' + b"9" * 100_000 + b"}"),
    "fits": lambda: whole(b"200", b'{"Id": "%s", "text": "%s"}' % (b"a" * 64, b"x" * (7 << 20))),
}
"""


BUILDS = """
def chunks(*pieces):
    yield b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
    for piece in pieces:
        yield b"%x\\r\\n%s\\r\\n" % (len(piece), piece)
    yield b"0\\r\\n\\r\\n"

BUILDS = {
    "fits": lambda: chunks(*[b'{"stream": "%s"}\\r\\n' % (b"x" * 100_000)] * 200),
    "no end of a line": lambda: chunks(*[b"x" * 50_000] * 100),
    "tiny pieces": lambda: chunks(*[b"x"] * 300_000),
    "control": lambda: chunks(b'{"stream": "\\x14"}\\n'),
    "list": lambda: chunks(b"[1]\\n"),
    "nested": lambda: chunks(b"[" * 100_000 + b"\\n"),
}
"""


@pytest.mark.parametrize("which", ["fits", "no end of a line", "tiny pieces", "control", "list", "nested"])
def test_a_builds_output_exhausts_neither_memory_nor_the_interpreter(tmp_path: Path, which: str) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch")
    setup = f"""{HOSTILE}{BUILDS}
from pathlib import Path
folder = Path({str(tmp_path)!r})
serve(str(folder / "s"), BUILDS[{which!r}])
engine = DockerEngine(LocalMachine(), str(folder / "s"))
engine.open()
import docker.errors, requests
"""
    work = "engine.build('i', folder / 'context', folder / 'context/Dockerfile', {}, lambda data: None)"
    longest, memory, said = measured(setup, work)
    assert (said == "") == (which == "fits"), said
    assert said.startswith("" if which == "fits" else "Nonsense"), said
    assert longest < limits.PAUSE
    assert memory < limits.MARGIN


@pytest.mark.parametrize("which", ["endless", "large", "values", "nested", "error", "wide error", "number", "fits"])
def test_an_answer_exhausts_neither_memory_nor_the_interpreter(tmp_path: Path, which: str) -> None:
    setup = f"""{HOSTILE}
path = {str(tmp_path / "s")!r}
serve(path, ANSWERS[{which!r}])
engine = DockerEngine(LocalMachine(), path)
engine.open()
import docker.errors, requests
"""
    longest, memory, said = measured(setup, "engine.inspect('x')")
    if which == "fits":
        assert said == ""
    else:
        assert said.startswith("Nonsense"), said
    assert longest < limits.PAUSE
    assert memory < limits.ENGINE_ANSWER.most + limits.MARGIN


def test_pccpipes_own_error_is_not_blamed_on_the_engine() -> None:
    from pccpipe.docker_api.engine import DockerEngine
    from pccpipe.docker_api.isolation import engine_options
    from pccpipe.docker_api.problems import ApiCall
    from pccpipe.errors import Nonsense, Unavailable
    from tests.fuzz.sides import NEXT, FuzzedMachine

    ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\n\r\n"
    answer = b"HTTP/1.1 500 no\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n[[1]"
    engine = DockerEngine(FuzzedMachine(ping + NEXT + answer), "/sock")
    with pytest.raises(AttributeError):
        engine.ask(ApiCall.OTHER, lambda _: engine_options(None))  # type: ignore[arg-type]
    with pytest.raises(Nonsense):
        engine.ask(ApiCall.OTHER, lambda client: int(client.base_url))
    for bad in (b"[1]", b'"x"', b"1e999", b'{"message": ', b"\xff\xfe", b"[" * 500):
        head = b"HTTP/1.1 404 no\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(bad)
        for status in (b"404 no", b"200 OK"):
            liar = DockerEngine(FuzzedMachine(ping + NEXT + head.replace(b"404 no", status) + bad), "/sock")
            with contextlib.suppress(Unavailable):  # Nonsense is one of them
                liar.inspect("c")
