"""Tests the supervisor in difficult surroundings: signals, limits, long paths, a full disk, no /proc, nonsense."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pccpipe.errors import Lost, Refused, Unavailable
from pccpipe.layout import SUPERVISOR
from pccpipe.outcome import Reason, Stream
from pccpipe.supervisor import lines, wire
from pccpipe.supervisor.running import LEAST_AHEAD
from pccpipe.supervisor.work import Order, Work
from pccpipe.target import Chunk, Command, Exit
from tests.disk import SmallDisk, mounted
from tests.fake_mac import FakeMac
from tests.supervisor.conftest import made, supervisors
from tests.targets.stand import Stand, read_all, read_until, until

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20

PROGRAM = """
import sys
from pathlib import Path
from pccpipe.targets.local import LocalTarget
from pccpipe.target import Chunk, Command, Exit
folder = Path(sys.argv[1])
target = LocalTarget("run-1", folder / "state", lambda: folder, kill_after=1.0)

def run(number, script, **fields):
    running = target.start(Command(f"a-{number}", "a", 1, script, **fields))
    said = b""
    while not isinstance(got := running.read(1.0), Exit):
        said += got.data if isinstance(got, Chunk) else b""
    running.discard()
    return said.decode(), got
"""


def in_another(code: str, folder: Path, mac: FakeMac | None = None) -> str:
    """Return the output of another process that runs commands with `run`."""
    argv = [sys.executable, "-c", PROGRAM + code + "\nassert target.close() == ()\n", str(folder)]
    argv, env = (mac.argv(argv), mac.env) if mac else (argv, {})
    env = {**os.environ, **env, "PYTHONPATH": f"{env.get('PYTHONPATH', '')}:{ROOT}"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_does_not_inherit_ignored_or_blocked_signals(tmp_path: Path) -> None:
    code = """
import signal
numbers = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1]
for number in numbers: signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print(*run(1, "grep -E 'Sig(Ign|Blk)' /proc/self/status; kill -HUP $$"))
"""
    said = in_another(code, tmp_path)
    blocked, ignored = (int(line.split()[1], 16) for line in said.splitlines()[:2])
    of_programs = sum(1 << number - 1 for number in signal.valid_signals())
    assert (blocked & of_programs, ignored & of_programs) == (0, 0)
    assert "signal='HUP'" in said


def test_a_command_inherits_limits_and_umask_but_no_descriptor(tmp_path: Path) -> None:
    code = """
import os, resource
os.umask(0o027)
resource.setrlimit(resource.RLIMIT_NOFILE, (77, 99))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
leak = os.open("/", os.O_RDONLY); os.set_inheritable(leak, True)
print(run(1, "umask; ulimit -n; ulimit -Hn; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0; pwd")[0])
"""
    # `ls` has one more descriptor, for the folder that it lists.
    assert in_another(code, tmp_path).split() == ["0027", "77", "99", "4", "/dev/null", str(tmp_path)]


def test_a_path_may_be_longer_than_a_sockets_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    stand = made(folder)
    first, second = stand.start("sleep 0.5; echo one"), stand.start("echo two")
    assert (read_all(first)[0], read_all(second)[0]) == (b"one\n", b"two\n")
    attached = stand.again().attach(first.token)
    assert read_all(attached)[0] == b"one\n"
    for running in (first, second):
        running.discard()
    stand.target.close()
    assert not list(Path("/tmp").glob("pcc-*/s"))


def test_two_hundred_commands_leave_no_descriptor_and_one_supervisor(stand: Stand) -> None:
    stand.run("true")
    (pid,) = supervisors(stand)

    def descriptors() -> tuple[int, int]:
        return len([*Path("/proc/self/fd").iterdir()]), len([*Path(f"/proc/{pid}/fd").iterdir()])

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: stand.run("sleep 0.5"), range(20)))
        before = descriptors()
        results = list(pool.map(lambda number: stand.run(f"echo {number}; exit 3"), range(200)))
    assert results == [(f"{number}\n".encode(), b"", Exit(3)) for number in range(200)]
    until(lambda: descriptors() <= before)
    assert supervisors(stand) == [pid]
    assert list(Path(stand.state, "commands").iterdir()) == []


def test_a_hundred_sleeping_commands_take_little_longer_than_one(stand: Stand) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(100) as pool:
        results = list(pool.map(lambda number: stand.run(f"sleep 0.5; echo {number}"), range(100)))
    assert [out for out, _, _ in results] == [f"{number}\n".encode() for number in range(100)]
    # 32 at a time.
    assert time.monotonic() - began < 12


@pytest.mark.parametrize(
    "said", [b"\n", b"x", b"9999999999 1\nab", b"3\nenx", b"5\nbegin", wire.pack(b"begin", *[b""] * 9), b"1 " * 10**6]
)
def test_nonsense_at_the_socket_ends_only_that_connection(stand: Stand, said: bytes) -> None:
    running = stand.start("echo one; sleep 1; echo two")
    read_until(running, b"one\n")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        folder = os.open(stand.state, os.O_RDONLY)
        stranger.connect(f"/proc/self/fd/{folder}/{SUPERVISOR}")
        os.close(folder)
        try:
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
        except ConnectionError:
            pass
    assert read_all(running)[::2] == (b"two\n", Exit(0))
    running.discard()


@pytest.mark.parametrize("said", ["x", "7 y\n", "256 -\n", "-1 -\n", "7\n", " \n", "1e3 -\n"])
def test_a_command_with_a_senseless_end_is_lost(stand: Stand, said: str) -> None:
    running = stand.start("sleep 30")
    (pid,) = supervisors(stand)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not supervisors(stand))
    with (Path(stand.state) / "commands" / "step-1.sup").open("a") as file:
        file.write(f"{said}\n".replace("\n\n", "\n"))
    with pytest.raises(Lost, match="invalid answer"):
        read_all(running)
    running.discard()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    yield from mounted(tmp_path / "small")


def test_a_command_on_a_full_disk_waits_for_room_and_loses_nothing(tmp_path: Path, small: SmallDisk) -> None:
    stand = made(small.folder)
    running = stand.start("echo begun; while [ ! -e full ]; do sleep 0.05; done; seq 30000; echo end >&2; exit 3")
    read_until(running, b"begun\n")
    small.fill()
    (small.folder / "full").symlink_to("/")
    time.sleep(1)
    small.unfill()
    out, err, exit_ = read_all(running)
    assert b"begun\n" + out == b"begun\n" + b"".join(b"%d\n" % number for number in range(1, 30001))
    assert (err, exit_) == (b"end\n", Exit(3))
    running.discard()
    stand.target.close()


def test_a_command_stopped_on_a_full_disk_ends_and_reports_lost_output(small: SmallDisk) -> None:
    stand = made(small.folder)
    running = stand.start("echo begun; while :; do seq 10000; done")
    read_until(running, b"begun\n")
    small.fill()
    time.sleep(1)
    running.stop(0.5)
    _, err, exit_ = read_all(running)
    assert exit_.output_lost
    assert b"disk full" in err
    assert exit_.code in {137, 141, 143}
    running.discard()
    small.unfill()
    stand.target.close()


def test_without_room_for_its_files_a_command_does_not_begin(small: SmallDisk) -> None:
    stand = made(small.folder)
    stand.run("true")
    small.fill()
    large = "x" * 10000
    for command in (
        stand.command("echo >>begun"),
        stand.command("echo >>begun", files={"f": large.encode()}),
        stand.command(f"# {large}\necho >>begun"),
    ):
        with pytest.raises(Unavailable) as caught:
            stand.target.start(command)
        assert caught.value.reason is Reason.NO_DISK_SPACE
        assert "No space left on device" in caught.value.words
    small.unfill()
    assert stand.run("test ! -e begun")[2] == Exit(0)
    stand.target.close()


def test_without_proc_everything_works_but_finding_escaped_processes(tmp_path: Path, mac: FakeMac) -> None:
    code = """
print(run(1, "echo out; echo err >&2; exit 3"))
print(run(2, "sleep 30", limit=0.3))
print(run(3, "trap '' TERM; sleep 30 & sleep 30; sleep 30", limit=0.3)[1])
print(run(4, "sleep 44.25 & echo done"))
running = target.start(Command("b-1", "b", 1, "echo one; sleep 30"))
while b"one" not in getattr(running.read(5), "data", b""): pass
print(running.isolation.escapes_unseen)
running.stop(5.0)
while not isinstance(got := running.read(1.0), Exit): pass
print(got)
running.discard()
"""
    said = in_another(code, tmp_path, mac).splitlines()
    assert said == [
        str(("out\nerr\n", Exit(3))),
        str(("", Exit(124, timed_out=True))),
        str(Exit(137, "KILL", timed_out=True)),
        str(("done\n", Exit(0, left_processes=True))),
        "True",
        str(Exit(143, "TERM")),
    ]
    assert not (tmp_path / "state").exists()
    assert subprocess.run(["pgrep", "-fx", "sleep 44.25"], check=False, capture_output=True).stdout == b""


def test_values_that_no_program_can_take_are_refused(stand: Stand) -> None:
    for command in (
        Command("a", "a", 1, "echo \0"),
        Command("a", "a", 1, "true", env={"A-B": "1"}),
        Command("a", "a", 1, "true", secrets={"A": "x\0y"}),
    ):
        with pytest.raises(Refused, match=r"no shell can take|invalid name of an environment"):
            stand.target.start(command)
    huge = {"A": "x" * 200_000}
    out, err, exit_ = stand.run("true", env=huge)
    assert (out, exit_.code) == (b"", 126)
    assert b"Argument list too long" in err


def test_no_command_begins_for_a_user_at_the_process_limit(stand: Stand) -> None:
    stand.run("true")
    (pid,) = supervisors(stand)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (12, before[1]))
    with pytest.raises(Unavailable) as caught:
        stand.run("true")
    assert caught.value.reason is Reason.START_REFUSED
    assert "Too many open files" in caught.value.words
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert stand.run("echo again")[0] == b"again\n"


def test_a_flood_without_a_reader_takes_no_memory(stand: Stand) -> None:
    running = stand.start(f"head -c {60 * MIB} /dev/zero; echo end >&2; sleep {stand.nap}")
    (pid,) = supervisors(stand)
    spool = Path(stand.state, "commands", "step-1.stdout")
    until(lambda: spool.stat().st_size == 60 * MIB, limit=60)
    memory = int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])
    assert memory < 40_000
    running.stop(0)
    assert read_all(running)[2].code in {137, 143}
    running.discard()


def test_a_flood_on_one_stream_does_not_hold_back_the_other(stand: Stand) -> None:
    running = stand.start(f"head -c {50 * MIB} /dev/zero; echo said >&2; sleep {stand.nap}")
    until(lambda: Path(stand.state, "commands", "step-1.stderr").stat().st_size == 5)
    seen = 0
    while not (isinstance(got := running.read(5), Chunk) and got.stream is Stream.STDERR):
        seen += len(got.data) if isinstance(got, Chunk) else 0
    assert (got.data, seen < 10 * MIB) == (b"said\n", True)
    running.stop(0)
    read_all(running)
    running.discard()


def test_without_proc_a_resumed_run_ends_its_running_commands(tmp_path: Path, mac: FakeMac) -> None:
    code = """
target.open()
running = target.start(Command("a-1", "a", 1, "echo one; sleep 44.75"))
while b"one" not in getattr(running.read(5), "data", b""): pass
target.leave()
target = LocalTarget("run-1", folder / "state", lambda: folder, kill_after=1.0)
target.take_over()
"""
    in_another(code, tmp_path, mac)
    until(lambda: subprocess.run(["pgrep", "-fx", "sleep 44.75"], check=False, capture_output=True).stdout == b"")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", [b"caf\xc3\xa9", b"bad\xff\xfe", b"new\nline", b"-x y'\"$"])
def test_a_run_may_be_in_a_folder_of_any_name(tmp_path: Path, name: bytes) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    folder.mkdir()
    stand = made(folder)
    assert stand.run("pwd; exit 3") == (os.fsencode(folder) + b"\n", b"", Exit(3))
    attached = stand.start("echo one")
    assert read_all(stand.again().attach(attached.token))[0] == b"one\n"
    attached.discard()
    assert stand.target.close() == ()


def test_a_limit_of_years_is_accepted(stand: Stand) -> None:
    assert stand.run("sleep 0.2; echo x", limit=1e10)[0] == b"x\n"


def test_a_file_of_the_workspace_is_not_taken_for_a_shell(stand: Stand) -> None:
    shell = Path(stand.workspace, "no-such-shell")
    shell.write_text("#!/bin/sh\necho planted\n")
    shell.chmod(0o755)
    out, err, exit_ = stand.run("true", shell="no-such-shell")
    assert (out, exit_.code) == (b"", 127)
    assert b"no-such-shell" in err
    assert stand.run("true", shell="./no-such-shell") == (b"planted\n", b"", Exit(0))


def test_a_command_that_has_begun_is_never_reported_as_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "commands").mkdir()
    (tmp_path / "holder").write_bytes(b"me")
    monkeypatch.chdir(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    order = Order([b"a-1", b"0" * 32, b"me", b"9", b"1", os.fsencode(tmp_path), b"PCCPIPE_STEP=x/", b"", b""])
    home = os.open(".", os.O_RDONLY)
    work = Work(order, [b"/bin/sh", b"-c", b"exit 7"], {}, b"1 0 -\n", home, 0o022, 1, 0.0)
    assert os.waitstatus_to_exitcode(os.waitpid(work.pid, 0)[1]) == 7
    os.close(home)


def test_a_python_that_cannot_start_a_supervisor_says_why(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.target.close()
    broken = made(Path(stand.workspace))
    monkeypatch.setattr(lines, "_PROGRAM", "import sys; sys.exit('no such luck')")
    with pytest.raises(Unavailable, match="no such luck"):
        broken.run("true")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(Unavailable, match="/no/such/python"):
        made(Path(stand.workspace)).run("true")
    broken.target.close()


def test_the_end_of_a_flood_arrives_even_if_it_ends_between_two_checks(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pccpipe.supervisor.running.LOOK_EVERY", 60.0)
    waits = "until [ -e {} ]; do sleep 0.01; done"
    running = stand.start(
        f"echo begun; {waits.format('more')}; head -c {LEAST_AHEAD + MIB} /dev/zero; {waits.format('go')}; echo end"
    )
    assert running.read(10) == Chunk(Stream.STDOUT, b"begun\n")
    running.may_skip(0, 100)
    assert running.read(0) is None
    Path(stand.workspace, "more").touch()
    while running.read(1):
        pass  # until it reads no further before the next check
    Path(stand.workspace, "go").touch()
    until(lambda: Path(stand.state, "commands", "step-1.sup").read_text().endswith("0 -\n"))
    stdout, _, exit_ = read_all(running)
    assert (stdout[-4:], exit_.code) == (b"end\n", 0)
    running.discard()
