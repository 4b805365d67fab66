"""The record of what provision left on a VM: written, read again, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe import limits
from pccpipe.layout import PROVISIONED
from pccpipe.machine.local import LocalMachine
from pccpipe.machine.provisioned import Provisioned, read_provisioned, write_provisioned
from pccpipe.machine.startup import changed, startup_files
from pccpipe.spec.project_model import Vm
from pccpipe.ssh.connection import Connection
from tests.testbed.vm import VM

WRITTEN = Provisioned({"pcc-runner:latest": "sha256:1"}, {".bashrc": "ab", ".ssh/rc": ""})


@pytest.fixture
def login(vm: VM) -> Iterator[Connection]:
    made = Connection(Vm(vm.host, vm.user, vm.port, vm.key, vm.known_hosts, vm.root))
    yield made
    made.close()


def test_the_record_is_read_as_written_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    here = LocalMachine()
    assert read_provisioned(here, str(tmp_path)) is None
    write_provisioned(here, str(tmp_path), Provisioned())
    write_provisioned(here, str(tmp_path), WRITTEN)
    assert read_provisioned(here, str(tmp_path)) == WRITTEN
    assert [path.name for path in (tmp_path / ".system").iterdir()] == [PROVISIONED]
    assert (tmp_path / ".system" / PROVISIONED).stat().st_mode & 0o777 == 0o600


def problem(root: Path) -> str:
    found = read_provisioned(LocalMachine(), str(root))
    assert found is not None
    assert not found.images
    return found.problem


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"images": 1}', "\ud800", "[" * 100_000, '{"x": ' * 9999, " " * (limits.PROVISIONED.most + 1)],
)
def test_a_senseless_record_is_a_problem_without_a_traceback(tmp_path: Path, text: str) -> None:
    file = tmp_path / ".system" / PROVISIONED
    file.parent.mkdir()
    file.write_bytes(text.encode(errors="surrogatepass"))
    file.chmod(0o600)
    assert problem(tmp_path)


def test_a_link_a_folder_or_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file, other = tmp_path / ".system" / PROVISIONED, tmp_path / "other"
    write_provisioned(LocalMachine(), str(tmp_path), WRITTEN)
    file.chmod(0o660)
    assert "only the login user" in problem(tmp_path)
    file.chmod(0o600)
    file.replace(other)
    file.symlink_to(other)
    assert "only the login user" in problem(tmp_path)
    write_provisioned(LocalMachine(), str(tmp_path), WRITTEN)
    assert read_provisioned(LocalMachine(), str(tmp_path)) == WRITTEN
    assert other.stat().st_size, "what the link led to was written"


def test_a_changed_start_up_file_of_any_kind_is_named(login: Connection, vm: VM) -> None:
    vm.ssh("echo one >.profile")
    before = startup_files(login)
    assert startup_files(login) == before
    assert before[".zshrc"] == ""
    try:
        # Not .bashrc: bash itself would wait for the FIFO.
        vm.ssh("echo two >.profile; mkfifo .inputrc; ln -s /dev/zero .bash_profile; echo 'echo hi' >.ssh/rc")
        vm.ssh("mkdir -p .config/systemd/user; ln -s x.service .config/systemd/user/evil.service")
        vm.ssh("mv .ssh/authorized_keys .ssh/real; ln -s real .ssh/authorized_keys")
        words = changed(before, startup_files(login))
    finally:
        vm.ssh("rm -r .profile .inputrc .bash_profile .ssh/rc .config; mv -T .ssh/real .ssh/authorized_keys")
    assert words == [
        "~/.bash_profile is new",
        "~/.profile was changed",
        "~/.inputrc is new",
        "~/.ssh/rc is new",
        "~/.ssh/authorized_keys was changed",
        "~/.config/systemd/user is new",
    ]
    assert changed(before, startup_files(login)) == ["~/.profile was removed"]
