"""Nonsense from a machine is one error: pccpipe asks no further, and neither loops nor crashes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.detached.commands import Detached
from pccpipe.detached.programs import RunDir
from pccpipe.detached.trailer import TrailerFinder
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.isolation import isolation_of
from pccpipe.docker_api.settings import LIMIT_LABEL
from pccpipe.docker_api.stream import Body
from pccpipe.errors import ActionError, Lost, Nonsense, Unavailable
from pccpipe.machine.answers import number, number_or_none
from pccpipe.machine.base import Done, Process
from pccpipe.machine.local import LocalMachine
from pccpipe.machine.script import parse_facts
from pccpipe.outcome import Place as Where
from pccpipe.outcome import Reason
from pccpipe.target import Command, Isolation
from pccpipe.targets.container_exit import reached_limit
from pccpipe.values import Json
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.listing import list_tree
from tests.targets.stand import read_all

HAD = Isolation(Where.LOCAL, "localhost", "0:0")


@pytest.mark.parametrize(
    "said",
    ["", "x", "-1", "+1", "1e20", "1.5", "0x10", "nan", "inf", "²", " 1", "1\n", "9" * 17, "9" * 5000, 1.0],
)
def test_a_word_in_place_of_a_number_is_nonsense(said: object) -> None:
    with pytest.raises(Nonsense, match="vm: invalid answer: its exit code is ") as caught:
        number("vm", "exit code", said)
    assert caught.value.reason is Reason.NONSENSE
    assert len(str(caught.value)) < 200
    assert number_or_none(said) is None


@pytest.mark.parametrize("said", [None, True, [], {}, limits.MACHINE_NUMBER.most + 1, -1, b"\xff"])
def test_a_value_of_json_in_place_of_a_number_is_checked(said: object) -> None:
    assert number_or_none(said) is None


def test_a_number_is_read() -> None:
    assert [number("vm", "x", said, 255) for said in ("0", b"7", 255, "007")] == [0, 7, 255, 7]
    with pytest.raises(Nonsense):
        number("vm", "x", "256", 255)


@pytest.mark.parametrize(
    "trailer", [b" x -\n", b" 256 -\n", b" -1 -\n", b" 0 y\n", b" 0\n", b"\n", b" 9" * 100, b" 1e3 -\n"]
)
def test_an_invalid_trailer_is_nonsense(trailer: bytes) -> None:
    finder = TrailerFinder("mark", "vm")
    with pytest.raises(Nonsense, match="vm: invalid answer"):
        finder.feed(b"output\x1emark" + trailer)


class FuzzedMachine(LocalMachine):
    """A machine that replaces its shell's output."""

    def __init__(self, said: bytes, instead: bytes) -> None:
        super().__init__()
        self.said, self.instead = said, instead

    def popen(self, command: str) -> Process:
        return cast(Process, Lie(super().popen(command), self))


class Lie:
    """A process whose output is changed on the way."""

    def __init__(self, process: Process, liar: FuzzedMachine) -> None:
        self._process = process
        self._liar = liar

    def __getattr__(self, name: str) -> object:
        return getattr(self._process, name)

    def recv(self, size: int) -> bytes:
        return self._process.recv(size).replace(self._liar.said, self._liar.instead)

    def recv_stderr(self, size: int) -> bytes:
        return self._process.recv_stderr(size).replace(self._liar.said, self._liar.instead)


@pytest.fixture
def place(tmp_path: Path) -> RunDir:
    return RunDir("run", str(tmp_path / "state"))


def test_an_exit_code_of_letters_loses_the_command_at_once(place: RunDir, tmp_path: Path) -> None:
    detached = Detached(FuzzedMachine(b" 7    -\n", b" x    -\n"), place, limit=1, lost_after=60)
    detached.open()
    running = detached.start(Command("a-1", "a", 1, "echo out; exit 7"), str(tmp_path), HAD)
    began = time.monotonic()
    with pytest.raises(Lost, match="localhost: invalid answer: its exit code is 'x'"):
        read_all(running)
    assert time.monotonic() - began < 10
    running.discard()
    detached.close()


@pytest.mark.parametrize(
    "claim", ["x 0 0 {}/lane-0123456789abcdef", "{mark} x 0 {}/lane-0123456789abcdef", "{mark} 0 0 /etc", "{mark}", ""]
)
def test_an_invalid_claim_is_nonsense(place: RunDir, claim: str) -> None:
    words = claim.format(place.state, mark="0" * 32)
    detached = Detached(FuzzedMachine(b"none\x1e", words.encode() + b"\x1e"), place, limit=1)
    detached.open()
    with pytest.raises(Nonsense, match="localhost: invalid answer"):
        detached.find("a-1", HAD)
    detached.close()


@pytest.mark.parametrize("uid", ["x", "-1", "4294967296", "1e3", ""])
def test_an_invalid_user_id_is_refused(uid: str) -> None:
    with pytest.raises(ValueError, match="ids are"):
        parse_facts(Done(0, f"0\nLinux\n{uid}\n0\nroot\n/root\n/var/run/docker.sock\n".encode(), b""))


@pytest.mark.parametrize("size", [b"-5\r\nabc", b"x\r\n", b"fffffffff\r\n", b" \r\n", b"1" * 5000])
def test_a_chunk_without_a_size_is_an_error(size: bytes) -> None:
    with pytest.raises(ValueError, match="no size of a chunk"):
        Body(chunked=True).feed(size)


@contextmanager
def engine_that_says(folder: Path, answers: Callable[[bytes], bytes]) -> Iterator[DockerEngine]:
    """An engine that answers each call with the function's result for its first line."""
    path = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    line = connection.recv(65536).partition(b"\r\n")[0]
                    ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"
                    connection.sendall(ping if b"/_ping" in line else answers(line))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield DockerEngine(LocalMachine(), path)
        server.shutdown(socket.SHUT_RDWR)


def json_of(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


@pytest.mark.parametrize(
    "body", [b'[{"Id": "../x"}]', b'[{"Id": 1}]', b'[{"Id": ""}]', b"[{}]", b"[1]", b"{}", b"7", b'"x"', b"null"]
)
def test_an_invalid_list_of_containers_is_nonsense(tmp_path: Path, body: bytes) -> None:
    with engine_that_says(tmp_path, lambda line: json_of(body)) as engine, pytest.raises(Unavailable) as caught:
        engine.listed({"pccpipe.run": "x"})
    assert caught.value.reason is Reason.NONSENSE


@pytest.mark.parametrize("body", [b"[]", b"7", b'"x"', b"null", b'{"Id": 7}'])
def test_an_invalid_account_of_a_container_is_nonsense(tmp_path: Path, body: bytes) -> None:
    with engine_that_says(tmp_path, lambda line: json_of(body)) as engine, pytest.raises(Nonsense):
        engine.inspect("x")


@pytest.mark.parametrize("head", [b"HTTP/1.1 x OK\r\n\r\n", b"x\r\n\r\n", b"\r\n\r\n", b"HTTP/1.1 99999 OK\r\n\r\n"])
def test_an_invalid_head_is_nonsense(tmp_path: Path, head: bytes) -> None:
    with engine_that_says(tmp_path, lambda line: head) as engine, pytest.raises(Nonsense, match="answer of an engine"):
        engine.stream("POST", "/containers/x/wait")


def test_an_invalid_account_of_an_image_is_nonsense(tmp_path: Path) -> None:
    for body in (b"[]", b"7", b'{"Config": 7}', b'{"Config": {"Labels": [1]}}'):
        folder = tmp_path / os.urandom(4).hex()
        folder.mkdir()
        with engine_that_says(folder, lambda line, body=body: json_of(body)) as engine:  # type: ignore[misc]
            if body[:1] == b"{":
                assert engine.image_labels("x") == {}
            else:
                with pytest.raises(Nonsense):
                    engine.image_labels("x")
            with pytest.raises(Nonsense):
                engine.image_id("x")


class Saying(LocalMachine):
    """A machine whose find prints any bytes."""

    def __init__(self, said: bytes) -> None:
        super().__init__()
        self.said = said

    def popen(self, command: str) -> Process:
        words = "".join(f"\\{byte:03o}" for byte in self.said)
        return super().popen(f"printf '{words}'")


@pytest.mark.parametrize(
    "said",
    [
        b"f 1 1e20 644 ./a\0\0",
        b"f 1 100000000000000000000.0 644 ./a\0\0",
        b"f 1 nan 644 ./a\0\0",
        b"f 1 1.x 644 ./a\0\0",
        b"f -1 1.0 644 ./a\0\0",
        b"f 1e3 1.0 644 ./a\0\0",
        b"f 99999999999999999999 1.0 644 ./a\0\0",
        b"f 1 1.0 9 ./a\0\0",
        b"f 1\0\0",
    ],
)
def test_an_invalid_listing_is_one_error(said: bytes, tmp_path: Path) -> None:
    with pytest.raises(ActionError, match="localhost"):
        list(list_tree(Saying(said), str(tmp_path), None, Excluded(())))


class Endless(LocalMachine):
    """A machine whose find never ends."""

    def popen(self, command: str) -> Process:
        return super().popen("yes 'f 1 1.0 644 ./a@@' | tr -d '\\n' | tr @ '\\000'")


def test_an_endless_listing_is_cut_off_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TREE_ENTRIES", replace(limits.TREE_ENTRIES, most=10_000))
    listing = list_tree(Endless(), str(tmp_path), None, Excluded(()))
    with pytest.raises(ActionError, match=r"listing of .* on localhost exceeds the limit of 10,000; fix: `exclude`"):
        deque(listing, maxlen=0)


def test_a_file_from_before_1970_has_a_time(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    os.utime(tmp_path / "old", ns=(-3_600_000_000_000, -3_600_000_000_000))
    (entry,) = list_tree(LocalMachine(), str(tmp_path), None, Excluded(()))
    assert entry.mtime_ns == -3_600_000_000_000


@pytest.mark.parametrize("said", [10**400, -1, 1e20, "x", True, None, [1]])
def test_an_invalid_limit_counts_as_none(said: Json) -> None:
    settings: Json = {"Memory": said, "NanoCpus": said, "PidsLimit": said}
    had = isolation_of("vm", "name", {"Config": {}, "HostConfig": settings}, None)
    assert (had.memory, had.cpus, had.pids) == (None, None, None)


def test_an_invalid_time_counts_as_no_time_limit() -> None:
    for began, ended, limit in (
        ("x", "y", "1"),
        ("2026-01-01T00:00:00", "2026-01-01T00:01:00Z", "1"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "1e1"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "nan"),
    ):
        state: Json = {"StartedAt": began, "FinishedAt": ended}
        account: dict[str, Json] = {
            "Created": began,
            "State": state,
            "Config": {"Labels": {LIMIT_LABEL: limit}},
        }
        assert not reached_limit(account, 143)
        assert not reached_limit(account, 0)
