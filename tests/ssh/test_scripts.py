"""Scripts on the VM share one shell, one after another, and none affects the next."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pccpipe.ssh import connection as connection_module
from pccpipe.ssh.connection import Connection
from tests.testbed.vm import VM


def test_scripts_share_one_shell(connection: Connection) -> None:
    first = connection.run("echo $$").stdout
    assert connection.run("echo $$").stdout == first
    # Also after a pause, when the connection first checks the shell.
    time.sleep(20 * connection_module.FRESH)
    assert connection.run("echo $$").stdout == first


def test_a_script_leaves_nothing_for_the_next(connection: Connection) -> None:
    connection.run("cd /; x=1; umask 0; set -eu; exec 2>/dev/null; trap 'echo trapped' EXIT; f() { :; }; exit 7")
    done = connection.run('echo "$PWD ${x-none} $(umask)" ; echo words >&2; f; false; echo on')
    assert done.code == 0
    assert done.stdout.split() == [b"/home/pcc", b"none", b"0022", b"on"]
    assert done.stderr.startswith(b"words\n")
    assert b"f: not found" in done.stderr


@pytest.mark.parametrize(
    ("script", "code", "stdout"),
    [
        ("exit 3", 3, b""),
        ("printf 'no end'", 0, b"no end"),
        ("printf '\\001\\377\\000\\n\\n'", 0, b"\x01\xff\x00\n\n"),
        ("head -c 3000000 /dev/zero | tr '\\0' x", 0, b"x" * 3_000_000),
        ("exec echo instead", 0, b"instead\n"),
        ("kill -KILL $$", 137, b""),
        ("cat", 0, b""),
    ],
)
def test_scripts_have_their_own_output_and_exit_code(
    connection: Connection, script: str, code: int, stdout: bytes
) -> None:
    for _ in range(2):
        done = connection.run(script)
        assert (done.code, done.stdout) == (code, stdout)
    assert connection.run("echo on").stdout == b"on\n"


def test_a_syntax_error_is_not_reported_as_a_lost_connection(connection: Connection) -> None:
    for _ in range(2):
        done = connection.run("echo not reached; if")
        assert done.code == 2
        assert done.stdout == b""
        assert b"yntax error" in done.stderr
    assert connection.run("echo on").stdout == b"on\n"


def test_a_background_process_of_a_script_does_not_delay_its_end(connection: Connection) -> None:
    began = time.monotonic()
    assert connection.run("sleep 20 & echo begun").stdout == b"begun\n"
    assert time.monotonic() - began < 10


def test_a_background_process_of_a_script_may_write_on(connection: Connection) -> None:
    for _ in range(3):
        # Without a newline, after the script's output and during the next script.
        done = connection.run("while :; do printf x; done & echo $! >talker; echo begun", timeout=10)
        assert done.stdout.strip(b"x") == b"begun\n"
        assert connection.run("kill $(cat talker); rm talker", timeout=10).code == 0
    assert connection.run("echo on").stdout.strip(b"x") == b"on\n"


def test_a_shell_that_died_loses_no_script(connection: Connection) -> None:
    shell = connection.run("echo $$").stdout.decode().strip()
    other = connection.popen(f"kill -KILL {shell}; echo gone")
    assert other.recv(100) == b"gone\n"
    other.close()
    assert connection.run("echo on").stdout == b"on\n"


def test_a_script_that_times_out_leaves_no_shell(connection: Connection) -> None:
    with pytest.raises(TimeoutError):
        connection.run("sleep 3; echo late", timeout=0.5)
    assert connection.run("echo on").stdout == b"on\n"


def test_parallel_scripts_have_a_shell_each(connection: Connection) -> None:
    with ThreadPoolExecutor(6) as pool:
        said = pool.map(lambda number: connection.run(f"sleep 0.{number % 3}; echo {number}").stdout, range(18))
        assert [int(each) for each in said] == list(range(18))


def test_the_kept_shell_is_closed_if_its_session_is_needed(
    fresh_vm: VM, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "SESSION_WAIT", 1.0)
    assert connection.run("true").code == 0
    held = [connection.popen("sleep 30") for _ in range(connection_module.SESSIONS)]
    for process in held:
        process.close()
