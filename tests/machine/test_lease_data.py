"""The content of the lease's folder and a VM's answers are untrusted: they block no run, and kill no thread."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pccpipe.errors import Nonsense, Unavailable
from pccpipe.machine.base import Done, Machine, Process
from pccpipe.machine.lease import Lease, read_lease
from pccpipe.machine.local import LocalMachine
from pccpipe.ssh.connection import Connection
from tests.machine.test_lease import HereWithBusybox, die, held, holder_of, lease, take, takes, until
from tests.targets.conftest import vm_spec
from tests.testbed.vm import VM

NONCE = "0" * 32
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
BORDER = 89_999_999
"""The highest number that a lease may have."""
SOON = 5.0
"""Seconds for each of these; without a full folder it takes a fraction of one."""


@pytest.fixture(params=["dash", "bash", "busybox"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    match request.param:
        case "busybox":
            return HereWithBusybox(tmp_path / "bin")
        case "bash":
            (tmp_path / "bin").mkdir()
            (tmp_path / "bin/sh").symlink_to("/bin/bash")
            return HereWithPath(tmp_path / "bin")
        case _:
            return LocalMachine()


class HereWithPath(LocalMachine):
    """This machine, with the programs of a folder first in PATH."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def popen(self, command: str) -> Process:
        return super().popen(f"PATH={self._folder}:$PATH; {command}")


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "user's $HOME")


@pytest.fixture
def folder(root: str) -> Path:
    path = Path(root, ".system/lease")
    path.mkdir(parents=True)
    return path


def text(
    nonce: str = NONCE, boot: str = BOOT, since: str = "1", run: str = "leased-9", holder: str = "somewhere pid 1"
) -> str:
    return f"{nonce} {boot} {since} {run} {holder}"


def put(folder: Path, number: object, words: str, mtime: float | None = 0) -> Path:
    path = folder / str(number)
    path.symlink_to(words)
    if mtime is not None:
        subprocess.run(["touch", "-h", "-d", f"@{mtime:.0f}", path], check=True)
    return path


def runs_one_after_the_other(machine: Machine, root: str, soon: float = SOON) -> None:
    """Let two runs have the machine one after the other, without a wait."""
    for run_id in ("leased-1", "leased-2"):
        began = time.monotonic()
        with held(lease(machine, root, run_id)) as mine:
            assert time.monotonic() - began < soon
            assert holder_of(machine, root).run_id == run_id
            assert not takes(lease(machine, root, "leased-3"))
            assert mine.lost is None
        assert read_lease(machine, root) is None


def test_a_number_that_overflows_blocks_no_run(machine: Machine, root: str, folder: Path) -> None:
    put(folder, 2**63 - 1, f"x {BOOT} 1 r h")
    assert read_lease(machine, root) is None
    runs_one_after_the_other(machine, root)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "number", [2**63 - 1, 2**64, 10**15 - 1, 99_999_999, BORDER, BORDER - 1, "08", "0", "1e3", "-1"]
)
@pytest.mark.parametrize("words", [text(), text(boot="0" * 36), "x", text(since="1e20")])
def test_no_number_keeps_the_next_run_from_the_machine(root: str, folder: Path, number: object, words: str) -> None:
    put(folder, number, words)
    runs_one_after_the_other(LocalMachine(), root)


def test_numbers_at_the_limit_are_removed_together(machine: Machine, root: str, folder: Path) -> None:
    for below in range(60):
        put(folder, BORDER - below, text(boot="0" * 36))
    runs_one_after_the_other(machine, root)
    assert not [path for path in folder.iterdir() if int(path.name) > 100]


WRONG: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text(text()),
    "a folder": lambda path: (path / "in it").mkdir(parents=True),
    "a FIFO": os.mkfifo,
    "a link to a folder": lambda path: path.symlink_to("/"),
    "an empty word": lambda path: path.symlink_to(" "),
    "a nonce of letters": lambda path: path.symlink_to(text(nonce="x" * 32)),
    "a short nonce": lambda path: path.symlink_to(text(nonce="0" * 31)),
    "no boot": lambda path: path.symlink_to(text(boot="boot")),
    "a time of letters": lambda path: path.symlink_to(text(since="soon")),
    "a command for a time": lambda path: path.symlink_to(text(since="$(touch${IFS}x)")),
    "an index for a time": lambda path: path.symlink_to(text(since="x[$(id)]")),
    "an endless time": lambda path: path.symlink_to(text(since="9" * 19)),
    "an octal time": lambda path: path.symlink_to(text(since="09")),
    "a run that is a path": lambda path: path.symlink_to(text(run="../../etc")),
    "a long run": lambda path: path.symlink_to(text(run="r" * 65)),
    "a long holder": lambda path: path.symlink_to(text(holder="h" * 401)),
    "a bell": lambda path: path.symlink_to(text(holder="h\a")),
    "a line's end": lambda path: path.symlink_to(text(holder="h\nfree")),
    "an escape": lambda path: path.symlink_to(text(run="r\x1b[2J")),
}


@pytest.mark.parametrize("what", WRONG)
def test_entries_that_are_not_leases_are_ignored_and_removed(
    machine: Machine, root: str, folder: Path, what: str
) -> None:
    with held(lease(machine, root, "leased-0")) as mine:
        WRONG[what](folder / "7")
        assert holder_of(machine, root).run_id == "leased-0"
        assert not takes(lease(machine, root, "leased-3"))
        assert mine.lost is None
    runs_one_after_the_other(machine, root)


@pytest.mark.parametrize("name", ["x", "-rf", "a b", "line\nend", "'", "$(id)", ".hidden", "é", "h" * 255])
def test_no_name_in_the_folder_is_read_as_more_than_a_name(
    machine: Machine, root: str, folder: Path, name: str
) -> None:
    (folder / name).write_text("")
    runs_one_after_the_other(machine, root)


@pytest.mark.parametrize("mtime", [-1, 1e11, 2**33])
def test_a_time_out_of_bounds_does_not_count_as_a_sign_of_life(
    machine: Machine, root: str, folder: Path, mtime: float
) -> None:
    put(folder, 7, text(), mtime)
    state = holder_of(machine, root)
    assert state.is_stale
    runs_one_after_the_other(machine, root)


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder that takes 100,000 links in a second."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield folder


@pytest.mark.parametrize("words", [text(), "x"])
def test_100000_entries_block_no_run(memory: str, words: str) -> None:
    folder = Path(memory, ".system/lease")
    with held(lease(LocalMachine(), memory, "leased-0")):
        pass
    for number in range(100_000):
        (folder / str(1000 + number)).symlink_to(words)
    began = time.monotonic()
    read_lease(LocalMachine(), memory)
    runs_one_after_the_other(LocalMachine(), memory, 2 * SOON)
    assert time.monotonic() - began < 6 * SOON
    until(lambda: len(list(folder.iterdir())) < 40, 60)
    assert {path.name for path in folder.iterdir()} >= {"101000", "101001"}


def test_a_full_folder_does_not_hide_a_held_lease(root: str, folder: Path) -> None:
    with held(lease(LocalMachine(), root, "leased-0")) as mine:
        for number in range(1000):
            (folder / str(1000 + number)).symlink_to("x")
        assert holder_of(LocalMachine(), root).run_id == "leased-0"
        assert not takes(lease(LocalMachine(), root, "leased-3"))
        assert mine.lost is None


def test_a_full_folder_is_refused_where_find_cannot_list_it(root: str, folder: Path, tmp_path: Path) -> None:
    machine = HereWithBusybox(tmp_path / "bin")
    with held(lease(machine, root, "leased-0")):
        for number in range(300):
            (folder / str(1000 + number)).symlink_to("x")
        with pytest.raises(Unavailable, match="is full of files that are not leases; fix: pccpipe gc"):
            take(lease(machine, root, "leased-3"))


def test_a_folder_that_is_a_link_is_refused(machine: Machine, root: str, folder: Path, tmp_path: Path) -> None:
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="is a symbolic link"):
        take(lease(machine, root, "leased-1"))
    assert not list((tmp_path / "elsewhere").iterdir())


def sup(root: str, run_id: str, process: subprocess.Popen[bytes], name: str = "build-1.sup", start: int = 0) -> Path:
    began = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    path = Path(root, ".system/run-state", run_id, "commands", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{process.pid} {began + start} {BOOT}\n")
    return path


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("name", ["build-1.sup", "build-1.hold"])
def test_a_living_supervisor_keeps_the_lease_of_its_run(
    machine: Machine, root: str, process: subprocess.Popen[bytes], name: str
) -> None:
    take(dead := lease(machine, root, "leased-1"))
    die(dead)
    path = sup(root, "leased-1", process, name)
    time.sleep(2.5)
    assert not takes(lease(machine, root, "leased-2", stale_after=0.5))
    with path.open("a") as file:
        file.write("0 -\n")
    take(taken := lease(machine, root, "leased-2", stale_after=0.5))
    taken.release()


def test_an_environment_does_not_prove_a_living_command(machine: Machine, root: str) -> None:
    take(dead := lease(machine, root, "leased-1"))
    die(dead)
    forged = subprocess.Popen(["sleep", "60"], env={**os.environ, "PCCPIPE_STEP": "leased-1-0123456789ab/build-1/"})
    try:
        time.sleep(2.5)
        take(taken := lease(machine, root, "leased-2", stale_after=0.5))
        taken.release()
    finally:
        forged.kill()
        forged.wait()


def test_a_foreign_process_does_not_count_as_a_supervisor(
    machine: Machine, root: str, process: subprocess.Popen[bytes]
) -> None:
    take(dead := lease(machine, root, "leased-1"))
    die(dead)
    sup(root, "leased-1", process, start=1)
    other = subprocess.Popen(["sleep", "60"], user=65534, group=65534, extra_groups=[])
    commands = sup(root, "leased-1", other, "test-1.sup").parent
    (commands / "link.sup").symlink_to("/dev/zero")
    os.mkfifo(commands / "fifo.sup")
    (commands / "words.sup").write_text(f"x[$(id)] 1 {BOOT}\n")
    (commands / "path.sup").write_text(f"../self 1 {BOOT}\n")
    try:
        time.sleep(2.5)
        take(taken := lease(machine, root, "leased-2", stale_after=0.5))
        taken.release()
    finally:
        other.kill()
        other.wait()


class FuzzedMachine(LocalMachine):
    """A machine with any answer."""

    answer = ""

    def run(self, script: str, timeout: float = 60.0) -> Done:
        return Done(0, self.answer.encode(), b"") if self.answer else super().run(script, timeout)


@pytest.mark.parametrize(
    "answer",
    [
        "nonsense",
        "alive x y r h",
        "alive 1e20 1 r h",
        f"stale {'9' * 400} 1 r h",
        "alive 1 1 ../r h",
        "alive ² 1 r h",
        "alive - 1",
        "alive\n1 1 r h",
        "released nan inf r h",
        "h" * 10_000,
    ],
)
def test_nonsense_from_a_machine_is_one_error_and_the_heartbeat_continues(root: str, answer: str) -> None:
    machine = FuzzedMachine()
    with held(Lease(machine, root, "leased-1", holder="h", beat_every=0.1)) as mine:
        machine.answer = answer
        with pytest.raises(Nonsense, match="localhost: invalid answer: its lease is"):
            read_lease(machine, root)
        with pytest.raises(Nonsense, match="localhost: invalid answer: its lease is"):
            take(lease(machine, root, "leased-2"))
        time.sleep(0.5)
        assert mine._thread.is_alive()
        machine.answer = ""
        until(lambda: (holder_of(machine, root).last_beat or 0) < 1.5)
        assert mine.lost is None
    assert read_lease(machine, root) is None
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


def test_a_holders_text_cannot_control_a_terminal(root: str) -> None:
    with held(Lease(LocalMachine(), root, "leased-1", holder="a\x1b[2Jb\x00c\u202ed")):
        assert holder_of(LocalMachine(), root).holder == "a [2Jb c d"


def test_a_link_of_the_vms_login_user_blocks_no_run(vm: VM) -> None:
    connection = Connection(vm_spec(vm))
    link = f"{vm.root}/.system/lease/{2**63 - 1}"
    vm.ssh(f"mkdir -p {vm.root}/.system/lease; ln -s 'x {BOOT} 1 r h' {link}; touch -h -d @0 {link}")
    try:
        runs_one_after_the_other(connection, vm.root)
    finally:
        connection.close()
        vm.sh(f"rm -rf {vm.root}/.system/lease")
