"""The doctor's fixes where the engine is not the system's Docker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pccpipe.checkup.check import CheckVerdict
from pccpipe.checkup.checks import engine
from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from tests.checkup.test_pasted import Vm, context

OWN = "/run/user/1000/docker.sock"


def context_of(socket: str, reason: Reason) -> Any:
    def service(verb: str, name: str) -> str:
        return f"sudo systemctl {verb} {name}"

    refusal = Unavailable(reason, f"connect to {socket} on vm: No such file or directory")
    return context(
        Vm("/usr/bin/dockerd"), engine=SimpleNamespace(socket=socket), engine_refusal=refusal, service=service
    )


@pytest.mark.parametrize(
    ("socket", "command"),
    [
        ("/var/run/docker.sock", "sudo systemctl enable --now docker"),
        (OWN, "systemctl --user enable --now docker"),
        ("/run/user/1000/podman/podman.sock", "systemctl --user enable --now podman.socket"),
        ("/run/podman/podman.sock", "sudo systemctl enable --now podman.socket"),
    ],
)
def test_the_fix_starts_the_engine_that_is_used(socket: str, command: str) -> None:
    found = engine.running(context_of(socket, Reason.ENGINE_STOPPED))
    assert found.fix
    assert found.fix.command == command


def test_a_missing_engine_of_the_login_is_not_replaced_by_another() -> None:
    found = engine.installed(context_of(OWN, Reason.ENGINE_MISSING))
    assert found.verdict is CheckVerdict.WRONG
    assert OWN in found.words
    assert "DOCKER_HOST" in found.words
    assert found.fix
    assert found.fix.command == "systemctl --user start docker"
