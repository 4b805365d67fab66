"""The shell text that pccpipe sends to machines: short, and the same program as the files that it comes from."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import pccpipe
from pccpipe.machine import lease
from pccpipe.machine.script import shell_functions

FILES = sorted(Path(pccpipe.__file__).parent.rglob("*.sh"))
ROUND_TRIP = 14_000
"""Bytes that a new connection sends in one go: 10 segments of TCP, less what SSH adds."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_text_without_comments_is_a_program_with_the_same_functions(file: Path, shell: str) -> None:
    text = shell_functions(file)
    assert not re.search(r"^\s*#|\) [{(] #", text, re.MULTILINE)
    names = r"^\w+(?=\(\))"
    assert re.findall(names, text, re.MULTILINE) == re.findall(names, file.read_text(), re.MULTILINE)
    assert shutil.which(shell)
    subprocess.run([shell, "-n"], input=text, text=True, check=True)


def test_a_call_of_the_lease_needs_no_second_round_trip() -> None:
    assert len(lease.program()) < ROUND_TRIP
