"""Play twenty seeds of chaos; `python -m tests.chaos` plays any number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.faults import Plan, plan
from tests.chaos.invariants import violations
from tests.chaos.play import Played, Player
from tests.testbed.vm import VM


@pytest.fixture(scope="module")
def struck_vm(bed: None) -> Iterator[VM]:
    """Give a VM for this process's chaos alone."""
    with VM.up() as vm:
        yield vm


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(1, 21))
def test_whatever_strikes_a_run_its_record_is_true(seed: int, struck_vm: VM, tmp_path: Path) -> None:
    played = Player(struck_vm, plan(seed), tmp_path).play()
    assert violations(played, struck_vm) == [], played.output


def _edit(name: str, old: str, new: str) -> Callable[[Played, VM], Played]:
    def edit(played: Played, _: VM) -> Played:
        path = played.record / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return played

    return edit


def _end_late(played: Played, _: VM) -> Played:
    path = played.record / "events.jsonl"
    path.write_text(re.sub(r'("event":"command_ended".*?"seconds":)[0-9.]+', r"\g<1>61.0", path.read_text(), count=1))
    return played


def _leave(played: Played, vm: VM) -> Played:
    vm.sh(f"mkdir -p {vm.root}/.system/run-workspaces/{played.record.name}")
    return played


BROKEN = {
    "exit status": lambda played, _: replace(played, code=1),
    "the journal's numbers": _edit("events.jsonl", '{"seq":5,', '{"seq":6,'),
    "never ended": _edit("events.jsonl", '"event":"command_ended"', '"event":"command_renamed"'),
    "was heard after 61 s": _end_late,
    "not the fold": _edit("run.json", '"status": "succeeded"', '"status": "failed"'),
    "ran 2 times; of 1": _edit("logs/last-1.stdout.log", "onvm:1", "onvm:2"),
    "stdout of onvm": _edit("logs/onvm-1.stdout.log", "onvm out 60\n", ""),
    "the diff is not what the VM has": _edit("diff.patch", "+athome", "+elsewhere"),
    "left on the VM": _leave,
}


@pytest.mark.timeout(240)
def test_each_rule_finds_a_run_that_breaks_it(struck_vm: VM, tmp_path: Path) -> None:
    played = Player(struck_vm, Plan(0, (), run_as=False), tmp_path).play()
    assert violations(played, struck_vm) == [], played.output
    files = {path: path.read_bytes() for path in played.record.rglob("*") if path.is_file()}
    for words, breaks in BROKEN.items():
        found = violations(breaks(played, struck_vm), struck_vm)
        assert any(words in each for each in found), (words, found)
        for path, content in files.items():
            path.write_bytes(content)
