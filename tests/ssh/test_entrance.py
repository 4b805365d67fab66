"""Programs behind the start-up files of a login: with any of these, a program gets all its input."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pccpipe.errors import Unavailable
from pccpipe.machine.base import Done
from pccpipe.machine.script import read_to_end
from pccpipe.outcome import Reason
from pccpipe.ssh import entrance, transport
from pccpipe.ssh.connection import Connection
from tests.targets.conftest import vm_spec
from tests.targets.stand import until
from tests.testbed.vm import VM

MakeConnection = Callable[[str], Connection]


@pytest.fixture
def behind(vm: VM) -> Iterator[MakeConnection]:
    """Return a function that connects as a login with this ~/.bashrc."""
    made: list[Connection] = []

    def make(text: str) -> Connection:
        vm.sh("cat >/home/pcc/.bashrc", stdin=text)
        made.append(Connection(vm_spec(vm)))
        return made[-1]

    yield make
    vm.sh("rm -f /home/pcc/.bashrc")
    for connection in made:
        connection.close()


@pytest.mark.parametrize(
    "text",
    [
        "read -t 0.3 answer\n",
        "head -n 1 >/dev/null\n",
        "read first; read second\n",
        "echo hello; echo there >&2\n",
        "printf 'no end of line'; printf 'nor here' >&2\n",
        "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2\n",
        "set -x\n",
        "sleep 300 >/dev/null 2>&1 &\n",
        "alias read=false echo=false until=false; trap 'echo bye' EXIT\n",
    ],
)
def test_no_start_up_file_gets_a_part_of_a_program_or_adds_to_its_output(
    behind: MakeConnection, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "NUDGE", 0.3)
    connection = behind(text)
    data = os.urandom(100_000) + b"\n"
    process = connection.popen("tee /dev/stderr; exit 4")
    process.sendall(data)
    process.shutdown_write()
    assert read_to_end(process, time.monotonic() + 10) == (data, data)
    assert process.wait(1) == 4
    process.close()
    assert connection.run("echo out; echo err >&2; exit 3") == Done(3, b"out\n", b"err\n")
    assert connection.facts.user == "pcc"


def test_programs_that_begin_together_each_get_their_own_input(behind: MakeConnection) -> None:
    connection = behind("read -t 0.1 answer; echo hello\n")

    def one(number: int) -> tuple[bytes, bytes]:
        process = connection.popen("cat")
        process.sendall(b"%d\n" % number)
        process.shutdown_write()
        output = read_to_end(process, time.monotonic() + 20)
        process.close()
        return output

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(24))) == [(b"%d\n" % number, b"") for number in range(24)]


@pytest.mark.parametrize("text", ["cat >/dev/null\n", "echo wait for it; sleep 60\n", "yes\n"])
def test_an_endless_start_up_file_is_named(behind: MakeConnection, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrance, "LIMIT", 1.5)
    monkeypatch.setattr(entrance, "NUDGE", 0.3)
    error = refusal(behind(text))
    assert "a start-up file of pcc (~/.bashrc) waits" in error.words
    assert "end at once without a terminal" in error.hint
    if "wait for it" in text:
        assert error.words.endswith("It said: wait for it")


def test_a_cut_network_is_not_blamed_on_a_start_up_file(fresh_vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LIMIT", 4.0), ("SILENCE", 2.0), ("NUDGE", 0.2)):
        monkeypatch.setattr(entrance, name, value)
    monkeypatch.setattr(transport, "PING_INTERVAL", 0.5)
    fresh_vm.sh("cat >/home/pcc/.bashrc", stdin="touch begun; sleep 60\n")
    connection = Connection(vm_spec(fresh_vm))
    # While the network works, the file is to blame.
    assert "a start-up file of pcc" in refusal(connection).words
    fresh_vm.sh("rm /home/pcc/begun")
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(connection.popen, "cat")
        until(lambda: fresh_vm.sh("ls /home/pcc/begun", check=False).returncode == 0)
        fresh_vm.cut()
        with pytest.raises(ConnectionResetError, match="did not answer for"):
            opening.result()
    connection.close()


def test_a_start_up_file_that_redirects_the_output_is_named(
    behind: MakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "LAG", 0.5)
    assert "redirects stdout or stderr" in refusal(behind("exec 2>&1\n")).words


def test_a_login_without_a_shell_is_refused_in_its_own_words(behind: MakeConnection) -> None:
    assert "exit code 7" in refusal(behind("exit 7\n")).words
    error = refusal(behind("echo; echo 'This account  is currently not available.'; exit 1\n"))
    assert "gave no shell: This account is currently not available." in error.words
    assert "nologin" in error.hint
    assert "ForceCommand" in error.hint


def refusal(connection: Connection) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        connection.popen("cat")
    assert caught.value.reason is Reason.SSH_SESSION_REFUSED
    return caught.value
