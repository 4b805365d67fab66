"""A connection to the engine that ends during its first answer."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from pccpipe.docker_api.engine import DockerEngine
from pccpipe.errors import Broken
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import Reason


def test_a_connection_that_ends_at_the_first_call_is_retried(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def reset() -> None:
            client, _ = server.accept()
            client.recv(1)
            client.close()  # with a part of the call unread: the kernel resets the connection

        threading.Thread(target=reset, daemon=True).start()
        with pytest.raises(Broken) as caught:
            DockerEngine(LocalMachine(), str(path)).image_id("bb:latest")
    assert caught.value.reason is Reason.ENGINE_STOPPED
