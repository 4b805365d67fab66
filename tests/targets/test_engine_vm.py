"""An engine that runs in a VM of its own, as on a Mac, and does not see all folders and sockets of this machine.

The engine is this machine's, with mounts of its own over those folders; a kernel's name that differs makes it one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pccpipe.docker_api import engine_vm
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.errors import Unavailable
from pccpipe.machine.base import ByteStream, Listener, ProxyRoute
from pccpipe.machine.listening import listen_at
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import MAY_FALL_BACK, Reason
from pccpipe.target import Command, ContainerSettings
from pccpipe.targets.container import ContainerTarget
from tests.targets.stand import read_all
from tests.testbed.engine import Engine as LocalEngine

BOX = ContainerSettings("bb:latest", network="none")
AGENTS = ContainerSettings("pcc-runner:latest", network="none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/.file").write_text("seen\n")
    return tmp_path


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    named = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*named[:2], "24.6.0", *named[3:])))


@contextlib.contextmanager
def target_on(engine: LocalEngine, folder: Path, here: LocalMachine | None = None) -> Iterator[ContainerTarget]:
    here = here or LocalMachine()
    proxy = ProxyRoute(here, lambda stream: stream.close())
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    workspace = str(folder / "workspace")
    target = ContainerTarget(here, run_id, str(folder / "state"), lambda: workspace, str(engine.socket), proxy=proxy)
    target.open()
    yield target
    assert target.close() == ()


@contextlib.contextmanager
def hidden_from(engine: LocalEngine, path: Path) -> Iterator[None]:
    """Let the engine see another, empty, folder at that path within the block."""
    init = (engine.state / "unshare.pid").read_text()
    child = Path(f"/proc/{init}/task/{init}/children").read_text().split()[0]
    inside = ["nsenter", "--target", child, "--mount", "--pid"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "umount", "-l", path], check=True)


def refusal(target: ContainerTarget, box: ContainerSettings = BOX, *, is_proxied: bool = False) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        target.start(Command("a-1", "a", 1, "true", container=box, is_proxied=is_proxied))
    return raised.value


def test_an_engine_that_sees_everything_runs_commands_as_usual(
    local_engine: LocalEngine, folder: Path, mac: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with target_on(local_engine, folder) as target:
        command = Command("a-1", "a", 1, "cat .file; set | grep -c pcc_ || true", container=BOX)
        assert read_all(target.start(command))[0].split() == [b"seen", b"0"]
        proxied = Command("a-2", "a", 1, "cat .file", container=AGENTS, is_proxied=True)
        assert read_all(target.start(proxied))[0] == b"seen\n"


def test_only_an_engine_with_another_kernel_is_checked(
    local_engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = os.uname()
    assert not DockerEngine(LocalMachine(), str(local_engine.socket)).is_in_vm
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*named[:2], "24.6.0", *named[3:])))
    assert DockerEngine(LocalMachine(), str(local_engine.socket)).is_in_vm


@pytest.mark.parametrize("made", ["nothing", "empty folders", "an empty workspace"])
def test_folders_that_its_vm_does_not_see_are_named_with_a_fix(
    local_engine: LocalEngine, folder: Path, mac: None, made: str
) -> None:
    hidden = folder / "workspace" if made == "an empty workspace" else folder
    with target_on(local_engine, folder) as target, hidden_from(local_engine, hidden):
        if made == "empty folders":
            make_there(
                local_engine, [folder / "workspace", *(folder / f"state/commands/a-1.{kind}" for kind in ("in", "out"))]
            )
        no = refusal(target)
    assert no.reason is Reason.WORKSPACE_REFUSED
    assert no.reason not in MAY_FALL_BACK
    assert "does not see all folders of this machine" in no.words
    assert str(folder) in no.words
    assert "--runs-dir" in no.hint


def make_there(engine: LocalEngine, folders: list[Path]) -> None:
    init = (engine.state / "unshare.pid").read_text()
    child = Path(f"/proc/{init}/task/{init}/children").read_text().split()[0]
    subprocess.run(["nsenter", "--target", child, "--mount", "--pid", "mkdir", "-p", *folders], check=True)


class Deaf(LocalMachine):
    """A machine whose sockets have no listener, as in the VM of Docker Desktop."""

    def serve_socket(self, path: str, accept: Callable[[ByteStream], None], *, open_to_all: bool = False) -> Listener:
        served = super().serve_socket(path, accept, open_to_all=open_to_all)
        served.close()
        return served


def test_a_proxy_that_containers_cannot_reach_is_refused_before_the_command_begins(
    local_engine: LocalEngine, folder: Path, mac: None
) -> None:
    with target_on(local_engine, folder, Deaf()) as target:
        no = refusal(target, AGENTS, is_proxied=True)
    assert no.reason is Reason.PROXY_REFUSED
    assert "runs in a VM of its own" in no.words
    assert "`via: direct`" in no.hint


@pytest.mark.parametrize("language", ["node", "python3"])
def test_the_relay_says_whether_a_socket_takes_connections(tmp_path: Path, language: str) -> None:
    path = tmp_path / "socket"
    suffix = {"node": "js"}.get(language, language)
    relay = Path(engine_vm.__file__).with_name(f"relay.{suffix}")

    def status() -> int:
        return subprocess.run([language, relay, path], capture_output=True, timeout=20, check=False).returncode

    assert status() == 3
    with listening(path):
        assert status() == 0
    assert path.exists()
    assert status() == 3


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    served = listen_at(str(path), lambda stream: stream.close())
    yield
    served.close()


def test_a_socket_in_a_long_path_is_made_without_proc_and_leaves_nothing(tmp_path: Path) -> None:
    """As on a Mac: `bind` takes 103 bytes, and there is no /proc for a shorter path."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    bound: list[str] = []

    class Mac(socket.socket):
        def bind(self, address: Any) -> None:
            bound.append(address)
            super().bind(address)

    before = set(Path("/tmp").glob("pcc-*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pccpipe.machine.listening.socket.socket", Mac)
        with listening(folder / "socket"):
            assert [path.name for path in folder.iterdir()] == ["socket"]
            at = os.open(folder, os.O_RDONLY)
            stream = LocalMachine().dial(f"/proc/self/fd/{at}/socket")
            os.close(at)
            stream.close()
    assert len(bound[0].encode()) < 104
    assert "/proc" not in bound[0]
    assert set(Path("/tmp").glob("pcc-*")) <= before
