from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.targets.local import LocalTarget
from tests.targets.stand import Stand, local_shell

RUN_ID = "run-1"


def made(folder: Path) -> Stand:
    """Make this machine with its supervisor; the files of its run are in `folder/state`."""

    def make() -> LocalTarget:
        return LocalTarget(RUN_ID, folder / "state", lambda: folder, kill_after=1.0)

    target = make()
    return Stand(RUN_ID, target, make, local_shell, str(folder / "state"), str(folder))


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = made(tmp_path)
    stand.target.open()
    yield stand
    stand.target.close()
    assert not Path(stand.state).exists()
    assert stand.processes() == []


def supervisors(stand: Stand) -> list[int]:
    """Return the processes of the run that are not a command's."""
    tag = stand.shell(f"grep -lFa 'PCCPIPE_STEP={RUN_ID}-' /proc/[0-9]*/environ 2>/dev/null || true").split()
    found = []
    for path in tag:
        try:
            line = Path(path.replace("environ", "cmdline")).read_bytes().split(b"\0")
        except OSError:
            continue
        if RUN_ID.encode() in line and b"supervisor.loop" in b" ".join(line) and _state(path) == stand.state:
            found.append(int(path.split("/")[2]))
    return found


def _state(environ: str) -> str:
    variables = Path(environ).read_bytes().split(b"\0")
    return next((os.fsdecode(each[14:]) for each in variables if each.startswith(b"PCCPIPE_STATE=")), "")
