"""The VMs that this controller no longer trusts."""

from __future__ import annotations

from pathlib import Path

from pccpipe.layout import VM_HISTORY
from pccpipe.record.vm_history import VmHistory

VM = "192.0.2.1:22"


def history(runs: Path, run_id: str, vm: str = VM, *, resumes: bool = False) -> VmHistory:
    return VmHistory(runs, vm, run_id, resumes=resumes)


def test_a_vm_is_remembered_for_every_other_run_with_the_file_to_remove(tmp_path: Path) -> None:
    first = history(tmp_path, "night-1")
    assert first.earlier() is None
    first.remember()
    assert first.earlier() is None, "it is the run's own"
    words = history(tmp_path, "night-2").earlier()
    assert words
    assert "night-1" in words
    assert str(next((tmp_path / VM_HISTORY).iterdir())) in words
    assert history(tmp_path, "night-2", "192.0.2.2:22").earlier() is None


def test_a_resumed_run_knows_its_own_and_a_new_one_of_the_same_name_does_not(tmp_path: Path) -> None:
    history(tmp_path, "night-1").remember()
    assert history(tmp_path, "night-1", resumes=True).earlier() is None
    assert history(tmp_path, "night-1").earlier()


def test_the_file_keeps_the_first_run(tmp_path: Path) -> None:
    history(tmp_path, "night-1").remember()
    history(tmp_path, "night-2").remember()
    assert "night-1" in (history(tmp_path, "night-3").earlier() or "")


def test_an_unreadable_file_does_not_make_the_vm_trusted(tmp_path: Path) -> None:
    history(tmp_path, "night-1").remember()
    next((tmp_path / VM_HISTORY).iterdir()).write_text("{")
    assert "unknown run" in (history(tmp_path, "night-2").earlier() or "")
