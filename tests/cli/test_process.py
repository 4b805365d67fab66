"""Other processes of the user can read nothing of the command's process, and no key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import ROOT, Folder, wait_until

KEY = "sk-9d1f6a0c4be27538"
NOBODY = 65534
PIPELINE = f"""\
version: 1
name: test
secrets:
  KEY: {{from: env}}
  UNUSED: {{from: env}}
  MADE: {{from: command, command: 'echo made-of-$KEY-$OTHER'}}
steps:
  - {{id: own, secrets: [KEY, MADE], run: 'test "$KEY" = {KEY[:3]}"{KEY[3:]}" && test "$MADE" = "made-of-$KEY-x"'}}
  - id: other
    run: |
      refused() {{ if "$@" >/dev/null; then echo "not refused: $*"; exit 9; fi; }}
      pid=$(cat pid)
      test -d /proc/$pid
      for of in environ mem maps; do
        refused cat /proc/$pid/$of
      done
      refused ls /proc/$pid/fd
      refused grep -alE 'sk-9d1f6a0c4be2753[8]' /proc/[0-9]*/environ
      test ! -e /proc/self/fd/7
      touch begun
      while [ ! -e go ]; do sleep 0.05; done
"""
REACHABLE = """
set -e
mkdir -p "$1"
mount --bind "$2" "$1"
rest=${2#/}
mount -t tmpfs -o mode=755 tmpfs "/${rest%%/*}"
mkdir -p "$2"
mount --bind "$1" "$2"
shift 2
exec "$@"
"""
"""Runs a command in a namespace where every user reaches a folder in a home folder."""


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a folder that an unprivileged user may write, and reach from `/`."""
    path = Path(f"/var/tmp/pccpipe-process-{os.getpid()}")
    path.mkdir()
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def python(place: Path) -> list[str]:
    """Return the prefix that runs Python as an unprivileged user, with this checkout."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    as_nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"]
    shutil.copytree(ROOT / "pccpipe", place / "src/pccpipe")
    for name in ("schemas", "pipelines"):
        shutil.copytree(ROOT / name, place / "src" / name)
    # A program of that user must start it: setpriv itself keeps root's rights.
    again = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import msgspec'], check=True)"
    for reached in ([], ["unshare", "-m", "sh", "-c", REACHABLE, "sh", str(place / "python"), sys.base_prefix]):
        argv = [*reached, *as_nobody, sys.executable]
        if not subprocess.run([*argv, "-c", again], check=False, stderr=subprocess.DEVNULL).returncode:
            return argv
    pytest.skip("another user cannot run this Python")


def started(argv: list[str], place: Path, **more: str) -> subprocess.Popen[str]:
    """A run whose second step looks at the command's process, until `go` exists."""
    (place / "p.yaml").write_text(PIPELINE)
    env = {**os.environ, "PYTHONPATH": str(place / "src"), "HOME": str(place), "KEY": KEY, "UNUSED": f"{KEY}9"}
    env |= {"OTHER": "x", **more}
    begin = 'echo $$ >pid; chmod 644 pid; exec 7</dev/null; exec "$0" "$@"'
    return subprocess.Popen(
        ["sh", "-c", begin, *argv, "-m", "pccpipe", "run", "p.yaml", "--run-id", "r"],
        cwd=place,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_step_and_other_processes_of_the_user_read_nothing_of_the_command(python: list[str], place: Path) -> None:
    process = started(python, place)
    wait_until(lambda: (place / "begun").exists() or process.poll() is not None)
    pid = (place / "pid").read_text().strip()
    other = subprocess.run([*python[:-1], "cat", f"/proc/{pid}/environ"], capture_output=True, check=False)
    # Root may read it, so it must not have a key.
    environment = Path(f"/proc/{pid}/environ").read_bytes() if process.poll() is None else b""
    (place / "go").touch()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert other.returncode != 0
    assert b"Permission denied" in other.stderr
    assert b"KEY=" in environment
    assert b"OTHER=x" in environment
    assert KEY.encode() not in environment


def test_root_finds_no_key_in_the_environment_of_a_command_of_its_own(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("is root's")
    (place / "src").symlink_to(ROOT)
    process = started([sys.executable], place)
    # A step of root can read everything, but the environments have no key.
    look = "      if grep -alE 'sk-9d1f6a0c4be2753[8]' /proc/[0-9]*/environ; then exit 9; fi"
    pipeline = PIPELINE[: PIPELINE.index("      refused()")] + look + PIPELINE[PIPELINE.index("\n      touch begun") :]
    (place / "p.yaml").write_text(pipeline)
    wait_until(lambda: (place / "begun").exists() or process.poll() is not None)
    (place / "go").touch()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_a_resumed_run_reveals_no_more(python: list[str], place: Path) -> None:
    process = started(python, place)
    wait_until(lambda: (place / "begun").exists() or process.poll() is not None)
    process.kill()
    process.communicate()
    env = {**os.environ, "PYTHONPATH": str(place / "src"), "HOME": str(place), "KEY": KEY, "UNUSED": KEY, "OTHER": "x"}
    resumed = subprocess.Popen(
        [*python, "-m", "pccpipe", "resume", "r"], cwd=place, env=env, stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: Path(f"/proc/{resumed.pid}/environ").read_bytes().count(KEY.encode()) == 0)
    (place / "go").touch()
    said, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, said


def test_a_closed_process_can_listen_at_a_socket_with_a_long_path(python: list[str], place: Path) -> None:
    program = (
        "import os, socket, sys\n"
        "from pccpipe.cli.process import close_to_others\n"
        "close_to_others()\n"
        "from pccpipe.machine.local import LocalMachine\n"
        "folder = sys.argv[1] + '/' + 'x' * 100\n"
        "os.mkdir(folder)\n"
        "served = LocalMachine().serve_socket(folder + '/s', lambda stream: stream.sendall(b'here'))\n"
        "os.chdir(folder)\n"
        "connected = socket.socket(socket.AF_UNIX)\n"
        "connected.connect('s')\n"
        "assert connected.recv(4) == b'here'\n"
        "assert os.stat('s').st_mode & 0o777 == 0o600\n"
        "served.close()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(place / "src")}
    done = subprocess.run([*python, "-c", program, str(place)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_library_leaves_the_process_as_it_is(place: Path) -> None:
    (place / "p.yaml").write_text(
        "version: 1\nname: t\nsecrets: {KEY: {from: env}}\nsteps: [{id: a, secrets: [KEY], run: 'true'}]\n"
    )
    program = (
        "import ctypes, os, pccpipe\n"
        "ran = pccpipe.run(pccpipe.load('p.yaml'), run_id='r')\n"
        "assert ran.exit_status == 0, ran.message\n"
        f"assert os.environ['KEY'] == '{KEY}'\n"
        "assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1\n"
        "ran = pccpipe.run(pccpipe.load('p.yaml'), run_id='r2', environ={'KEY': 'of-another-place'})\n"
        "assert ran.exit_status == 0, ran.message\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "KEY": KEY}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("soft", "hard", "then"), [(256, 4096, 1024), (256, 512, 512), (2048, 4096, 2048)])
def test_it_raises_the_limit_of_open_files_where_that_is_allowed(soft: int, hard: int, then: int) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from pccpipe.cli.process import raise_file_limit
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"({then}, {hard})\n"


def test_two_secrets_may_come_from_one_variable(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "version: 1\nname: p\nsecrets: {A: {from: env, name: ONE}, B: {from: env, name: ONE}}\n"
        'steps: [{id: s, on: local, secrets: [A, B], run: "[ $A = $B ]"}]\n'
    )
    done = Folder(tmp_path).do("run", "p.yaml", "--local", env={"ONE": "a-secret-value"})
    assert done.code == 0, done
