"""Keys in every form that `ssh -i` takes, agents that refuse, servers that are slow or have few algorithms."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec.structs
import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pccpipe.outcome import Reason
from pccpipe.ssh import auth, heard, login
from pccpipe.ssh.auth import Authentication
from pccpipe.ssh.connection import Connection
from tests.ssh.test_connection import reconfigure, refusal
from tests.ssh.test_login import authorize, make_key, whoami
from tests.targets.conftest import vm_spec
from tests.targets.stand import until
from tests.testbed.vm import VM


@pytest.fixture
def reluctant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start an agent that asks for a confirmation and never gets one."""
    path = tmp_path / "agent"
    environ = {**os.environ, "SSH_ASKPASS": "/bin/false", "DISPLAY": ":9"}
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, env=environ)
    until(path.exists)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    process.terminate()
    process.wait()


def add(key: Path, *options: str) -> None:
    subprocess.run(["ssh-add", "-q", *options, str(key)], check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_a_key_in_the_form_of_openssl_and_clouds_logs_in(vm: VM, tmp_path: Path, kind: str) -> None:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    match kind:
        case "rsa":
            key = rsa.generate_private_key(65537, 2048)
        case "ecdsa":
            key = ec.generate_private_key(ec.SECP384R1())
        case _:
            key = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "key"
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert pkcs8.startswith(b"-----BEGIN PRIVATE KEY-----")
    path.write_bytes(pkcs8)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "key.pub").write_bytes(public + b"\n")
    authorize(vm, path)
    assert whoami(msgspec.structs.replace(vm_spec(vm), key_path=path)) == "pcc"


@pytest.mark.usefixtures("agent")
def test_an_encrypted_key_of_that_kind_is_used_through_the_agent(vm: VM, tmp_path: Path) -> None:
    plain = make_key(tmp_path / "plain")
    authorize(vm, plain)
    add(plain)
    loaded = serialization.load_ssh_private_key(plain.read_bytes(), None)
    path = tmp_path / "key"
    path.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    (tmp_path / "key.pub").write_text((tmp_path / "plain.pub").read_text())
    assert whoami(msgspec.structs.replace(vm_spec(vm), key_path=path)) == "pcc"


def test_a_key_of_an_unknown_kind_is_named(vm: VM, tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = ec.generate_private_key(ec.SECP256K1())
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    error = refusal(msgspec.structs.replace(vm_spec(vm), key_path=path))
    assert (error.reason, error.words) == (
        Reason.SSH_AUTH_FAILED,
        f"{path} has no usable private key (ed25519, ecdsa or rsa)",
    )


@pytest.mark.usefixtures("agent")
def test_a_public_key_chooses_one_of_the_agents_keys(vm: VM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than MaxAuthTries allows.
    for number in range(8):
        add(make_key(tmp_path / f"other{number}"))
    key = make_key(tmp_path / "good")
    authorize(vm, key)
    spec = msgspec.structs.replace(vm_spec(vm), key_path=tmp_path / "good.pub")
    error = refusal(spec)
    assert error.words == f"{tmp_path}/good.pub is a public key, and no SSH agent here has it"
    assert error.hint == f"vm.key_path in the project file: {key}"
    add(key)
    key.unlink()
    assert whoami(spec) == "pcc"
    error = refusal(msgspec.structs.replace(spec, key_path=None))
    assert "Too many authentication failures" in error.words
    assert "vm.key_path may be KEY.pub" in error.hint
    # Only the key that it names.
    monkeypatch.setattr(Authentication, "offer", lambda *_: pytest.fail("another key was offered"))
    subprocess.run(["ssh-add", "-q", "-d", str(tmp_path / "good.pub")], check=True, capture_output=True)
    assert "no SSH agent here has it" in refusal(spec).words


@pytest.mark.usefixtures("reluctant")
def test_a_key_that_the_agent_does_not_sign_with_is_skipped(vm: VM, tmp_path: Path) -> None:
    first, good = make_key(tmp_path / "first"), make_key(tmp_path / "good")
    authorize(vm, first)
    add(first, "-c")
    spec = msgspec.structs.replace(vm_spec(vm), key_path=None)
    error = refusal(spec)
    assert error.reason is Reason.SSH_AUTH_FAILED
    assert "the agent did not sign with the agent's ssh-ed25519" in error.words
    assert "the agent refused" in error.words
    assert "authorized_keys" not in error.hint
    authorize(vm, good)
    add(good)
    assert whoami(spec) == "pcc"


@pytest.mark.usefixtures("agent")
def test_the_agent_signs_only_with_a_key_that_the_server_knows(
    vm: VM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown, good = make_key(tmp_path / "unknown"), make_key(tmp_path / "good")
    authorize(vm, good)
    add(unknown)
    add(good)
    signed: list[str] = []
    sign = auth._signature

    def note(key: paramiko.PKey, data: bytes, algorithm: str) -> bytes:
        signed.append(key.comment)  # type: ignore[attr-defined]
        return sign(key, data, algorithm)

    monkeypatch.setattr(auth, "_signature", note)
    assert whoami(msgspec.structs.replace(vm_spec(vm), key_path=None)) == "pcc"
    assert len(signed) == 1


@pytest.mark.usefixtures("agent")
def test_a_certificate_in_the_agent_logs_in(fresh_vm: VM, tmp_path: Path) -> None:
    authority, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", "pcc", str(key) + ".pub"], check=True)
    add(key)
    fresh_vm.sh("cat >/etc/ssh/ca.pub; chmod 644 /etc/ssh/ca.pub", stdin=(tmp_path / "ca.pub").read_text())
    reconfigure(fresh_vm, "TrustedUserCAKeys /etc/ssh/ca.pub")
    key.unlink()
    for path in (None, tmp_path / "key-cert.pub"):
        assert whoami(msgspec.structs.replace(vm_spec(fresh_vm), key_path=path)) == "pcc"


@pytest.mark.usefixtures("agent")
def test_a_server_that_wants_two_keys_gets_two(fresh_vm: VM, tmp_path: Path) -> None:
    for name in ("one", "two"):
        authorize(fresh_vm, make_key(tmp_path / name))
        add(tmp_path / name)
    reconfigure(fresh_vm, "AuthenticationMethods publickey,publickey")
    assert whoami(msgspec.structs.replace(vm_spec(fresh_vm), key_path=None)) == "pcc"


def test_a_slow_login_is_not_reported_as_refused(fresh_vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((login, "CONNECT_TIMEOUT"), (heard, "SILENCE_LIMIT")):
        monkeypatch.setattr(module, name, 1.0)
    fresh_vm.sh("sed -i '1i account optional pam_exec.so /bin/sleep 4' /etc/pam.d/sshd")
    fresh_vm.sh("sed -i 's/UsePAM no/UsePAM yes/' /etc/ssh/sshd_config")
    fresh_vm.refuse()
    fresh_vm.accept()
    started = time.monotonic()
    assert whoami(vm_spec(fresh_vm)) == "pcc"
    assert time.monotonic() - started > 3
    monkeypatch.setattr(auth, "AUTH_TIMEOUT", 1.0)
    error = refusal(vm_spec(fresh_vm))
    assert (error.reason, error.words) == (
        Reason.SSH_UNREACHABLE,
        f"pcc@{fresh_vm.host}: sshd did not answer the login in 1 s",
    )


def test_a_slow_greeting_does_not_fail_the_login(vm: VM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "CONNECT_TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        spec = msgspec.structs.replace(
            vm_spec(vm), external_ip="127.0.0.1", port=server.getsockname()[1], known_hosts=tmp_path / "hosts"
        )

        def serve() -> None:
            near = server.accept()[0]
            time.sleep(2)
            far = socket.create_connection((vm.host, vm.port))
            pump = threading.Thread(target=copy, args=(near, far), daemon=True)
            pump.start()
            copy(far, near)
            pump.join()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        connection = Connection(spec, accept_new_host_key=True)
        assert connection.facts.user == "pcc"
        connection.close()
        thread.join(10)


def copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "line",
    [
        "KexAlgorithms curve25519-sha256",
        "KexAlgorithms curve25519-sha256@libssh.org",
        "Ciphers aes256-gcm@openssh.com",
        "MACs hmac-sha2-512-etm@openssh.com",
    ],
)
def test_a_hardened_server_is_reached(fresh_vm: VM, line: str) -> None:
    reconfigure(fresh_vm, line)
    assert whoami(vm_spec(fresh_vm)) == "pcc"


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("Ciphers chacha20-poly1305@openssh.com", "add aes256-gcm@openssh.com to the line Ciphers"),
        ("KexAlgorithms sntrup761x25519-sha512@openssh.com", "add curve25519-sha256 to the line KexAlgorithms"),
    ],
)
def test_a_server_without_a_common_algorithm_is_reported_with_a_fix(fresh_vm: VM, line: str, advice: str) -> None:
    reconfigure(fresh_vm, line)
    error = refusal(vm_spec(fresh_vm))
    assert error.reason is Reason.SSH_INCOMPATIBLE
    assert f"sshd offers {line.split()[1]};" in error.words
    assert advice in error.hint
    kind, _, name = advice.removeprefix("add ").partition(" to the line ")
    fresh_vm.sh(f"sed -i '1s/$/,{kind}/' /etc/ssh/sshd_config; grep {name} /etc/ssh/sshd_config")
    fresh_vm.refuse()
    fresh_vm.accept()
    assert whoami(vm_spec(fresh_vm)) == "pcc"
