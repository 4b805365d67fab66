"""The local target: the caller's environment, a workspace that moves, this machine's shells."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.errors import Unavailable
from pccpipe.outcome import Place, Reason
from pccpipe.target import Exit
from pccpipe.targets.local import LocalTarget
from tests.targets.shells import check_shell
from tests.targets.stand import Stand, local_shell, read_all, until


@pytest.fixture
def workspaces(tmp_path: Path) -> list[Path]:
    """The workspaces so far; the next command works in the last."""
    return [tmp_path]


@pytest.fixture
def stand(tmp_path: Path, workspaces: list[Path]) -> Iterator[Stand]:
    state = tmp_path / "state"

    def make() -> LocalTarget:
        return LocalTarget("run-1", state, lambda: workspaces[-1], frozenset({"SECRET_SOURCE"}), kill_after=1.0)

    target = make()
    target.open()
    yield Stand("run-1", target, make, local_shell, str(state), str(tmp_path))
    target.close()


def test_commands_see_the_callers_environment_but_for_withheld_variables(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_SOURCE", "hidden")
    monkeypatch.setenv("PLAIN", "of the caller")
    script = 'echo "${SECRET_SOURCE-nothing}, $PLAIN, $OWN, ${OLDPWD-nothing}"'
    assert stand.run(script, env={"OWN": "mine"})[0] == b"nothing, of the caller, mine, nothing\n"
    # A step that names the secret gets it, by any name.
    assert stand.run('echo "$SECRET_SOURCE"', secrets={"SECRET_SOURCE": "named"})[0] == b"named\n"


def test_a_command_may_set_the_shells_own_variables(stand: Stand) -> None:
    values = {
        "IFS": "x",
        "PATH": "/usr/bin:/bin",
        "PS4": "%",
        "HOME": "/",
        "LC_ALL": "C",
        "pcc_timeout": "no",
        "ENV": "/x",
    }
    out, err, exit_ = stand.run('echo "$HOME"; ls / >/dev/null; exit 3', env=values)
    assert (out, err, exit_) == (b"/\n", b"", Exit(3))


def test_a_command_works_in_the_workspace_of_its_start(stand: Stand, workspaces: list[Path]) -> None:
    moved = workspaces[0] / "copy"
    moved.mkdir()
    assert stand.run("pwd")[0].decode().strip() == str(workspaces[0])
    workspaces.append(moved)
    running = stand.start("pwd")
    assert read_all(running)[0].decode().strip() == str(moved)
    isolation = running.isolation
    assert (isolation.place, isolation.host, isolation.workspace) == (Place.LOCAL, "localhost", str(moved))
    assert isolation.user == f"{os.getuid()}:{os.getgid()}"
    assert isolation.login == pwd.getpwuid(os.getuid()).pw_name
    running.discard()


def test_the_umask_is_the_callers_and_only_the_caller_can_read_kept_files(stand: Stand) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert int(stand.run("umask")[0], 8) == mask
    assert Path(stand.state).stat().st_mode & 0o077 == 0


def test_commands_work_in_each_shell(shell: str, stand: Stand) -> None:
    check_shell(shell, stand)


def test_many_commands_leave_neither_processes_nor_zombies(shell: str, stand: Stand) -> None:
    for _ in range(5):
        stand.run("true")
    before = _children_of_the_supervisor(stand)
    for _ in range(120):
        stand.run("true")
    until(lambda: bool(stand.run("true")) and _children_of_the_supervisor(stand) <= before + 2)
    assert len(list(Path(stand.state, "commands").iterdir())) < 5 * 40


def test_a_killed_pccpipe_leaves_its_command_running_and_another_process_finishes_it(tmp_path: Path) -> None:
    script = f"""
import json, os, signal
from pathlib import Path
from pccpipe.targets.local import LocalTarget
from pccpipe.target import Command
target = LocalTarget("run-9", Path({str(tmp_path / "state")!r}), lambda: Path({str(tmp_path)!r}))
target.open()
running = target.start(Command("a-1", "a", 1, "echo one; sleep 1.5; echo two; exit 8"))
while b"one" not in getattr(running.read(5), "data", b""): pass
print(json.dumps(running.token), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    target = LocalTarget("run-9", tmp_path / "state", lambda: tmp_path)
    running = target.attach(json.loads(done.stdout))
    assert read_all(running) == (b"one\ntwo\n", b"", Exit(8))
    running.discard()
    target.close()
    assert not (tmp_path / "state").exists()
    assert Stand("run-9", target, lambda: target, local_shell, str(tmp_path / "state"), "").processes() == []


def test_a_state_folder_that_cannot_be_made_is_unavailable_in_the_machines_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = LocalTarget("run-2", tmp_path / "file" / "state", lambda: tmp_path)
    with pytest.raises(Unavailable, match="Not a directory") as caught:
        target.open()
    assert caught.value.reason is Reason.WORKSPACE_REFUSED
    target.close()


def test_neither_coreutils_nor_grep_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    found = shutil.which("sh")
    assert found
    (bin_ / "sh").symlink_to(found)
    monkeypatch.setenv("PATH", str(bin_))
    target = LocalTarget("run-3", tmp_path / "state", lambda: tmp_path, kill_after=1.0)
    target.open()
    stand = Stand("run-3", target, lambda: target, local_shell, str(tmp_path / "state"), str(tmp_path))
    assert stand.run("echo out; exit 3") == (b"out\n", b"", Exit(3))
    assert stand.run("while :; do :; done", limit=0.3)[2] == Exit(124, timed_out=True)
    target.close()
    assert not (tmp_path / "state").exists()


def test_closing_twice_and_closing_an_unopened_target_are_harmless(stand: Stand, tmp_path: Path) -> None:
    stand.target.close()
    stand.target.close()
    with pytest.raises(Unavailable):
        stand.target.open()
    LocalTarget("run-4", tmp_path / "never", lambda: tmp_path).close()
    assert not (tmp_path / "never").exists()
    assert not Path(stand.state).exists()
    with pytest.raises(Unavailable):
        stand.run("true")


def test_a_step_takes_milliseconds(stand: Stand) -> None:
    times = []
    for _ in range(50):
        started = time.monotonic()
        stand.run("true")
        times.append(time.monotonic() - started)
    # 2 ms on an idle machine; this one may be busy.
    assert sorted(times)[25] < 0.05


def _children_of_the_supervisor(stand: Stand) -> int:
    """List the processes, zombies included, whose parent works in the folder of the run."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
            folder = Path(f"/proc/{parent}/cwd").readlink()
        except OSError:
            continue
        count += str(folder).startswith(stand.state)
    return count
