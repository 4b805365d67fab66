"""The doctor's checks of the machine where pccpipe itself runs."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import time
from pathlib import Path

import pytest

from pccpipe.checkup.check import CheckVerdict, Finding
from pccpipe.checkup.checks import all_checks, controller
from pccpipe.checkup.context import CheckContext, CheckupOptions
from pccpipe.outcome import IsolationMode
from pccpipe.spec.project_model import Project
from tests.disk import SmallDisk


def found(name: str, folder: Path) -> Finding:
    context = CheckContext(
        CheckupOptions(Project("p", IsolationMode.LOCAL), folder / ".system/runs", "http://127.0.0.1:9/v1", "")
    )
    (check,) = (each for each in [*controller.CHECKS, *controller.BESIDE_VM] if each.name == name)
    return check.look(context)


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a PATH that has only sh and a test's programs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_the_controller_of_every_project_is_checked() -> None:
    for mode in IsolationMode:
        names = [check.name for check in all_checks(mode)]
        assert {"here", "here-git", "here-limits", "here-files", "here-clock"} <= set(names)
        assert len(set(names)) == len(names)
        assert ("here-disk" in names) == ("programs" in names) == (mode is IsolationMode.VM)


def test_a_fine_machine_is_reported_as_fine_and_nothing_is_left_there(tmp_path: Path) -> None:
    for check in controller.CHECKS:
        finding = found(check.name, tmp_path)
        assert finding.verdict is CheckVerdict.OK, (check.name, finding)
    assert "Python 3." in found("here", tmp_path).words
    assert list(tmp_path.iterdir()) == []


def test_an_untested_system_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uname = os.uname()
    for system, verdict in (("FreeBSD", CheckVerdict.WARNING), ("Darwin", CheckVerdict.OK)):
        monkeypatch.setattr(os, "uname", lambda system=system: os.uname_result((system, *uname[1:])))
        finding = found("here", tmp_path)
        assert finding.verdict is verdict
        assert "docs/controllers.md" in finding.words
    monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "99", "0"))
    assert "tested with 3.11, 3.12, 3.13" in found("here", tmp_path).words


def test_without_git_it_names_the_command_of_the_system(
    tmp_path: Path, empty_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = found("here-git", tmp_path)
    assert (finding.verdict, finding.words) == (CheckVerdict.WRONG, "there is no git")
    assert finding.fix
    assert finding.fix.command.endswith("apt-get install -y git")
    (empty_path / "apk").symlink_to("/bin/true")
    finding = found("here-git", tmp_path)
    assert finding.fix
    assert finding.fix.command.endswith("apk add git")
    # As on macOS without Xcode's tools.
    (empty_path / "git").write_text("#!/bin/sh\necho 'xcrun: error: invalid active developer path' >&2; exit 1\n")
    (empty_path / "git").chmod(0o755)
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Darwin", *uname[1:])))
    finding = found("here-git", tmp_path)
    assert finding.words.startswith("xcrun: error")
    assert finding.fix
    assert finding.fix.command == "xcode-select --install"


def test_few_descriptors_are_a_warning(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        finding = found("here-limits", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.verdict is CheckVerdict.WARNING
    assert "only 200 files" in finding.words
    assert finding.fix


def test_a_full_disk_of_the_records_is_wrong(small_disk: SmallDisk) -> None:
    small_disk.fill()
    finding = found("here-disk", small_disk.folder)
    assert finding.verdict is CheckVerdict.WRONG
    assert "0.0 GB free" in finding.words


def test_a_clock_before_the_installation_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 60.0)
    finding = found("here-clock", tmp_path)
    assert finding.verdict is CheckVerdict.WRONG
    assert "1970-01-01" in finding.words


def test_a_disk_without_locks_is_wrong_and_other_lacks_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such disks cannot be mounted here: the patched calls answer like SMB, exFAT and HFS+."""
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        finding = found("here-files", tmp_path)
        assert finding.verdict is CheckVerdict.WRONG
        assert "has no locks: two processes could run one run" in finding.words
        # Locks that lock nothing: every descriptor gets one.
        patch.setattr(fcntl, "flock", lambda *_: None)
        assert "has no locks" in found("here-files", tmp_path).words
    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", refuse)
        patch.setattr(Path, "chmod", lambda *_: None)
        patch.setattr(os, "utime", lambda path, ns: None)
        finding = found("here-files", tmp_path)
        assert finding.verdict is CheckVerdict.WARNING
        assert "has no links, modes" in finding.words
    monkeypatch.setattr(controller, "takes_for_one", lambda _: True)
    finding = found("here-files", tmp_path)
    assert finding.verdict is CheckVerdict.OK
    assert finding.words.endswith("names that differ only in case or Unicode form are the same")


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert "cannot be written: Operation not supported" in found("here-files", tmp_path).words


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
