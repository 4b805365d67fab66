"""Differences of Podman's API from Docker's, as of Podman 4.3; the test bed has no Podman."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.isolation import isolation_of
from pccpipe.docker_api.settings import HOME, Paths, create_body
from pccpipe.machine.local import LocalMachine
from pccpipe.target import Command, ContainerSettings

COMMAND = Command(id="s-1", step="s", serial=1, script="true", container=ContainerSettings("bb:latest"))
PATHS = Paths("/w", "/in", "/out", "/proxy", "/cover")
DROPPED = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]


@pytest.mark.parametrize(
    ("header", "is_podman"),
    [(b"", False), (b"Libpod-API-Version: 4.3.1\r\n", True), (b"X: libpod-api-version\r\n", False)],
)
def test_podman_is_recognized_by_its_answer(tmp_path: Path, header: bytes, is_podman: bool) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\n" + header + b"\r\nOK")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert DockerEngine(LocalMachine(), str(path)).is_podman is is_podman
        thread.join(5)


def test_podman_gets_no_owner_of_a_folder_in_memory_and_its_own_log_driver() -> None:
    settings: dict[bool, Any] = {
        podman: create_body(COMMAND, "r", (1000, 1000), PATHS, podman=podman)["HostConfig"] for podman in (False, True)
    }
    assert settings[False]["Tmpfs"][HOME].endswith(",mode=0700,uid=1000,gid=1000")
    assert settings[True]["Tmpfs"][HOME].endswith(",mode=1777")
    assert settings[False]["LogConfig"]["Type"] == "local"
    assert settings[True]["LogConfig"]["Type"] == "json-file"
    differing = {key for key in settings[True] if settings[True][key] != settings[False][key]}
    assert differing == {"Tmpfs", "LogConfig"}


@pytest.mark.parametrize(
    ("dropped", "added", "had"),
    [
        (DROPPED, [], ()),
        (DROPPED, ["CAP_CHOWN"], ("CHOWN",)),
        (DROPPED[1:], [], ("DEFAULT",)),
        (["ALL"], [], ()),
        ([], ["NET_ADMIN"], ("DEFAULT", "NET_ADMIN")),
    ],
)
def test_capabilities_dropped_one_by_one_are_none(dropped: list[str], added: list[str], had: tuple[str]) -> None:
    found: Any = {"Config": {}, "HostConfig": {"CapDrop": dropped, "CapAdd": added}}
    assert isolation_of("vm", "box", found, ()).capabilities == had
