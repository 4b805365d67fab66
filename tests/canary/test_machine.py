"""A search on a machine reports what it could not read."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from pccpipe.canary.ledger import Ledger, Row, Spot, SpotVerdict
from pccpipe.canary.machine import Looker
from pccpipe.canary.places import Classifier
from pccpipe.canary.value import Canary
from pccpipe.errors import Unavailable
from pccpipe.machine.base import Done, Facts
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import Reason

CANARY = Canary()


def look_into(folder: Path, machine: LocalMachine | None = None, call: str = "", *, may_sudo: bool = False) -> Row:
    ledger = Ledger(CANARY)
    ledger.name("here", [Spot.DISK], "files")
    looker = Looker(machine or LocalMachine(), "here", CANARY, ledger, "run", may_sudo=may_sudo)
    looker.files(call or f"pcc_files {shlex.quote(str(folder))}", Classifier((f"{folder}(/|$)", Spot.DISK)))
    return ledger.rows[0]


def test_files_names_and_links_are_searched_and_counted(tmp_path: Path) -> None:
    (tmp_path / "plain 'quoted' $name").write_text("nothing")
    (tmp_path / "in base64").write_bytes(b"x" * 100_000 + CANARY.value.encode().hex().encode())
    assert look_into(tmp_path).found == [f"{tmp_path}/in base64"]
    (tmp_path / "in base64").unlink()
    row = look_into(tmp_path)
    assert (row.verdict, row.things, row.size) == (SpotVerdict.CLEAN, 1, 7)
    (tmp_path / "link").symlink_to(f"to/{CANARY.value}")
    (found,) = look_into(tmp_path).found
    assert found.startswith(f"in the name '{tmp_path}/link' -> ")
    assert CANARY.value not in found


def test_many_files_are_searched(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / str(number)).write_text(CANARY.value if number == 777 else "")
    row = look_into(tmp_path)
    assert (row.things, row.found) == (1001, [f"{tmp_path}/777"])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "new\nline").write_text(CANARY.value), "the name of a file has a newline in it"),
        (lambda folder: os.truncate(_made(folder / "big"), 2 << 30), "big has more than 1 GiB"),
    ],
    ids=["newline", "big"],
)
def test_a_file_that_is_not_searched_is_reported(tmp_path: Path, spoil: object, why: str) -> None:
    assert callable(spoil)
    spoil(tmp_path)
    row = look_into(tmp_path)
    assert row.verdict is SpotVerdict.NOT_LOOKED
    assert row.unread[0].endswith(why)


def _made(path: Path) -> Path:
    path.touch()
    return path


def test_a_container_whose_processes_are_elsewhere_is_reported(tmp_path: Path) -> None:
    row = look_into(tmp_path, call=f"pcc_container {'0' * 64} 1 /home")
    assert row.verdict is SpotVerdict.NOT_LOOKED
    assert row.unread == ["this machine does not see the container's processes"]


def test_a_search_that_is_cut_off_or_never_begins_is_not_clean(tmp_path: Path) -> None:
    class Cut(LocalMachine):
        def run(self, script: str, timeout: float = 60.0) -> Done:
            return Done(137, f"file 3 {tmp_path}/a\n".encode(), b"Killed\n")

    class Gone(LocalMachine):
        def run(self, script: str, timeout: float = 60.0) -> Done:
            raise Unavailable(Reason.SSH_CLOSED, "the VM is away")

    assert look_into(tmp_path, Cut()).verdict is SpotVerdict.PARTLY
    row = look_into(tmp_path, Gone())
    assert (row.verdict, row.unread) == (SpotVerdict.NOT_LOOKED, ["ssh_closed: the VM is away"])


def test_a_user_who_may_become_root_searches_as_root_with_a_program_on_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfUser(LocalMachine):
        @property
        def facts(self) -> Facts:
            return replace(super().facts, uid=1000, user="other")

    sudo = tmp_path / "bin/sudo"
    sudo.parent.mkdir()
    sudo.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >>"$SUDO_LOG"\nshift\nexec "$@"\n')
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sudo.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SUDO_LOG", str(tmp_path / "sudo.log"))
    folder = tmp_path / "looked at"
    folder.mkdir()
    (folder / "leak").write_text(CANARY.value)
    assert look_into(folder, OfUser(), may_sudo=True).found == [f"{folder}/leak"]
    assert (tmp_path / "sudo.log").read_text() == "-n true\n-n sh\n"
    sudo.write_text("#!/bin/sh\nexit 1\n")
    assert look_into(folder, OfUser(), may_sudo=True).found == [f"{folder}/leak"]


def test_the_environment_of_a_process_outside_of_steps_has_its_own_row() -> None:
    ledger = Ledger(CANARY)
    ledger.name("here", (Spot.ARGUMENTS, Spot.ENVIRONMENT, Spot.OWN_ENVIRONMENT), "processes")
    looker = Looker(LocalMachine(), "here", CANARY, ledger, "run-7", may_sudo=False)
    processes = [
        subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "KEY": CANARY.value, **more})
        for more in ({}, {"PCC_RUN_ID": "run-7"})
    ]
    try:
        looker.processes(own_is_expected=True)
        rows = {row.spot: row for row in ledger.rows}
        assert rows[Spot.ARGUMENTS].verdict is SpotVerdict.CLEAN
        assert rows[Spot.ENVIRONMENT].found == [f"process {processes[0].pid} (sleep)"]
        assert rows[Spot.OWN_ENVIRONMENT].verdict is SpotVerdict.EXPECTED
        looker.processes(own_is_expected=False)
        assert rows[Spot.OWN_ENVIRONMENT].found == [f"process {processes[1].pid} (sleep)"]
    finally:
        for process in processes:
            process.kill()
            process.wait()
