"""Tests of commands with other shells as `sh`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pccpipe.target import Exit
from tests.targets.stand import Stand, read_all, read_until, until

SHELLS = ["dash", "bash", "busybox"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put another shell into PATH as `sh`."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    found = shutil.which(request.param)
    assert found, f"{request.param} is not installed"
    (bin_ / "sh").symlink_to(found)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    return str(request.param)


def check_shell(shell: str, stand: Stand) -> None:
    """Check that commands of the stand work as they should with this shell as `sh`."""
    name = stand.run('[ "$BASH_VERSION" ] && echo bash || readlink /proc/$$/exe')[0].decode()
    assert shell in name
    assert stand.run("echo out; echo err >&2; exit 3") == (b"out\n", b"err\n", Exit(3))
    every = bytes(range(256)) * 2
    assert stand.run('cat "$PCC_IN/f"', files={"f": every})[0] == every
    values = {"A": "'\"\\ $x `y` \n\n*", "B": "\x01\x02\x7f\x80é\udcff"}
    out = stand.run('printf %s "$A$B"', env=values)[0]
    assert out == (values["A"] + values["B"]).encode(errors="surrogateescape")
    assert stand.run("sleep 30", limit=0.3)[2] == Exit(124, timed_out=True)
    assert stand.run("exit 124")[2] == Exit(124)
    out, _, exit_ = stand.run(f"sleep {stand.nap} & env -i setsid sleep {stand.nap} & echo done")
    assert (out, exit_) == (b"done\n", Exit(0, left_processes=True))
    until(lambda: not stand.naps())
    running = stand.start(f"setsid sleep {stand.nap} & echo ready; sleep {stand.nap}")
    read_until(running, b"ready\n")
    running.stop(5.0)
    assert read_all(running)[2] == Exit(143, "TERM")
    until(lambda: not stand.naps())
    running.discard()
    running = stand.start("echo one; echo two >&2; exit 5")
    assert read_all(running) == read_all(stand.again().attach(running.token)) == (b"one\n", b"two\n", Exit(5))
    running.discard()
