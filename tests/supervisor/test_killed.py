"""Kills pccpipe or its supervisor at any moment: a command runs once, and its end is known, or reported as lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pccpipe.errors import Lost, Unavailable
from pccpipe.supervisor import lines
from pccpipe.supervisor.lines import Line
from pccpipe.target import Chunk, Command, Exit, Running
from pccpipe.targets.local import LocalTarget
from tests.supervisor.conftest import made, supervisors
from tests.targets.stand import Stand, read_all, read_until, until


def read_to_the_loss(running: Running) -> bytes:
    said = bytearray()

    def read() -> None:
        while not isinstance(got := running.read(1.0), Exit):
            said.extend(got.data if isinstance(got, Chunk) else b"")

    with pytest.raises(Lost, match="its supervisor was killed"):
        read()
    return bytes(said)


def test_a_killed_supervisor_loses_its_command_and_the_next_command_gets_another(stand: Stand) -> None:
    running = stand.start(f"echo one; echo >>begun; sleep 0.3; echo two; sleep {stand.nap}")
    read_until(running, b"two\n")
    (pid,) = supervisors(stand)
    assert lines.is_alive(stand.state)
    os.kill(pid, signal.SIGKILL)
    read_to_the_loss(running)
    until(lambda: not lines.is_alive(stand.state))
    assert stand.naps() == 1
    running.discard()
    until(lambda: not stand.naps())
    assert stand.run("echo next; cat begun") == (b"next\n\n", b"", Exit(0))
    assert len(supervisors(stand)) == 1


def test_the_output_of_a_lost_command_is_read_to_the_last_byte(stand: Stand) -> None:
    running = stand.start("echo first; seq 100000; echo last >&2; echo done >done; sleep 30")
    until((Path(stand.workspace) / "done").exists)
    time.sleep(0.3)
    (pid,) = supervisors(stand)
    os.kill(pid, signal.SIGKILL)
    said = read_to_the_loss(running)
    # The two streams take turns.
    assert said.count(b"last\n") == 1
    assert said.replace(b"last\n", b"") == b"first\n" + b"".join(b"%d\n" % number for number in range(1, 100001))
    running.discard()


def test_a_recorded_end_is_not_lost(stand: Stand) -> None:
    running = stand.start("echo one; exit 5")
    until(lambda: len((Path(stand.state) / "commands" / "step-1.sup").read_text().splitlines()) == 2)
    (pid,) = supervisors(stand)
    os.kill(pid, signal.SIGKILL)
    resumed = stand.again()
    attached = resumed.attach(running.token)
    assert read_all(running) == read_all(attached) == (b"one\n", b"", Exit(5))
    running.discard()


def test_a_command_of_a_killed_supervisor_is_lost_for_a_resuming_process_too(stand: Stand) -> None:
    command = stand.command("echo >>begun; echo one; sleep 30")
    running = stand.target.start(command)
    read_until(running, b"one\n")
    (pid,) = supervisors(stand)
    os.kill(pid, signal.SIGKILL)
    resumed = stand.again()
    found = resumed.find(command)
    assert found is not None
    assert read_to_the_loss(found) == b"one\n"
    found.discard()
    running.discard()
    assert (Path(stand.workspace) / "begun").read_text() == "\n"


def test_the_next_supervisor_runs_a_command_that_the_last_one_did_not_read(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.run("true")
    (pid,) = supervisors(stand)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    assert stand.run("echo >>begun; cat begun") == (b"\n", b"", Exit(0))


def test_a_supervisor_that_does_not_answer_begins_nothing_later(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.run("true")
    monkeypatch.setattr(lines, "ANSWER_TIMEOUT", 0.5)
    (pid,) = supervisors(stand)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr("pccpipe.supervisor.supervised.BEGIN_TIMEOUT", 1.0)
    with pytest.raises(Unavailable, match="supervisor"):
        stand.run("echo >>begun")
    os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    stand.run("true")
    assert not (Path(stand.state) / "commands" / "step-2.sup").exists()
    assert stand.run("test ! -e begun")[2] == Exit(0)


@pytest.mark.parametrize("kills", [False, True])
def test_a_command_whose_start_is_never_confirmed_runs_once(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, kills: bool
) -> None:
    asked = Line.ask

    def ask(line: Line, *fields: bytes) -> list[bytes]:
        answer = asked(line, *fields)
        if fields[0] == b"begin":
            if kills:
                os.kill(supervisors(stand)[0], signal.SIGKILL)
            raise ConnectionResetError("it broke at that moment")
        return answer

    monkeypatch.setattr(Line, "ask", ask)
    running = stand.start("echo >>begun; sleep 0.5; echo end; exit 3")
    if kills:
        read_to_the_loss(running)
    else:
        assert read_all(running) == (b"end\n", b"", Exit(3))
    running.discard()
    monkeypatch.undo()
    assert stand.run("cat begun")[0] in ([b"\n", b""] if kills else [b"\n"])


KILLED = """
import json, os, signal, sys
from pathlib import Path
from pccpipe.targets.local import LocalTarget
from pccpipe.target import Command
folder = Path({folder!r})
target = LocalTarget("run-1", folder / "state", lambda: folder)
target.open()
running = target.start(Command("a-1", "a", 1, {script!r}))
while b"one" not in getattr(running.read(5), "data", b""): pass
print(json.dumps(running.token), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(stand: Stand, script: str) -> str:
    """Kill a pccpipe once its command has printed `one`; return the command's token, as JSON."""
    program = KILLED.format(folder=stand.workspace, script=script)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout


def test_a_supervisor_without_followers_ends_with_its_last_command(tmp_path: Path) -> None:
    stand = made(tmp_path)
    token = json.loads(killed(stand, "echo one; sleep 2; echo two; exit 8"))
    assert len(supervisors(stand)) == 1
    until(lambda: not supervisors(stand), limit=10)
    attached = stand.again().attach(token)
    assert read_all(attached) == (b"one\ntwo\n", b"", Exit(8))
    attached.discard()
    stand.target.take_over()
    stand.target.close()
    assert not Path(stand.state).exists()


def test_commands_of_a_killed_pccpipe_do_not_begin_after_another_process_resumed(stand: Stand) -> None:
    stand.run("true")
    resumed = stand.again()
    resumed.open()
    assert resumed.find(stand.command("true")) is None
    with pytest.raises(Unavailable, match="another process resumed the run"):
        stand.run("echo >>begun")
    # `find` after `find`: the run's own steps continue.
    assert resumed.find(stand.command("true")) is None
    running = resumed.start(stand.command("test ! -e begun"))
    assert read_all(running)[2] == Exit(0)
    running.discard()
    resumed.close()


def test_files_of_a_command_that_never_began_are_replaced(stand: Stand) -> None:
    for kind in ("in", "out"):
        folder = Path(stand.state, "commands", f"step-1.{kind}")
        folder.mkdir()
        (folder / "old").touch()
    Path(stand.state, "commands", "step-1.sh").write_text("old" * 1000)
    resumed = stand.again()
    command = stand.command('ls "$PCC_IN" "$PCC_OUT" | grep -v :', files={"new": b""}, wants_out=True)
    assert resumed.find(command) is None
    running = resumed.start(command)
    assert read_all(running)[0].split() == [b"new"]
    running.discard()
    resumed.leave()


def test_two_processes_that_resume_at_once_follow_one_command(stand: Stand) -> None:
    token = json.loads(killed(stand, "echo one; echo >>begun; sleep 1; echo two; exit 8"))
    results = []

    def attach() -> None:
        attached = stand.again().attach(token)
        results.append(read_all(attached))
        attached.let_go()

    threads = [threading.Thread(target=attach) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(b"one\ntwo\n", b"", Exit(8))] * 4
    assert (Path(stand.workspace) / "begun").read_text() == "\n"


def test_the_claim_of_a_command_names_its_process_group(stand: Stand) -> None:
    running = stand.start(f"env -i sleep {stand.nap}; true")
    until(lambda: stand.naps() == 1)
    (pid,) = supervisors(stand)
    os.kill(pid, signal.SIGKILL)
    read_to_the_loss(running)
    # The environment leads to the shell, and the process group to its child.
    running.discard()
    until(lambda: not stand.naps())


def test_a_local_target_can_be_left_and_resumed_with_its_command(stand: Stand, tmp_path: Path) -> None:
    running = stand.target.start(Command("a-1", "a", 1, "echo one; sleep 1; echo two"))
    read_until(running, b"one\n")
    running.let_go()
    stand.target.leave()
    resumed = LocalTarget("run-1", tmp_path / "state", lambda: tmp_path)
    attached = resumed.attach(running.token)
    assert read_all(attached)[0] == b"one\ntwo\n"
    attached.discard()
    resumed.close()
