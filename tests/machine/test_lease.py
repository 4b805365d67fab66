"""The lease, on this machine with each sh that a VM may have, and on VMs of the test bed."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pccpipe.errors import Unavailable, VmBusy
from pccpipe.machine.base import Done, Machine
from pccpipe.machine.lease import Lease, LeaseState, read_lease
from pccpipe.machine.local import LocalMachine
from pccpipe.machine.script import run_script
from pccpipe.outcome import Reason
from pccpipe.ssh.connection import Connection
from tests.targets.conftest import vm_spec
from tests.testbed.vm import VM

HOLDER = "laptop pid 12"
TURNS = 5
"""Rounds of each race, with each of two shells: 20 in all."""
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"


class HereWithBusybox(LocalMachine):
    """This machine, with busybox as its sh and for every program."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir()
        subprocess.run(["busybox", "--install", "-s", str(folder)], check=True)
        self._folder = folder

    def run(self, script: str, timeout: float = 60.0) -> Done:
        return run_script(self.popen(f"PATH={shlex.quote(str(self._folder))}; exec sh"), script, timeout)


class HereWithFaults(LocalMachine):
    """This machine, over a connection that is `cut`, or that `breaks` this many times after a script has run."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False
        self.breaks = 0

    def run(self, script: str, timeout: float = 60.0) -> Done:
        if self.cut:
            raise Unavailable(Reason.SSH_UNREACHABLE, "no route to host")
        done = super().run(script, timeout)
        if self.breaks:
            self.breaks -= 1
            raise ConnectionResetError("the connection ended")
        return done


@pytest.fixture(params=["dash", "busybox"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return LocalMachine() if request.param == "dash" else HereWithBusybox(tmp_path / "bin")


@pytest.fixture
def root(tmp_path: Path) -> str:
    # A shell must not interpret a user's path.
    return str(tmp_path / "user's $HOME")


def lease(
    machine: Machine,
    root: str,
    run_id: str,
    stale_after: float = 60.0,
    beat_every: float = 15.0,
    *,
    resumes: bool = False,
) -> Lease:
    return Lease(machine, root, run_id, holder=HOLDER, resumes=resumes, stale_after=stale_after, beat_every=beat_every)


def take(lease: Lease, wait: float = 0.0) -> None:
    lease.acquire(wait, lambda: False, lambda words: None)


def takes(lease: Lease) -> bool:
    try:
        take(lease)
    except VmBusy:
        return False
    return True


def holder_of(machine: Machine, root: str, stale_after: float = 60.0) -> LeaseState:
    state = read_lease(machine, root, stale_after)
    assert state
    return state


@contextmanager
def held(lease: Lease) -> Iterator[Lease]:
    take(lease)
    try:
        yield lease
    finally:
        lease.release()


def die(lease: Lease) -> None:
    """End its heartbeat, as if its process was killed."""
    lease._end.set()
    lease._thread.join()


def link(root: str) -> Path:
    return max(Path(root, ".system/lease").iterdir(), key=lambda path: int(path.name))


def rewrite(root: str, change: Callable[[list[str]], None]) -> None:
    """Change the words of the lease: nonce, boot, since, run, holder."""
    path = link(root)
    words = str(path.readlink()).split(" ", 4)
    change(words)
    path.unlink()
    path.symlink_to(" ".join(words))


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


def test_a_second_run_gets_the_holders_name(machine: Machine, root: str) -> None:
    with held(lease(machine, root, "leased-1")):
        with pytest.raises(VmBusy) as caught:
            take(lease(machine, root, "leased-2"))
        error = caught.value
        assert error.message == (
            "the VM localhost is busy: run leased-1 (laptop pid 12) has had it for 0 s, "
            "its last sign of life was 0 s ago"
        )
        assert error.hint == "wait for it with --wait 10m, or cancel it: pccpipe cancel leased-1"
        assert not isinstance(error, Unavailable)
    with held(lease(machine, root, "leased-2")):
        pass


def test_read_lease_returns_the_holder_and_its_times(machine: Machine, root: str) -> None:
    assert read_lease(machine, root) is None
    with held(lease(machine, root, "leased-1")):
        state = holder_of(machine, root)
        assert state.held_since is not None
        assert state.last_beat is not None
        assert 0 <= state.last_beat <= state.held_since < 5
        assert state == LeaseState("leased-1", HOLDER, state.held_since, state.last_beat, False)
    assert read_lease(machine, root) is None


@pytest.mark.parametrize("holder", ["", "ünï $(id) `id` * 'x' \"y\" \\n\nnext", "long " * 300])
def test_a_holder_may_be_any_text(machine: Machine, root: str, holder: str) -> None:
    with held(Lease(machine, root, "run_1.2-A", holder=holder)):
        state = holder_of(machine, root)
        assert (state.run_id, state.holder) == ("run_1.2-A", " ".join(holder.split())[:100].strip())


def race(leases: list[Lease]) -> Lease:
    """Try to take all leases at the same instant; return the one that succeeds."""
    barrier = threading.Barrier(len(leases))

    def run(lease: Lease) -> bool:
        barrier.wait()
        return takes(lease)

    with ThreadPoolExecutor(len(leases)) as pool:
        (winner,) = [lease for lease, won in zip(leases, pool.map(run, leases), strict=True) if won]
    return winner


def test_one_of_eight_runs_at_the_same_instant_gets_the_lease(machine: Machine, root: str) -> None:
    for turn in range(TURNS):
        leases = [lease(machine, root, f"run-{turn}-{n}") for n in range(8)]
        winner = race(leases)
        assert holder_of(machine, root).run_id == winner._words[1]
        for each in leases:
            each.release()
        assert read_lease(machine, root) is None
    assert len(list(Path(root, ".system/lease").iterdir())) == TURNS


def test_few_of_many_links_are_kept(machine: Machine, root: str) -> None:
    with held(lease(machine, root, "leased-1")):
        text = link(root).readlink()
    for number in range(2, 100):
        Path(root, f".system/lease/{number}").symlink_to(text)
    with held(lease(machine, root, "leased-1", resumes=True)):
        assert link(root).name == "100"
        assert len(list(Path(root, ".system/lease").iterdir())) < 20


def test_one_of_eight_runs_takes_over_a_dead_lease(machine: Machine, root: str) -> None:
    def from_before_a_reboot(words: list[str]) -> None:
        words[1] = OTHER_BOOT

    for turn in range(TURNS):
        winner = race([lease(machine, root, f"run-{turn}-{n}") for n in range(8)])
        assert holder_of(machine, root).run_id == winner._words[1]
        die(winner)
        rewrite(root, from_before_a_reboot)


def test_a_dead_lease_is_taken_over_but_not_too_early(root: str) -> None:
    dead = lease(LocalMachine(), root, "leased-1", beat_every=0.3)
    take(dead)
    time.sleep(0.5)
    die(dead)
    since = time.monotonic()
    taken = lease(LocalMachine(), root, "leased-2", stale_after=1.5)
    take(taken, wait=20)
    # The shell rounds the last sign of life up to a second, and the run asks once a second.
    assert 1.2 < time.monotonic() - since < 6
    taken.release()


def test_a_clock_that_jumps_makes_no_lease_stale_and_keeps_none_alive(machine: Machine, root: str) -> None:
    def two_minutes_older(words: list[str]) -> None:
        words[2] = str(int(words[2]) - 12_000)

    def touch(hours: int) -> None:
        # As if the holder died between its link and its first beat: the time comes from the clock.
        clock = time.time() + hours * 3600
        os.utime(link(root), (clock, clock), follow_symlinks=False)

    take(dead := lease(machine, root, "leased-1"))
    die(dead)
    for change, is_stale in ((lambda words: None, False), (two_minutes_older, True)):
        for hours in (-1, 0, 1, 24 * 365):
            rewrite(root, change)
            touch(hours)
            assert holder_of(machine, root).is_stale == is_stale


def test_a_lease_from_before_a_reboot_is_stale_at_once(machine: Machine, root: str) -> None:
    def boot(words: list[str]) -> None:
        words[1] = OTHER_BOOT

    def uptime(words: list[str]) -> None:
        words[2] = str(int(words[2]) + 360_000)

    for change in (boot, uptime):
        take(dead := lease(machine, root, "leased-1"))
        die(dead)
        rewrite(root, change)
        assert holder_of(machine, root) == LeaseState("leased-1", HOLDER, None, None, True)
        with held(lease(machine, root, "leased-2")):
            assert holder_of(machine, root).run_id == "leased-2"


def test_a_holder_that_survives_a_reboot_gets_the_lease_back(root: str) -> None:
    def boot(words: list[str]) -> None:
        words[1] = OTHER_BOOT

    with held(lease(LocalMachine(), root, "leased-1", beat_every=0.3)) as mine:
        rewrite(root, boot)
        until(lambda: not holder_of(LocalMachine(), root).is_stale)
        assert (holder_of(LocalMachine(), root).run_id, mine.lost) == ("leased-1", None)


def test_another_run_of_the_same_name_is_another_run(machine: Machine, root: str) -> None:
    with held(lease(machine, root, "leased-1")):
        assert not takes(lease(machine, root, "leased-1"))


def test_a_resumed_run_takes_its_lease_over_at_once(machine: Machine, root: str) -> None:
    first = lease(machine, root, "leased-1", beat_every=0.3)
    take(first)
    with held(lease(machine, root, "leased-1", resumes=True)):
        until(lambda: first.lost)
        first.release()
        assert holder_of(machine, root).run_id == "leased-1"
    assert read_lease(machine, root) is None


def test_a_holder_that_did_not_notice_the_takeover_gives_nothing_back(machine: Machine, root: str) -> None:
    take(first := lease(machine, root, "leased-1"))
    with held(lease(machine, root, "leased-1", resumes=True)):
        assert first.lost is None
        first.release()
        assert holder_of(machine, root).run_id == "leased-1"


def test_a_waiting_run_gets_the_lease_when_it_is_given_back(root: str) -> None:
    first, words_on_wait = lease(LocalMachine(), root, "leased-1"), list[str]()
    take(first)
    timer = threading.Timer(0.3, first.release)
    timer.start()
    second = lease(LocalMachine(), root, "leased-2")
    second.acquire(20, lambda: False, words_on_wait.append)
    timer.join()
    assert holder_of(LocalMachine(), root).run_id == "leased-2"
    second.release()
    (words,) = words_on_wait
    assert words.startswith("waiting for the VM localhost: run leased-1 (laptop pid 12) has had it for ")


def test_waiting_ends_at_its_timeout_or_when_the_run_gives_up(root: str) -> None:
    with held(lease(LocalMachine(), root, "leased-1")):
        for wait, give_up in ((0.4, False), (60.0, True)):
            second = lease(LocalMachine(), root, "leased-2")
            started = time.monotonic()
            with pytest.raises(VmBusy):
                second.acquire(wait, lambda give_up=give_up: give_up, lambda words: None)  # type: ignore[misc]
            assert time.monotonic() - started < 2


def test_a_holder_that_was_away_too_long_notices_and_does_no_harm(root: str) -> None:
    machine = HereWithFaults()
    away = lease(machine, root, "leased-1", beat_every=0.2)
    take(away)
    machine.cut = True
    winner = lease(LocalMachine(), root, "leased-2", stale_after=0.5)
    take(winner, wait=10)
    machine.cut = False
    until(lambda: away.lost)
    assert away.lost
    assert away.lost.startswith(
        "the VM localhost was taken over from this run: run leased-2 (laptop pid 12) has had it "
    )
    away.release()
    away.release()
    assert holder_of(LocalMachine(), root).run_id == "leased-2"
    assert winner.lost is None
    winner.release()


def test_a_lost_answer_is_requested_again(root: str) -> None:
    machine = HereWithFaults()
    machine.breaks = 2
    mine = lease(machine, root, "leased-1")
    take(mine)
    assert [path.name for path in Path(root, ".system/lease").iterdir()] == ["1"]
    machine.breaks = 2
    mine.release()
    assert read_lease(machine, root) is None


def test_release_never_raises(root: str) -> None:
    machine = HereWithFaults()
    lease(machine, root, "leased-1").release()
    mine = lease(machine, root, "leased-1")
    take(mine)
    machine.cut = True
    mine.release()
    mine.release()


def test_a_number_that_comes_too_late_is_ignored(root: str) -> None:
    first, second = lease(LocalMachine(), root, "leased-1"), lease(LocalMachine(), root, "leased-1", resumes=True)
    with held(first), held(second):
        Path(root, ".system/lease/1").unlink()
        Path(root, ".system/lease/1").symlink_to("nonce boot 1 leased-3 late")
        assert holder_of(LocalMachine(), root).run_id == "leased-1"
        assert not takes(lease(LocalMachine(), root, "leased-2"))
        assert second.lost is None


def test_a_machine_where_the_lease_cannot_be_written_is_unavailable(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="Not a directory") as caught:
        take(lease(machine, str(tmp_path / "file"), "leased-1"))
    assert caught.value.reason is Reason.WORKSPACE_REFUSED


def test_one_of_several_connections_to_a_vm_gets_the_lease(vm: VM) -> None:
    connections = [Connection(vm_spec(vm)) for _ in range(4)]
    for turn in range(5):
        leases = [lease(connection, vm.root, f"run-{turn}-{n}") for n, connection in enumerate(connections)]
        winner = race(leases)
        assert holder_of(connections[0], vm.root).run_id == winner._words[1]
        for each in leases:
            each.release()
    for connection in connections:
        connection.close()
    vm.sh(f"rm -r {vm.root}/.system/lease")


def test_a_network_cut_shorter_than_the_limit_does_no_harm(vms: Callable[..., VM]) -> None:
    vm = vms(images=False)
    mine, other = Connection(vm_spec(vm)), Connection(vm_spec(vm))
    with held(lease(mine, vm.root, "leased-1", beat_every=0.3)) as ours:
        vm.cut()
        time.sleep(1.5)
        vm.heal()
        until(lambda: (holder_of(other, vm.root).last_beat or 0) < 1)
        with pytest.raises(VmBusy):
            take(lease(other, vm.root, "leased-2", stale_after=5))
        assert ours.lost is None
    assert read_lease(other, vm.root) is None
    mine.close()
    other.close()


def test_a_full_disk_is_reported_and_ends_no_held_lease(vms: Callable[..., VM]) -> None:
    vm = vms(images=False, home_mb=16)
    connection = Connection(vm_spec(vm))
    with held(lease(connection, vm.root, "leased-1", beat_every=0.3)) as ours:
        vm.fill()
        time.sleep(2.3)
        assert not holder_of(connection, vm.root, stale_after=1.2).is_stale
        assert ours.lost is None
    assert read_lease(connection, vm.root) is None
    vm.sh(f"rm -r {vm.root}/.system/lease; while mkdir {vm.root}/$((n += 1)) 2>/dev/null; do :; done")
    with pytest.raises(Unavailable, match="No space left on device") as caught:
        take(lease(connection, vm.root, "leased-2"))
    assert caught.value.reason is Reason.NO_DISK_SPACE
    connection.close()
