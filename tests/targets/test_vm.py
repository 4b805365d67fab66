"""The VM target: a connection that breaks, a full disk, a machine that restarts."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec.structs
import pytest

from pccpipe.detached.running import ASK_AFTER
from pccpipe.errors import Lost, Refused, Unavailable
from pccpipe.outcome import Reason
from pccpipe.ssh.connection import Connection
from pccpipe.target import Chunk, Command, Exit, Running
from pccpipe.targets.vm import VmTarget
from tests.targets.conftest import vm_spec
from tests.targets.stand import Stand, read_all, read_until, until
from tests.testbed.vm import VM


@contextmanager
def opened(vm: VM, lost_after: float = 60.0) -> Iterator[Stand]:
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    connection = Connection(vm_spec(vm))

    def make() -> VmTarget:
        return VmTarget(connection, run_id, vm.root, lost_after)

    target = make()
    target.open()
    yield Stand(run_id, target, make, lambda command: vm.sh(command).stdout, target.state, target.workspace)
    target.close()
    connection.close()


COUNTING = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo out $i; echo err $i >&2; sleep 0.01; done; exit 3"


def counted(word: str) -> bytes:
    return b"".join(f"{word} {i}\n".encode() for i in range(1, 301))


@pytest.mark.parametrize("times", [1, 4])
def test_killed_sessions_lose_no_byte_of_a_commands_output(fresh_vm: VM, times: int) -> None:
    def kill() -> None:
        for _ in range(times):
            time.sleep(0.7)
            fresh_vm.kill_sessions()

    with opened(fresh_vm) as stand:
        running = stand.start(COUNTING)
        killer = threading.Thread(target=kill)
        killer.start()
        assert read_all(running) == (counted("out"), counted("err"), Exit(3))
        killer.join()
        running.discard()


def test_a_command_that_ended_while_the_connection_was_broken_is_read_completely(fresh_vm: VM) -> None:
    with opened(fresh_vm) as stand:
        running = stand.start("echo ready; sleep 1; seq 1 100000; echo done >&2; exit 4")
        read_until(running, b"ready\n")
        fresh_vm.refuse()
        fresh_vm.kill_sessions()
        until(lambda: not stand.shell("pgrep -x seq || true"))
        time.sleep(1.5)
        assert running.read(0.1) is None
        fresh_vm.accept()
        expected = b"".join(b"%d\n" % i for i in range(1, 100001))
        assert read_all(running) == (expected, b"done\n", Exit(4))
        running.discard()


def test_a_silent_link_that_recovers_loses_nothing(fresh_vm: VM) -> None:
    with opened(fresh_vm) as stand:
        running = stand.start(COUNTING)
        seen = read_until(running, b"out 5\n")
        fresh_vm.cut()
        time.sleep(4)
        fresh_vm.heal()
        out, err, exit_ = read_all(running)
        assert (seen + out, exit_) == (counted("out"), Exit(3))
        assert counted("err").endswith(err)
        running.discard()


def test_a_command_is_lost_when_its_vm_stays_away(fresh_vm: VM) -> None:
    with opened(fresh_vm, lost_after=2.0) as stand:
        running = stand.start("echo ready; sleep 100")
        read_until(running, b"ready\n")
        fresh_vm.refuse()
        fresh_vm.kill_sessions()
        with pytest.raises(
            Lost, match=r"did not answer for \d+ s \(lost_after: 2s\), .* ssh_refused: connect to .* Connection refused"
        ):
            read_all(running)
        running.discard()
        fresh_vm.accept()


def test_a_command_is_lost_when_its_vm_restarts(fresh_vm: VM) -> None:
    with opened(fresh_vm) as stand:
        running = stand.start("echo ready; echo said >&2; sleep 100")
        read_until(running, b"ready\n")
        fresh_vm.reboot()
        with pytest.raises(Lost, match="restarted"):
            read_all(running)
        running.discard()
        assert stand.run("echo again")[0] == b"again\n"


def test_stop_reaches_a_command_whose_connection_is_broken(fresh_vm: VM) -> None:
    with opened(fresh_vm) as stand:
        running = stand.start(f"echo ready; sleep {stand.nap}")
        read_until(running, b"ready\n")
        fresh_vm.refuse()
        fresh_vm.kill_sessions()
        assert running.read(1.0) is None
        started = time.monotonic()
        running.stop(5.0)
        assert time.monotonic() - started < 1
        fresh_vm.accept()
        assert read_all(running)[2] == Exit(143, "TERM")
        assert not stand.naps()
        running.discard()


def test_a_command_begins_once_although_its_session_is_killed_at_that_moment(fresh_vm: VM) -> None:
    with opened(fresh_vm) as stand:
        stop = threading.Event()

        def kill() -> None:
            while not stop.wait(0.2):
                fresh_vm.kill_sessions()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            for number in range(15):
                script = f"echo {number} >>$PCC_WORKSPACE/began; echo {number}; seq 1 2000"
                out, _, exit_ = stand.run(script)
                assert (out.splitlines()[0], out[-5:], exit_) == (b"%d" % number, b"2000\n", Exit(0))
        finally:
            stop.set()
            killer.join()
        assert stand.shell(f"cat {stand.workspace}/began").split() == [str(number) for number in range(15)]


def test_the_workspace_is_made_and_a_failure_has_the_vms_words(vm: VM) -> None:
    connection = Connection(vm_spec(vm))
    refused = VmTarget(connection, "run-x", "/root/project")
    with pytest.raises(Unavailable) as caught:
        refused.open()
    assert caught.value.reason is Reason.WORKSPACE_REFUSED
    assert "Permission denied" in caught.value.words
    connection.close()


def test_a_full_disk_is_unavailable_before_a_command_and_cuts_its_output_after(vms: Callable[..., VM]) -> None:
    vm = vms(images=False, home_mb=32)
    with opened(vm) as stand:
        assert stand.run("echo fits") == (b"fits\n", b"", Exit(0))
        vm.fill()
        with pytest.raises(Unavailable) as caught:
            stand.run(f"# {'x' * 100000}\necho no")
        assert caught.value.reason is Reason.NO_DISK_SPACE
        assert "No space left on device" in caught.value.words
        vm.unfill()

        running = stand.start("echo begin; sleep 1; head -c 60000000 /dev/zero; exit 3")
        read_until(running, b"begin\n")
        out, err, exit_ = read_all(running)
        assert 0 < len(out) < 60_000_000
        assert b"disk full" in err
        assert exit_.code in (3, 141)
        assert exit_.output_lost
        running.discard()
        until(lambda: not stand.shell(f"ls {stand.state} | grep lane- || true"))
        assert stand.run("echo again")[0] == b"again\n"


def test_a_command_whose_supervisor_was_killed_is_lost(vm: VM) -> None:
    with opened(vm) as stand:
        running = stand.start("echo ready; sleep 2; echo end")
        read_until(running, b"ready\n")
        stand.shell(f"kill -KILL $(cut -d' ' -f1 {stand.state}/commands/step-1.sup)")
        with pytest.raises(Lost, match="supervisor"):
            read_all(running)
        running.discard()


def test_a_command_that_logind_may_have_ended_is_reported_with_a_fix(fresh_vm: VM) -> None:
    """The test bed has no systemd, so the test makes the folder that shows it, and logind's file."""
    fresh_vm.sh("mkdir -p /run/systemd/system /etc/systemd; echo KillUserProcesses=yes >/etc/systemd/logind.conf")
    with opened(fresh_vm) as stand:
        running = stand.start("echo ready; sleep 2")
        read_until(running, b"ready\n")
        stand.shell(f"kill -KILL $(cut -d' ' -f1 {stand.state}/commands/step-1.sup)")
        with pytest.raises(Lost, match=r"KillUserProcesses=yes.*fix, on .*KillExcludeUsers=root pcc"):
            read_all(running)
        running.discard()


def test_a_lost_command_shows_its_own_output_and_none_of_the_command_before(vm: VM) -> None:
    shown: list[bytes] = []

    def read(running: Running) -> None:
        until_then = time.monotonic() + ASK_AFTER / 2
        while time.monotonic() < until_then:
            chunk = running.read(1.0)
            if isinstance(chunk, Chunk):
                shown.append(chunk.data)

    with opened(vm) as stand:
        stand.run("echo first")
        running = stand.start("echo ready; sleep 1; echo end")
        read_until(running, b"ready\n")
        stand.shell(f"kill -KILL $(cut -d' ' -f1 {stand.state}/commands/step-2.sup)")
        with pytest.raises(Lost, match="supervisor"):
            read(running)
        assert b"".join(shown) == b"end\n"
        running.discard()


def test_a_command_runs_as_the_login_with_its_environment(vm: VM) -> None:
    with opened(vm) as stand:
        running = stand.start('echo "$HOME $USER $(id -u):$(id -g)"')
        home, user, ids = read_all(running)[0].decode().split()
        assert (home, user) == ("/home/pcc", "pcc")
        isolation = running.isolation
        assert (isolation.host, isolation.user, isolation.workspace) == (vm.host, ids, stand.workspace)
        assert isolation.login == vm.user
        running.discard()


def test_more_commands_than_sessions_wait_for_one_another(vm: VM) -> None:
    with opened(vm) as stand:
        running = [stand.start(f"sleep {i / 10}") for i in range(6)]
        waiting = stand.command("echo at last", limit=0.3)
        with pytest.raises(Unavailable, match="6 commands ran at a time"):
            stand.target.start(msgspec.structs.replace(waiting, limit=0.01))
        for each in running:
            read_all(each)
            each.discard()
        assert stand.run("echo at last")[0] == b"at last\n"


def test_closing_a_vm_that_was_never_reached_takes_no_time(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    target = VmTarget(Connection(msgspec.structs.replace(vm_spec(vm), port=9)), "run-x", vm.root)
    with pytest.raises(Unavailable, match="refused"):
        target.open()
    monkeypatch.setattr(Connection, "run", None)
    target.close()


def test_a_value_with_a_nul_byte_is_refused_before_anything_begins(vm: VM) -> None:
    with opened(vm) as stand:
        for command in (
            Command("a", "a", 1, "echo \0"),
            Command("a", "a", 1, "true", env={"A-B": "1"}),
            Command("a", "a", 1, "true", secrets={"A": "x\0y"}),
        ):
            with pytest.raises(Refused, match=r"no shell can take|invalid name of an environment"):
                stand.target.start(command)
