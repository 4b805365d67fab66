"""The connection to a VM, and its errors."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec.structs
import paramiko
import pytest
from paramiko.common import MSG_CHANNEL_EOF

from pccpipe.errors import Unavailable
from pccpipe.machine.base import Done
from pccpipe.machine.script import read_to_end
from pccpipe.outcome import Reason
from pccpipe.spec.project_model import Vm
from pccpipe.ssh import connection as connection_module
from pccpipe.ssh import heard, login, transport
from pccpipe.ssh.auth import AuthAnswer, Authentication
from pccpipe.ssh.channels import open_streamlocal
from pccpipe.ssh.connection import Connection
from pccpipe.ssh.keys import Identity
from pccpipe.ssh.transport import Transport
from tests.targets.conftest import vm_spec
from tests.targets.stand import until
from tests.testbed.vm import VM


def refusal(spec: Vm) -> Unavailable:
    """Return the error of a connection that cannot be made."""
    connection = Connection(spec)
    with pytest.raises(Unavailable) as caught:
        connection.run("true")
    connection.close()
    return caught.value


def test_facts_are_the_vms(connection: Connection, vm: VM) -> None:
    facts = connection.facts
    assert (facts.user, facts.home, facts.system) == ("pcc", "/home/pcc", "Linux")
    assert f"{facts.uid}:{facts.gid}" == vm.ssh("echo $(id -u):$(id -g)").stdout.strip()
    assert connection.host == vm.host


def test_a_script_runs_to_its_end(connection: Connection) -> None:
    assert connection.run("cat; echo out; echo err >&2; exit 3") == Done(3, b"out\n", b"err\n")
    with pytest.raises(TimeoutError):
        connection.run("sleep 2", timeout=0.2)


def test_start_up_files_that_print_and_other_login_shells_do_no_harm(fresh_vm: VM) -> None:
    fresh_vm.sh("for f in .bashrc .profile; do printf 'echo welcome\\necho to you >&2\\n' >/home/pcc/$f; done")
    connection = Connection(vm_spec(fresh_vm))
    assert connection.facts.user == "pcc"
    assert connection.run("echo out; echo err >&2") == Done(0, b"out\n", b"err\n")
    connection.close()


def test_a_program_gets_input_while_it_writes_on_both_streams(connection: Connection) -> None:
    process = connection.popen("tee /dev/stderr; exit 4")
    # More than a channel's window of 2 MiB, at which reading only one stream would hang.
    data = os.urandom(3_500_000)

    def feed() -> None:
        process.sendall(data)
        process.shutdown_write()

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert read_to_end(process, time.monotonic() + 30) == (data, data)
    assert process.wait(1) == 4
    feeder.join()
    process.close()
    process.close()


def test_many_threads_share_the_connection_and_each_gets_its_own_output(connection: Connection) -> None:
    def one(number: int) -> Done:
        return connection.run(f"echo {number}; echo {number} >&2; exit {number}")

    with ThreadPoolExecutor(24) as pool:
        for number, done in enumerate(pool.map(one, range(100))):
            assert done == Done(number, b"%d\n" % number, b"%d\n" % number)


def test_nothing_is_sent_on_a_channel_behind_its_close(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    send = Transport._send_user_message

    def send_late(self: Transport, message: paramiko.Message) -> None:
        # Meanwhile the program ends, and the server closes the channel.
        if message.asbytes()[0] == MSG_CHANNEL_EOF:
            time.sleep(0.1)
        send(self, message)

    connection.run("true")
    before = connection._transports
    monkeypatch.setattr(Transport, "_send_user_message", send_late)
    for _ in range(5):
        assert connection.run("echo said; exit 3") == Done(3, b"said\n", b"")
        process = connection.popen("exit 3")
        process.shutdown_write()
        assert process.wait(10) == 3
        process.close()
    connection.run("true")
    assert connection._transports is before


def test_dialled_sockets_do_not_count_as_sessions(connection: Connection) -> None:
    streams = [connection.dial("/run/docker.sock") for _ in range(30)]
    for stream in streams:
        stream.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.0 200")
        stream.close()


def test_a_socket_dialled_while_the_connection_ends_belongs_to_the_next_connection(
    fresh_vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paramiko closes its channels, then ends, then wakes each opening: it forgets one that begins in between."""
    connection = Connection(vm_spec(fresh_vm))
    first = connection.dial("/run/docker.sock")
    (transport,) = connection._transports
    sent, ends = threading.Event(), threading.Event()
    send = Transport._send_user_message

    def sent_now(self: Transport, message: paramiko.Message) -> None:
        send(self, message)
        if self is transport and ends.is_set():
            sent.set()

    def unlink(channel: paramiko.Channel) -> None:
        if channel.transport is transport:
            ends.set()
            assert sent.wait(20)
        unlinked(channel)

    unlinked = paramiko.Channel._unlink  # type: ignore[attr-defined]
    monkeypatch.setattr(paramiko.Channel, "_unlink", unlink)
    monkeypatch.setattr(Transport, "_send_user_message", sent_now)
    fresh_vm.kill_sessions()
    assert ends.wait(20)

    second = connection.dial("/run/docker.sock")
    second.settimeout(10)
    second.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
    assert second.recv(100).startswith(b"HTTP/1.0 200")
    first.close()
    connection.close()


def test_each_failure_to_dial_a_socket_has_its_reason(fresh_vm: VM) -> None:
    connection = Connection(vm_spec(fresh_vm))

    def reason(path: str) -> tuple[Reason, str]:
        with pytest.raises(Unavailable) as caught:
            connection.dial(path)
        return caught.value.reason, caught.value.words

    assert reason("/run/nothing.sock")[0] is Reason.ENGINE_MISSING
    fresh_vm.stop_docker()
    # A crash leaves the socket behind, which a clean stop removes.
    fresh_vm.sh(
        "[ -S /run/docker.sock ] || perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local=>\"/run/docker.sock\")'"
    )
    fresh_vm.sh("chown root:docker /run/docker.sock; chmod 660 /run/docker.sock")
    stopped, words = reason("/run/docker.sock")
    assert stopped is Reason.ENGINE_STOPPED
    assert "unknown" not in words
    fresh_vm.start_docker()
    connection.dial("/run/docker.sock").close()
    fresh_vm.leave_docker_group()
    connection.close()
    denied, words = reason("/run/docker.sock")
    assert denied is Reason.ENGINE_PERMISSION_DENIED
    assert words == f"connect to /run/docker.sock on {fresh_vm.host}: Permission denied for user pcc"
    connection.close()


def test_if_sshd_forbids_forwarding_to_sockets_dockers_client_connects(fresh_vm: VM) -> None:
    reconfigure(fresh_vm, "AllowStreamLocalForwarding no")
    connection = Connection(vm_spec(fresh_vm))
    for _ in range(2):
        stream = connection.dial("/run/docker.sock")
        stream.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.0 200")
        stream.close()
    connection.close()


def test_a_connection_waits_for_one_of_few_sessions(fresh_vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(fresh_vm, "MaxSessions 2")
    connection = Connection(vm_spec(fresh_vm))
    with ThreadPoolExecutor(6) as pool:
        assert {done.code for done in pool.map(lambda _: connection.run("sleep 0.2"), range(12))} == {0}
    monkeypatch.setattr(connection_module, "OPEN_TIMEOUT", 0.5)
    held = [connection.popen("sleep 5") for _ in range(2)]
    with pytest.raises(Unavailable) as caught:
        connection.run("true")
    assert caught.value.reason is Reason.SSH_SESSION_REFUSED
    assert "MaxSessions" in caught.value.hint
    for process in held:
        process.close()
    connection.close()


def test_it_reconnects_after_its_sessions_were_killed(fresh_vm: VM) -> None:
    connection = Connection(vm_spec(fresh_vm))
    process = connection.popen("echo ready; sleep 10")
    assert process.recv(10) == b"ready\n"
    fresh_vm.kill_sessions()
    with pytest.raises(ConnectionError):
        process.recv(10)
    with pytest.raises(ConnectionError):
        process.wait(5)
    with pytest.raises(ConnectionError):
        process.sendall(b"x")
    process.close()
    assert connection.run("echo again").stdout == b"again\n"
    fresh_vm.refuse()
    fresh_vm.kill_sessions()
    with pytest.raises(Unavailable) as caught:
        connection.run("true")
    assert caught.value.reason is Reason.SSH_REFUSED
    fresh_vm.accept()
    time.sleep(connection_module.FAILURE_LASTS)
    assert connection.run("echo again").stdout == b"again\n"
    connection.close()


@pytest.mark.parametrize("busy", [False, True])
def test_a_peer_that_falls_silent_is_noticed(fresh_vm: VM, monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setattr(heard, "SILENCE_LIMIT", 2.0)
    monkeypatch.setattr(transport, "PING_INTERVAL", 0.5)
    connection = Connection(vm_spec(fresh_vm))
    process = connection.popen("echo ready; cat >/dev/null; sleep 10")
    assert process.recv(10) == b"ready\n"
    time.sleep(3)  # a quiet connection is not silent: the server answers pings
    assert connection.run("echo alive").stdout == b"alive\n"
    fresh_vm.cut()
    started = time.monotonic()
    if busy:
        # Far more than all the buffers on the way.
        with pytest.raises(ConnectionError):
            process.sendall(b"x" * 100_000_000)
    with pytest.raises(ConnectionError):
        process.recv(10)
    assert time.monotonic() - started < 6
    process.close()
    fresh_vm.heal()
    connection.close()


def test_an_address_without_a_machine(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "CONNECT_TIMEOUT", 0.5)
    spec = vm_spec(vm)
    error = refusal(msgspec.structs.replace(spec, external_ip=vm.host.rsplit(".", 1)[0] + ".77"))
    assert error.reason is Reason.SSH_UNREACHABLE
    error = refusal(msgspec.structs.replace(spec, external_ip="no-such-host.invalid"))
    assert (error.reason, error.words) == (Reason.SSH_NAME_UNKNOWN, "no-such-host.invalid: Name or service not known")
    error = refusal(msgspec.structs.replace(spec, port=9))
    assert (error.reason, error.words) == (Reason.SSH_REFUSED, f"connect to {vm.host} port 9: Connection refused")


def test_a_port_without_ssh(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "HANDSHAKE_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        spec = msgspec.structs.replace(vm_spec(vm), external_ip="127.0.0.1", port=server.getsockname()[1])
        error = refusal(spec)
        assert error.reason is Reason.SSH_UNREACHABLE
        assert "no SSH server answered" in error.words

        def answer_and_close() -> None:
            for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""):
                client = server.accept()[0]
                client.sendall(said)
                client.close()

        server.accept()[0].close()  # the first attempt's
        threading.Thread(target=answer_and_close, daemon=True).start()
        for _ in range(2):
            assert refusal(spec).reason is Reason.SSH_CLOSED


def test_a_refused_login_names_the_keys_that_were_tried(vm: VM, tmp_path: Path) -> None:
    other = tmp_path / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    error = refusal(msgspec.structs.replace(vm_spec(vm), key_path=other))
    assert error.reason is Reason.SSH_AUTH_FAILED
    assert error.words.startswith(f"pcc@{vm.host}: Permission denied (publickey")
    assert str(other) in error.hint
    assert "authorized_keys" in error.hint


def test_unusable_keys_are_named(vm: VM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    encrypted, garbage = tmp_path / "encrypted", tmp_path / "garbage"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(encrypted)], check=True)
    garbage.write_text("hello")
    spec = vm_spec(vm)
    for path, words in {
        tmp_path / "missing": "cannot read the key",
        tmp_path: "cannot read the key",
        garbage: "has no usable private key",
        encrypted: "is encrypted, and there is no SSH agent here",
        encrypted.with_suffix(".pub"): "is a public key, and there is no SSH agent here",
    }.items():
        error = refusal(msgspec.structs.replace(spec, key_path=path))
        assert (error.reason, words in error.words, str(path) in error.words) == (Reason.SSH_AUTH_FAILED, True, True)


def test_the_agents_keys_are_tried_also_for_an_encrypted_key(
    vm: VM, agent: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = vm_spec(vm)
    error = refusal(msgspec.structs.replace(spec, key_path=None))
    assert error.reason is Reason.SSH_AUTH_FAILED
    assert "no key was found here" in error.hint
    subprocess.run(["ssh-add", "-q", str(vm.key)], check=True, capture_output=True)
    connection = Connection(msgspec.structs.replace(spec, key_path=None))
    assert connection.facts.user == "pcc"
    connection.close()

    encrypted = tmp_path / "key"
    encrypted.write_bytes(vm.key.read_bytes())
    encrypted.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(encrypted)], check=True)
    (tmp_path / "key.pub").write_text(subprocess.check_output(["ssh-keygen", "-y", "-f", str(vm.key)], text=True))
    connection = Connection(msgspec.structs.replace(spec, key_path=encrypted))
    assert connection.facts.user == "pcc"
    connection.close()


def test_a_default_key_is_tried_without_a_key_path(vm: VM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(vm.key.read_bytes())
    connection = Connection(msgspec.structs.replace(vm_spec(vm), key_path=None))
    assert connection.facts.user == "pcc"
    connection.close()


def test_a_changed_host_key_is_refused_and_a_new_one_accepted_only_on_request(fresh_vm: VM, tmp_path: Path) -> None:
    spec = vm_spec(fresh_vm)
    file = tmp_path / "known_hosts"
    unknown = msgspec.structs.replace(spec, known_hosts=file)
    assert refusal(unknown).reason is Reason.SSH_HOST_KEY_UNKNOWN
    accepting = Connection(unknown, accept_new_host_key=True)
    accepting.run("true")
    accepting.close()
    connection = Connection(unknown)
    connection.run("true")
    connection.close()
    fresh_vm.new_host_key()
    error = refusal(spec)
    assert error.reason is Reason.SSH_HOST_KEY_CHANGED
    assert f"{fresh_vm.known_hosts}:1" in error.words


def test_a_jump_host_leads_to_a_vm(vms: Callable[..., VM], tmp_path: Path) -> None:
    jump, vm = vms(images=False), vms(images=False)
    file = tmp_path / "known_hosts"
    file.write_text(jump.known_hosts.read_text() + vm.known_hosts.read_text())
    jump.sh(f"printf '%s\\n' '{vm.ssh('cat ~/.ssh/authorized_keys').stdout.strip()}' >>~pcc/.ssh/authorized_keys")
    spec = msgspec.structs.replace(vm_spec(vm), known_hosts=file)
    connection = Connection(msgspec.structs.replace(spec, proxy_jump=f"pcc@{jump.host}:22"))
    assert connection.run("hostname").stdout.decode().strip() == vm.ssh("hostname").stdout.strip()
    came_from = connection.run("echo $SSH_CLIENT").stdout.decode()
    assert vm.host_side in came_from or jump.host in came_from
    connection.close()
    error = refusal(msgspec.structs.replace(spec, proxy_jump=jump.host, port=9))
    assert error.reason is Reason.SSH_UNREACHABLE
    assert f"through {jump.host}" in error.words
    assert refusal(msgspec.structs.replace(spec, proxy_jump="a b@:x:")).reason is Reason.SSH_NAME_UNKNOWN


def test_a_login_without_a_shell_is_a_refused_session(fresh_vm: VM) -> None:
    fresh_vm.sh("chsh -s /usr/sbin/nologin pcc || usermod -s /usr/sbin/nologin pcc")
    connection = Connection(vm_spec(fresh_vm))
    with pytest.raises(Unavailable) as caught:
        _ = connection.facts
    assert caught.value.reason is Reason.SSH_SESSION_REFUSED
    assert "not available" in caught.value.words
    connection.close()


def test_nothing_is_printed_or_logged_on_the_terminal(
    vm: VM, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    refusal(msgspec.structs.replace(vm_spec(vm), user="nobody-there"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept_and_close, args=[server], daemon=True).start()
        refusal(msgspec.structs.replace(vm_spec(vm), external_ip="127.0.0.1", port=server.getsockname()[1]))
    connection = Connection(vm_spec(vm))
    connection.run("true")
    connection.close()
    assert capfd.readouterr() == ("", "")


def test_no_descriptor_and_no_thread_is_left(vm: VM) -> None:
    def one() -> None:
        connection = Connection(vm_spec(vm))
        connection.run("true")
        connection.popen("true").close()
        connection.close()

    one()
    until(lambda: threading.active_count() == 1 or not any("Transport" in str(t) for t in threading.enumerate()))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        one()
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
    until(lambda: not any("Transport" in type(thread).__name__ for thread in threading.enumerate()))


def accept_and_close(server: socket.socket) -> None:
    server.accept()[0].close()


def reconfigure(vm: VM, line: str) -> None:
    """Restart sshd with another line at the top of its configuration, where the first of a kind counts."""
    vm.sh(f"sed -i '1i {line}' /etc/ssh/sshd_config")
    vm.refuse()
    vm.accept()


def test_a_connection_cut_during_the_login_is_not_reported_as_refused(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    prove = Authentication.prove

    def cut(attempt: Authentication, identity: Identity) -> AuthAnswer:
        attempt._connection.close()
        return prove(attempt, identity)

    monkeypatch.setattr(Authentication, "prove", cut)
    error = refusal(vm_spec(vm))
    assert error.reason is Reason.SSH_CLOSED
    assert "before the login was done" in error.words


def test_data_survives_key_exchanges(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = connection._transport()
    assert "gcm" in transport.local_cipher
    keys = {transport.H}
    monkeypatch.setattr(transport.packetizer, "REKEY_BYTES", 100_000)
    # The server closes channels at any time, so also during key exchanges.
    for number in range(20):
        process = connection.popen("tee /dev/stderr | sha256sum")
        sent = os.urandom(2000 * number)
        process.sendall(sent)
        process.shutdown_write()
        stdout, stderr = read_to_end(process, time.monotonic() + 10)
        assert stdout.split()[0].decode() == hashlib.sha256(sent).hexdigest()
        assert stderr == sent
        process.close()
        keys.add(transport.H)
    assert len(keys) > 2


def test_a_packet_changed_on_the_way_ends_the_connection_with_an_explanation(vm: VM) -> None:
    changed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pass_on() -> None:
            near, _ = server.accept()
            with near, socket.create_connection((vm.host, 22)) as far:
                threading.Thread(target=pump, args=(near, far), daemon=True).start()
                with contextlib.suppress(OSError):
                    while data := far.recv(4096):
                        near.sendall(data[:-1] + bytes([data[-1] ^ 1]) if changed.is_set() else data)

        def pump(near: socket.socket, far: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := near.recv(4096):
                    far.sendall(data)

        threading.Thread(target=pass_on, daemon=True).start()
        port = server.getsockname()[1]
        spec = msgspec.structs.replace(vm_spec(vm), external_ip="127.0.0.1", port=port)
        connection = Connection(spec, accept_new_host_key=True)
        assert connection.run("echo fine").stdout == b"fine\n"
        changed.set()
        with pytest.raises((Unavailable, ConnectionError)) as raised:
            connection.run("echo fine")
        assert "InvalidTag" not in repr(raised.value)
        connection.close()


def test_a_starting_engine_is_not_taken_for_an_sshd_that_forbids_forwarding(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [True]

    def refused_once(transport: Transport, path: str, timeout: float) -> paramiko.Channel:
        if refusals and refusals.pop():
            raise paramiko.ChannelException(2, "Connect failed")
        return open_streamlocal(transport, path, timeout)

    monkeypatch.setattr("pccpipe.ssh.connection.open_streamlocal", refused_once)
    for _ in range(12):  # more than a server's sessions
        connection.dial("/var/run/docker.sock").sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
    assert connection.run("echo fine").stdout == b"fine\n"
