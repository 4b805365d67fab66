"""The PATH of a command, the program that runs its script, and its variables for others, here and on a VM."""

from __future__ import annotations

import shlex

import pytest

from pccpipe.errors import ResultError, ResultMissing
from pccpipe.target import EXPORTS, Exit
from tests.targets.stand import Stand, read_all

SHOUT = '#!/bin/sh\\necho "$1"; tr a-z A-Z <"$2"; exit 3\\n'
"""An interpreter: it prints its option and its script, and ends with 3."""


@pytest.fixture
def tools(stand: Stand) -> None:
    """Put an interpreter, and hostile programs with common names, into the workspace's folder `bin`."""
    make = f"mkdir -p bin && cd bin && printf {shlex.quote(SHOUT)} >shout && chmod 755 shout"
    fakes = (
        "for name in sh bash timeout cat env setsid; do printf '#!/bin/sh\\necho fake\\n' >$name; chmod 755 $name; done"
    )
    assert stand.run(f"{make} && {fakes}")[2] == Exit(0)


def own_path(stand: Stand) -> str:
    return stand.run('echo "$PATH"')[0].decode().strip()


@pytest.mark.parametrize("entry", ["$PATH", "${PATH}"])
def test_a_path_extends_that_of_its_place(stand: Stand, entry: str) -> None:
    path = f"./bin:{entry}:/opt/a b:sub/../tools::"
    expected = f"{stand.workspace}/bin:{own_path(stand)}:/opt/a b:{stand.workspace}/tools\n"
    assert stand.run('echo "$PATH"', env={"PATH": path}) == (expected.encode(), b"", Exit(0))
    assert stand.run('echo "$PATH"', env={"PATH": "/nowhere:$(id):$HOME"})[0].decode().startswith("/nowhere:")


@pytest.mark.parametrize("cwd", [".", "bin"])
def test_a_relative_entry_is_below_the_workspace_wherever_the_script_goes(stand: Stand, tools: None, cwd: str) -> None:
    path = {"PATH": "bin:$PATH"}
    assert stand.run("cd /; shout x /dev/null || echo $?", env=path, cwd=cwd) == (b"x\n3\n", b"", Exit(0))


@pytest.mark.parametrize("path", ["bin", "bin:$PATH", "/nowhere"])
@pytest.mark.parametrize("shell", ["sh -e", "bash -e -o pipefail"])
def test_pccpipe_finds_its_own_programs_whatever_the_path(stand: Stand, tools: None, path: str, shell: str) -> None:
    assert stand.run("echo real", env={"PATH": path}, shell=shell) == (b"real\n", b"", Exit(0))


def test_another_interpreter_gets_the_script_as_its_last_word(stand: Stand, tools: None) -> None:
    script = "some text, with 'quotes' and $(id)\nand a second line"
    out, err, exit_ = stand.run(script, shell="shout --option", env={"PATH": "./bin:$PATH"})
    assert (out.decode().strip(), err, exit_) == (f"--option\n{script.upper()}", b"", Exit(3))
    assert stand.run(script, shell="bin/shout x", cwd=".")[2] == Exit(3)


def test_a_missing_interpreter_is_exit_code_127(stand: Stand) -> None:
    out, err, exit_ = stand.run("print(1)", shell="no-such-python -u")
    assert (out, exit_) == (b"", Exit(127))
    assert b"no-such-python" in err


def test_a_large_script_arrives_whole(stand: Stand, tools: None) -> None:
    script = "x" * 100_000 + "\nend\n"
    assert stand.run(script, shell="shout x", env={"PATH": "bin:$PATH"})[0] == f"x\n{script.upper()}".encode()


def test_a_command_leaves_variables_in_a_file_of_its_own(stand: Stand) -> None:
    fields = {"has_exports": True, "wants_out": True}
    running = stand.start('echo "A=1" >>"$PCC_ENV"; echo "B=2" >>"$PCC_ENV"; ls -A "$PCC_OUT"', **fields)
    assert read_all(running)[0] == f"{EXPORTS}\n".encode()
    assert running.fetch(EXPORTS, 100) == b"A=1\nB=2\n"
    with pytest.raises(ResultError, match="more than 3 bytes"):
        running.fetch(EXPORTS, 3)
    running.discard()
    assert stand.run('echo "${PCC_ENV-none}"')[0] == b"none\n"


@pytest.mark.parametrize("trick", ["ln -s /etc/passwd", "mkdir", "mkfifo"])
def test_a_file_for_variables_that_is_none_is_refused(stand: Stand, trick: str) -> None:
    running = stand.start(f'{trick} "$PCC_ENV"', has_exports=True, wants_out=True)
    assert read_all(running)[2] == Exit(0)
    with pytest.raises(ResultError, match="not a plain file"):
        running.fetch(EXPORTS, 100)
    running.discard()


def test_no_file_for_variables_is_known_as_missing(stand: Stand) -> None:
    running = stand.start("true", has_exports=True, wants_out=True)
    assert read_all(running)[2] == Exit(0)
    with pytest.raises(ResultMissing):
        running.fetch(EXPORTS, 100)
    running.discard()
