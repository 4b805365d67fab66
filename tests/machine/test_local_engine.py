"""Finding the engine of this machine: by a setting that names it, or at the socket paths of programs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pccpipe.checkup.check import CheckVerdict
from pccpipe.checkup.checks import engine
from pccpipe.checkup.context import CheckContext, CheckupOptions
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.errors import Unavailable, UsageError
from pccpipe.machine import local_engine
from pccpipe.machine.local import LocalMachine
from pccpipe.machine.local_engine import find_local_engine, is_engine_at_hand
from pccpipe.outcome import IsolationMode, Reason
from pccpipe.spec.project_model import Project


class Home:
    """A user's home for sockets and settings of Docker."""

    def __init__(self, path: Path, open_: ExitStack) -> None:
        self.path = path
        self._open = open_

    def listen(self, name: str) -> str:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        server = self._open.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        return str(path)

    def context(self, name: str, host: object, folder: str = ".docker") -> None:
        meta = self.path / folder / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest()
        meta.mkdir(parents=True)
        (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))

    def config(self, text: str, folder: str = ".docker") -> None:
        (self.path / folder).mkdir(parents=True, exist_ok=True)
        (self.path / folder / "config.json").write_text(text)

    def found(self, **environ: str) -> str:
        return find_local_engine(
            {"XDG_RUNTIME_DIR": f"{self.path}/run", "TMPDIR": f"{self.path}/tmp", **environ}, self.path
        ).socket


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    # A short path: a socket's address has 104 bytes on a Mac.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ExitStack() as open_:
        monkeypatch.setattr(local_engine, "DEFAULT_SOCKET", f"{folder}/default.sock")
        monkeypatch.setenv("HOME", folder)
        for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "COLIMA_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{folder}/run")
        yield Home(Path(folder), open_)


@pytest.mark.parametrize(
    "place",
    [
        "run/docker.sock",
        ".docker/run/docker.sock",
        ".docker/desktop/docker.sock",
        ".colima/default/docker.sock",
        ".orbstack/run/docker.sock",
        ".rd/docker.sock",
        ".lima/docker/sock/docker.sock",
        "run/podman/podman.sock",
        ".local/share/containers/podman/machine/podman.sock",
        "tmp/podman/podman-machine-default-api.sock",
    ],
)
def test_an_engine_is_found_at_its_path_after_the_default_one(home: Home, place: str) -> None:
    path = home.listen(place)
    assert home.found() == path
    # Docker Desktop leaves it so at its end.
    (home.path / "default.sock").symlink_to(home.path / "gone")
    assert home.found() == path
    (home.path / "default.sock").unlink()
    default = home.listen("default.sock")
    assert home.found() == default


def test_docker_host_precedes_a_context_and_a_context_precedes_every_path(home: Home) -> None:
    home.listen("default.sock")
    home.config('{"currentContext": "colima"}')
    home.context("colima", f"unix://{home.path}/colima.sock")
    home.context("other", "unix:///other.sock")
    assert home.found() == f"{home.path}/colima.sock"
    assert home.found(DOCKER_CONTEXT="other") == "/other.sock"
    assert home.found(DOCKER_CONTEXT="other", DOCKER_HOST="unix:///named.sock") == "/named.sock"
    assert home.found(DOCKER_CONTEXT="default") == f"{home.path}/default.sock"
    assert home.found(DOCKER_HOST="unix://") == f"{home.path}/default.sock"
    home.config('{"currentContext": "elsewhere"}', "settings")
    home.context("elsewhere", "unix:///elsewhere.sock", "settings")
    assert home.found(DOCKER_CONFIG=f"{home.path}/settings") == "/elsewhere.sock"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"currentContext": 7}', '{"auths": {}}', "[" * 100_000])
def test_settings_of_docker_without_a_context_are_ignored(home: Home, text: str) -> None:
    home.config(text)
    assert home.found() == f"{home.path}/default.sock"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:2375", "by TCP"),
        ("ssh://me:secret@host", "by ssh"),
        ("npipe:////./pipe/docker_engine", "a pipe of Windows"),
        ("127.0.0.1:2375", "by TCP"),
        ("/var/run/docker.sock", "by TCP"),
    ],
)
def test_an_address_on_another_machine_is_refused_with_a_fix(home: Home, address: str, words: str) -> None:
    home.listen("default.sock")
    home.context("far", address)
    for environ, by in (({"DOCKER_HOST": address}, "DOCKER_HOST is"), ({"DOCKER_CONTEXT": "far"}, "the context far")):
        with pytest.raises(UsageError, match=f"^{by}.*{words}") as raised:
            home.found(**environ)
        assert "DOCKER_HOST=unix://PATH" in raised.value.hint
        assert "secret" not in str(raised.value)
        # A command on this machine may still use it.
        assert is_engine_at_hand(environ, home.path)


@pytest.mark.parametrize("host", [None, "", 7])
def test_a_context_without_an_address_is_an_error(home: Home, host: object) -> None:
    home.listen("default.sock")
    home.context("broken", host)
    for name in ("broken", "gone", "../../x"):
        with pytest.raises(UsageError, match="does not exist, or has no address"):
            home.found(DOCKER_CONTEXT=name)


def test_without_an_engine_the_message_says_where_pccpipe_searched(home: Home) -> None:
    with pytest.raises(Unavailable) as raised:
        DockerEngine(LocalMachine()).open()
    assert raised.value.reason is Reason.ENGINE_MISSING
    for place in ("default.sock", ".docker/run/docker.sock", ".colima/default/docker.sock", "run/podman/podman.sock"):
        assert f"{home.path}/{place}" in raised.value.words
    assert "DOCKER_HOST=unix://PATH" in raised.value.hint


def test_the_error_for_an_unavailable_engine_names_the_setting(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(Unavailable, match=r"connect to /nowhere/docker\.sock.* \(DOCKER_HOST names it\)"):
        DockerEngine(LocalMachine()).open()


def test_a_local_command_can_use_an_engine_at_any_known_path(home: Home) -> None:
    assert not LocalMachine().facts.has_engine
    home.listen(".orbstack/run/docker.sock")
    assert LocalMachine().facts.has_engine


def test_a_folder_that_this_user_may_not_read_is_skipped(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `sudo -u other`, which keeps XDG_RUNTIME_DIR."""
    real, path = os.stat, home.listen(".rd/docker.sock")

    def stat(path: str, **more: Any) -> os.stat_result:
        if str(path).startswith(f"{home.path}/run"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    assert home.found() == path


def test_doctor_reports_an_invalid_setting(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    project = Project("p", IsolationMode.CONTAINER)
    found = engine.installed(CheckContext(CheckupOptions(project, home.path / "runs", "http://127.0.0.1:9/v1", "")))
    assert found.verdict is CheckVerdict.WRONG
    assert "DOCKER_HOST is 'tcp://127.0.0.1:2375'" in found.words
    assert "DOCKER_HOST=unix://PATH" in found.words
