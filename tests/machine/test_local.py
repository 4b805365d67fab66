from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
import sh
from pytest_mock import MockerFixture

from pccpipe.errors import Nonsense, Unavailable
from pccpipe.machine.base import Done
from pccpipe.machine.local import LocalMachine, spawn
from pccpipe.machine.script import read_to_end
from pccpipe.outcome import Reason


def test_facts_describe_this_machine() -> None:
    facts = LocalMachine().facts
    assert (facts.uid, facts.gid, facts.home) == (os.getuid(), os.getgid(), os.environ["HOME"])
    assert facts.system == os.uname().sysname
    assert facts.user


def test_a_script_runs_to_its_end_with_an_empty_stdin() -> None:
    assert LocalMachine().run("cat; echo out; echo err >&2; exit 3") == Done(3, b"out\n", b"err\n")
    assert LocalMachine().run("kill -TERM $$").code == 143


def test_a_script_that_takes_too_long_raises_timeout_error() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        LocalMachine().run("sleep 3", timeout=0.2)
    assert time.monotonic() - started < 1


def test_a_script_with_too_much_output_is_nonsense() -> None:
    with pytest.raises(Nonsense, match="exceeds the limit of 40 MiB"):
        LocalMachine().run("yes", timeout=30)


def test_a_program_takes_input_while_it_prints_output() -> None:
    process = LocalMachine().popen("cat; echo done >&2; exit 4")
    data = os.urandom(3_000_000)

    def feed() -> None:
        process.sendall(data)
        process.shutdown_write()

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert read_to_end(process, time.monotonic() + 20) == (data, b"done\n")
    assert process.wait(1) == 4
    feeder.join()
    process.close()


def test_a_program_that_neither_reads_nor_writes_runs_into_the_timeout() -> None:
    process = LocalMachine().popen("sleep 5")
    process.settimeout(0.2)
    with pytest.raises(TimeoutError):
        process.sendall(b"x" * 1_000_000)
    with pytest.raises(TimeoutError):
        process.recv(1)
    with pytest.raises(TimeoutError):
        process.wait(0.1)
    assert process.ready(0.1) == (False, False)
    process.close()


def test_withheld_variables_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN", "1")
    monkeypatch.setenv("SHOWN", "2")
    assert LocalMachine(frozenset({"HIDDEN"})).run('echo "$HIDDEN$SHOWN"').stdout == b"2\n"


def test_a_program_has_a_session_of_its_own() -> None:
    assert int(LocalMachine().run("ps -o sid= -p $$ || cut -d' ' -f6 /proc/$$/stat").stdout) != os.getsid(0)


def test_dialling_reaches_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        stream = LocalMachine().dial(str(path))
        other, _ = server.accept()
        stream.sendall(b"ping")
        assert other.recv(10) == b"ping"
        other.sendall(b"pong")
        assert stream.recv(10) == b"pong"
        stream.shutdown_write()
        assert other.recv(10) == b""
        stream.settimeout(0.05)
        with pytest.raises(TimeoutError):
            stream.recv(1)
        stream.close()
        other.close()


def test_each_failure_to_dial_a_socket_has_its_reason(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(dead))
    for path, reason in {
        tmp_path / "missing": Reason.ENGINE_MISSING,
        dead: Reason.ENGINE_STOPPED,
    }.items():
        with pytest.raises(Unavailable, match=path.name) as caught:
            LocalMachine().dial(str(path))
        assert caught.value.reason is reason


def test_no_descriptor_is_left_open() -> None:
    here = LocalMachine()
    here.run("true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        here.run("true")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_failed_start_is_reported_in_one_line(mocker: MockerFixture) -> None:
    said = "\n\nOriginal exception:\n\nTraceback (most recent call last):\n  File ...\nOSError: no descriptors"
    command = mocker.patch("sh.Command")
    command.return_value.side_effect = sh.ForkException(said)
    with pytest.raises(Unavailable) as caught:
        LocalMachine().run("true")
    assert caught.value.words == "cannot start a program on this machine: OSError: no descriptors"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/none/python3", "this user cannot run /none/python3"),
        ("no-such-sh", "no-such-sh is not in PATH on this machine"),
    ],
)
def test_the_error_names_a_program_that_cannot_start(program: str, words: str) -> None:
    with pytest.raises(Unavailable) as caught:
        spawn(program, [], {}, 0, 1, 2)
    assert (caught.value.reason, caught.value.words) == (Reason.SHELL_MISSING, words)
