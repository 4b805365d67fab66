"""The programs for a lane: no value becomes program text, and a cut program does nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccpipe.detached import programs
from pccpipe.detached.lane import understood
from pccpipe.detached.programs import CommandRef, RunDir
from pccpipe.errors import Unavailable
from pccpipe.machine.local import LocalMachine
from pccpipe.target import Command

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), text, max_size=3), text, text)
def test_no_value_is_read_as_program_text(env: dict[str, str], script: str, cwd: str) -> None:
    command = Command("a-1", "a", 1, script, cwd=cwd, env=env)
    program = programs.begin(RunDir("r", "/s"), CommandRef("a-1", "mark", "/s/lane-1", (0, 0)), command, "/w")
    # `pcc_begin` only prints its arguments here.
    shown = f'pcc_begin() {{ printf "%s\\0" "$@"; }}\n{program.decode()}'
    words = subprocess.run(["sh"], input=shown.encode(), capture_output=True, check=True).stdout.split(b"\0")
    folder = "/w" if cwd in ("", ".") else f"/w/{cwd}"
    assert [word.decode() for word in words[4:7]] == ["30.00", folder, script]


def test_a_program_cut_short_does_nothing(tmp_path: Path) -> None:
    command = Command("a-1", "a", 1, "true", env={"A": "b"}, files={"f": b"data"}, wants_out=True)
    program = programs.begin(
        RunDir("r", str(tmp_path)), CommandRef("a-1", "mark", "lane", (0, 0)), command, str(tmp_path)
    )
    for end in range(len(program) - 1):
        begun = tmp_path / "begun"
        shown = f"pcc_begin() {{ : >{begun}; }}\n".encode() + program[:end]
        subprocess.run(["sh"], input=shown, capture_output=True, check=False)
        assert not begun.exists(), program[:end]


def test_runs_of_the_same_name_in_other_folders_have_different_tags() -> None:
    assert RunDir("run-1", "/a/run-1").tag != RunDir("run-1", "/b/run-1").tag
    assert RunDir("run-1", "/a/run-1").tag.startswith("run-1-")


@pytest.mark.parametrize(("program", "install"), [("apk", "apk add"), ("apt-get", "apt-get install")])
def test_the_error_for_missing_programs_has_the_install_command_of_the_system(
    tmp_path: Path, program: str, install: str
) -> None:
    (tmp_path / program).write_text("")
    (tmp_path / program).chmod(0o755)
    tools = Path(programs.__file__).with_name("tools.sh").read_text()
    sh = shutil.which("sh") or "sh"
    script = f'{tools}\npcc_tools || printf %s "missing$pcc_missing"'
    said = subprocess.run([sh], input=script, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    with pytest.raises(Unavailable, match=r"localhost lacks: timeout \(coreutils\) tail \(coreutils\) grep$") as raised:
        understood(LocalMachine(), said.stdout)
    assert raised.value.hint.endswith(f": {install} coreutils grep")
