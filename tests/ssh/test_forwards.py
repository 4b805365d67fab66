"""Connections of a VM's programs to this process: over real sshd, also after a lost connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pccpipe.errors import Unavailable
from pccpipe.machine.base import ByteStream
from pccpipe.outcome import Reason
from pccpipe.ssh.connection import Connection
from tests.targets.conftest import vm_spec
from tests.testbed.vm import VM

FOLDER = "/home/pcc/forwards"
ASK = """perl -MIO::Socket::UNIX -MIO::Socket::INET -e '
  $s = $ARGV[0] =~ m{^/} ? IO::Socket::UNIX->new(Peer => $ARGV[0]) : IO::Socket::INET->new(PeerAddr => $ARGV[0]);
  die "no: $!\\n" unless $s; print $s "hello\\n"; shutdown($s, 1); print <$s>;' """


@pytest.fixture
def connection(vm: VM) -> Iterator[Connection]:
    made = Connection(vm_spec(vm))
    made.run(f"mkdir -p {FOLDER}")
    yield made
    made.run(f"rm -rf {FOLDER}")
    made.close()


def echo(stream: ByteStream) -> None:
    """Answer a connection like the proxy, in a thread of its own."""

    def run() -> None:
        data = b""
        while piece := stream.recv(1000):
            data += piece
        stream.sendall(b"you said " + data)
        stream.close()

    threading.Thread(target=run, daemon=True).start()


def asked(vm: VM, where: str) -> str:
    return vm.ssh(ASK + where, check=False).stdout


def eventually(vm: VM, where: str) -> str:
    until = time.monotonic() + 20
    while not (said := asked(vm, where)) and time.monotonic() < until:
        time.sleep(0.1)
    return said


def test_programs_there_reach_this_process_by_socket_and_by_port(connection: Connection, vm: VM) -> None:
    connection.serve_socket(f"{FOLDER}/s", echo)
    port = connection.serve_port(0, echo)
    assert asked(vm, f"{FOLDER}/s") == "you said hello\n"
    assert asked(vm, f"127.0.0.1:{port.port}") == "you said hello\n"
    assert vm.sh(f"stat -c '%a %U' {FOLDER}/s").stdout == "600 pcc\n"
    assert vm.sh(f"ls {FOLDER}").stdout == "s\n"


def test_a_socket_and_a_port_are_the_same_after_the_connection_was_lost(connection: Connection, vm: VM) -> None:
    connection.serve_socket(f"{FOLDER}/s", echo)
    port = connection.serve_port(0, echo).port
    for _ in range(2):
        vm.kill_sessions()
        connection.run("true")  # the next call reconnects
        assert eventually(vm, f"{FOLDER}/s") == "you said hello\n"
        assert eventually(vm, f"127.0.0.1:{port}") == "you said hello\n"


def test_a_closed_listener_refuses_connections(connection: Connection, vm: VM) -> None:
    served = connection.serve_socket(f"{FOLDER}/s", echo)
    served.close()
    assert asked(vm, f"{FOLDER}/s") == ""
    other = connection.serve_socket(f"{FOLDER}/s", echo)
    assert asked(vm, f"{FOLDER}/s") == "you said hello\n"
    other.close()


def test_a_path_that_is_too_long_or_missing_is_reported(connection: Connection) -> None:
    for path, hint in ((f"{FOLDER}/{'x' * 100}", "108 bytes"), (f"{FOLDER}/no/s", "AllowStreamLocalForwarding")):
        with pytest.raises(Unavailable) as caught:
            connection.serve_socket(path, echo)
        assert caught.value.reason is Reason.PROXY_REFUSED
        assert hint in caught.value.hint
