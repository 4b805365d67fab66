"""Logins with real parts: agents, certificates, jump hosts, changed host keys; and hints that work."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec.structs
import pytest
from pytest_mock import MockerFixture

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.spec.project_model import Vm
from pccpipe.ssh.connection import Connection
from pccpipe.ssh.keys import add_to_agent
from tests.ssh.test_connection import reconfigure, refusal
from tests.targets.conftest import vm_spec
from tests.testbed.vm import VM

PASSPHRASE = "correct horse"


def whoami(spec: Vm) -> str:
    """Log in, and return the user's name."""
    connection = Connection(spec)
    try:
        return connection.facts.user
    finally:
        connection.close()


def make_key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)
    return path


def authorize(vm: VM, key: Path) -> None:
    vm.sh("cat >>~pcc/.ssh/authorized_keys", stdin=key.with_name(f"{key.name}.pub").read_text())


def follow_hint(hint: str, **environ: str) -> None:
    """Run the command that a hint ends with."""
    subprocess.run(["bash", "-c", hint], check=True, capture_output=True, env={**os.environ, **environ}, timeout=20)


@pytest.fixture
def askpass(tmp_path: Path) -> dict[str, str]:
    """Return the variables by which ssh-add gets a passphrase without a terminal."""
    script = tmp_path / "askpass"
    script.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    script.chmod(0o700)
    return {"SSH_ASKPASS": str(script), "SSH_ASKPASS_REQUIRE": "force"}


@pytest.mark.parametrize("beside", ["with its public part", "alone"])
def test_an_encrypted_key_is_used_through_the_agent_and_its_hint_adds_it(
    fresh_vm: VM, agent: None, tmp_path: Path, askpass: dict[str, str], beside: str
) -> None:
    key = make_key(tmp_path / "my key", PASSPHRASE)
    authorize(fresh_vm, key)
    if beside == "alone":
        key.with_name(f"{key.name}.pub").unlink()
    spec = msgspec.structs.replace(vm_spec(fresh_vm), key_path=key)
    error = refusal(spec)
    assert error.reason is Reason.SSH_AUTH_FAILED
    assert error.words == f"the key {key} is encrypted, and no SSH agent here has it"
    assert error.hint == f"ssh-add '{key}'"
    follow_hint(error.hint, **askpass)
    assert whoami(spec) == "pcc"


def test_without_an_agent_the_hint_starts_one(vm: VM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = make_key(tmp_path / "key", PASSPHRASE)
    error = refusal(msgspec.structs.replace(vm_spec(vm), key_path=key))
    assert error.words == f"the key {key} is encrypted, and there is no SSH agent here"
    assert error.hint == f'eval "$(ssh-agent)" && ssh-add {key}'


def test_a_locked_default_key_is_named_if_no_other_key_works(
    vm: VM, tmp_path: Path, agent: None, askpass: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    key = tmp_path / ".ssh" / "id_ed25519"
    key.write_bytes(vm.key.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", PASSPHRASE, "-f", str(key)], check=True, stdout=subprocess.DEVNULL)
    spec = msgspec.structs.replace(vm_spec(vm), key_path=None)
    assert refusal(spec).hint == f"encrypted, and in no agent: {key}; ssh-add {key}"
    other = make_key(tmp_path / "other")
    subprocess.run(["ssh-add", "-q", str(other)], check=True, capture_output=True)
    hint = refusal(spec).hint
    assert "the server refused the agent's ssh-ed25519" in hint
    assert hint.endswith(f"ssh-add {key}")
    follow_hint(f"ssh-add {key}", **askpass)
    assert whoami(spec) == "pcc"


def test_a_certificate_beside_the_key_is_offered_before_the_key(fresh_vm: VM, tmp_path: Path) -> None:
    authority, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
    fresh_vm.sh("cat >/etc/ssh/user_ca.pub", stdin=(tmp_path / "ca.pub").read_text())
    reconfigure(fresh_vm, "TrustedUserCAKeys /etc/ssh/user_ca.pub")
    spec = msgspec.structs.replace(vm_spec(fresh_vm), key_path=key)
    assert refusal(spec).reason is Reason.SSH_AUTH_FAILED
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "deploy", "-V", "+1h"]
    subprocess.run([*sign, "-n", "another-user", f"{key}.pub"], check=True, capture_output=True)
    error = refusal(spec)
    assert f"{key} with key-cert.pub, {key}" in error.hint
    authorize(fresh_vm, key)
    assert whoami(spec) == "pcc"
    fresh_vm.sh("sed -i '$d' ~pcc/.ssh/authorized_keys")
    subprocess.run([*sign, "-n", "pcc", f"{key}.pub"], check=True, capture_output=True)
    assert whoami(spec) == "pcc"


@pytest.mark.parametrize("hashed", [False, True])
def test_a_changed_host_key_is_refused_and_its_hint_repairs_it(fresh_vm: VM, tmp_path: Path, hashed: bool) -> None:
    file = tmp_path / "known hosts"
    file.write_text(f"# ours\n{fresh_vm.known_hosts.read_text()}")
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
        assert fresh_vm.host not in file.read_text()
    spec = msgspec.structs.replace(vm_spec(fresh_vm), known_hosts=file)
    assert whoami(spec) == "pcc"
    fresh_vm.new_host_key()
    before = file.read_text()
    with pytest.raises(Unavailable) as caught:
        Connection(spec, accept_new_host_key=True).run("true")
    error = caught.value
    assert error.reason is Reason.SSH_HOST_KEY_CHANGED
    assert f"{file}:2 has ssh-ed25519 SHA256:" in error.words
    assert file.read_text() == before
    commands = re.findall(r"ssh-key(?:gen -R|scan)[^;]*?'[^']*known hosts'", error.hint)
    assert len(commands) == 2
    for command in commands:
        follow_hint(command)
    assert whoami(spec) == "pcc"


@pytest.fixture(scope="module")
def bastion(vms_of_module: Callable[[], VM]) -> tuple[VM, VM]:
    """Return a jump host and a VM behind it, with users and host keys of their own."""
    return vms_of_module(), vms_of_module()


@pytest.fixture(scope="module")
def vms_of_module() -> Iterator[Callable[[], VM]]:
    made: list[VM] = []

    def make() -> VM:
        made.append(VM.up(images=False))
        return made[-1]

    yield make
    for vm in made:
        vm.down()


@pytest.fixture
def behind(bastion: tuple[VM, VM], tmp_path: Path) -> Vm:
    """Describe the inner VM behind the bastion, both known, with a key for each."""
    jump, inner = bastion
    file = tmp_path / "known_hosts"
    file.write_text(jump.known_hosts.read_text() + inner.known_hosts.read_text())
    spec = msgspec.structs.replace(vm_spec(inner), known_hosts=file)
    return msgspec.structs.replace(spec, proxy_jump=f"pcc@{jump.host}:22", jump_key_path=jump.key)


def test_a_vm_is_reached_through_a_jump_host_with_its_own_key_and_through_several(
    behind: Vm, bastion: tuple[VM, VM]
) -> None:
    jump, inner = bastion
    assert whoami(behind) == "pcc"
    # Each key opens only its own host.
    wrong = refusal(msgspec.structs.replace(behind, jump_key_path=None))
    assert wrong.reason is Reason.SSH_AUTH_FAILED
    assert f"pcc@{jump.host}: Permission denied" in wrong.words
    twice = msgspec.structs.replace(behind, proxy_jump=f"{jump.host},pcc@{jump.host}")
    connection = Connection(twice)
    assert connection.run("hostname").stdout.decode().strip() == inner.sh("hostname").stdout.strip()
    connection.close()


def test_the_host_key_of_each_jump_host_is_checked(behind: Vm, bastion: tuple[VM, VM]) -> None:
    jump, inner = bastion
    assert behind.known_hosts
    both = behind.known_hosts.read_text()
    behind.known_hosts.write_text(inner.known_hosts.read_text())
    error = refusal(behind)
    assert error.reason is Reason.SSH_HOST_KEY_UNKNOWN
    assert f"the host key of {jump.host} is not in" in error.words
    behind.known_hosts.write_text(jump.known_hosts.read_text())
    error = refusal(behind)
    assert error.reason is Reason.SSH_HOST_KEY_UNKNOWN
    assert f"the host key of {inner.host} is not in" in error.words
    assert f"ssh -J pcc@{jump.host} -o UserKnownHostsFile=" in error.hint
    behind.known_hosts.write_text(both.replace(jump.host, "x", 1) + both.replace(inner.host, jump.host).splitlines()[1])
    assert refusal(behind).reason is Reason.SSH_HOST_KEY_CHANGED
    behind.known_hosts.write_text("")
    accepting = Connection(behind, accept_new_host_key=True)
    accepting.run("true")
    accepting.close()
    assert sorted(behind.known_hosts.read_text().split()[::3]) == sorted([jump.host, inner.host])


def test_an_unavailable_jump_host_is_named(behind: Vm, bastion: tuple[VM, VM]) -> None:
    jump, _ = bastion
    error = refusal(msgspec.structs.replace(behind, proxy_jump=f"{jump.host}:9"))
    assert (error.reason, error.words) == (Reason.SSH_REFUSED, f"connect to {jump.host} port 9: Connection refused")
    error = refusal(msgspec.structs.replace(behind, proxy_jump=f"{jump.host},{jump.host}:9"))
    assert error.reason is Reason.SSH_UNREACHABLE
    assert f"port 9 through {jump.host}" in error.words


def test_pccpipes_own_error_before_the_servers_first_line_is_not_blamed_on_the_server(
    vm: VM, mocker: MockerFixture
) -> None:
    mocker.patch("pccpipe.ssh.heard.HeardSocket.recv", side_effect=AttributeError("no such option"))
    error = refusal(vm_spec(vm))
    assert error.reason is Reason.SSH_CLOSED
    assert error.words == f"{vm.host} port 22: the login failed here: AttributeError: no such option"


@pytest.fixture
def on_macos(mocker: MockerFixture) -> None:
    mocker.patch("os.uname", return_value=os.uname_result(("Darwin", "mac.local", "24.6.0", "Darwin", "arm64")))


@pytest.mark.parametrize(
    ("host", "code", "names_it"),
    [("10.1.2.3", errno.EHOSTUNREACH, True), ("8.8.8.8", errno.EHOSTUNREACH, False), ("10.1.2.3", errno.EIO, False)],
)
def test_on_a_mac_the_permission_for_local_networks_is_named_if_it_may_be_missing(
    on_macos: None, mocker: MockerFixture, host: str, code: int, names_it: bool
) -> None:
    mocker.patch("socket.create_connection", side_effect=OSError(code, os.strerror(code)))
    error = refusal(Vm(host, "pcc"))
    assert error.reason is Reason.SSH_UNREACHABLE
    assert ("Local Network" in error.hint) is names_it


def test_elsewhere_an_unreachable_machine_gets_no_such_hint(mocker: MockerFixture) -> None:
    mocker.patch("socket.create_connection", side_effect=OSError(errno.EHOSTUNREACH, "No route to host"))
    assert refusal(Vm("10.1.2.3", "pcc")).hint == ""


def test_on_a_mac_the_hint_for_an_encrypted_key_uses_the_keychain(on_macos: None, agent: None) -> None:
    assert add_to_agent(Path("/k")) == "ssh-add --apple-use-keychain /k"
