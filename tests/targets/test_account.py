"""Commands of a VM that run as an account of their own: their rights, their limits, and their end."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pccpipe.detached import as_account
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Unavailable
from pccpipe.machine.base import Done
from pccpipe.outcome import Reason
from pccpipe.spec.project_model import Vm
from pccpipe.ssh.connection import Connection
from pccpipe.target import Command, Exit
from pccpipe.targets.turns import CommandKind, Turns
from pccpipe.targets.vm import VmTarget
from tests.targets.conftest import KILL_AFTER, vm_spec
from tests.targets.stand import Stand, read_all, read_until, until
from tests.testbed.vm import VM


@contextmanager
def opened(vm: VM, spec: Vm | None = None, shared_home: tuple[str, ...] = ()) -> Iterator[Stand]:
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    connection = Connection(spec or vm_spec(vm))

    def make() -> VmTarget:
        account = as_account.prepare(connection, vm.run_as, vm.root, run_id, shared_home)
        return VmTarget(connection, run_id, vm.root, kill_after=KILL_AFTER, account=account)

    target = make()
    target.open()
    try:
        yield Stand(run_id, target, make, lambda command: vm.sh(command).stdout, target.state, target.workspace)
    finally:
        target.close()
        as_account.remove(connection, vm.run_as, vm.root, run_id)
        connection.close()


@pytest.fixture
def account(account_vm: VM) -> Iterator[Stand]:
    with opened(account_vm) as stand:
        yield stand


def living(vm: VM) -> list[str]:
    """List the account's processes that live longer than those of pccpipe itself."""
    until = time.monotonic() + 0.5
    while True:
        alive = vm.sh(f"ps -L -u {vm.run_as} -o stat=,args= | grep -v ^Z || true").stdout.splitlines()
        if not alive or time.monotonic() > until:
            return alive
        time.sleep(0.05)


def test_a_command_runs_as_the_account_without_the_logins_environment(account: Stand, account_vm: VM) -> None:
    account_vm.sh("printf 'export OF_THE_LOGIN=1 BASH_ENV=/home/pcc/evil\\n' >/home/pcc/.bashrc")
    try:
        with opened(account_vm) as stand:
            out, err, exit_ = stand.run("id -un; env | cut -d= -f1 | sort | tr '\\n' ' '", shell="bash")
    finally:
        account_vm.sh("rm /home/pcc/.bashrc")
    names = "HOME LOGNAME PATH PCCPIPE_STEP PCC_RUN_ID PCC_WORKSPACE PWD SHELL SHLVL USER _"
    assert (out.decode().split("\n", 1), err, exit_) == ([account_vm.run_as, f"{names} "], b"", Exit(0))


def test_a_setuid_program_gives_it_no_rights(account: Stand, account_vm: VM) -> None:
    """For example one that a container's root left in the workspace."""
    program = f"{account.workspace}/become-root"
    account_vm.sh(f"cp /usr/bin/id {program} && chown root {program} && chmod 4755 {program}")
    assert account_vm.sh(f"setpriv --reuid={account_vm.run_as} --clear-groups {program} -u").stdout == "0\n"
    out, _, exit_ = account.run(
        f"{program} -u; id -u {account_vm.run_as}; su -c id 2>/dev/null </dev/null || echo no su"
    )
    uid, own, su = out.decode().splitlines()
    assert (uid, su, exit_) == (own, "no su", Exit(0))


def test_home_is_fresh_each_time_and_outside_of_the_workspace(account: Stand, account_vm: VM) -> None:
    out = account.run('echo "$HOME"; ls -A "$HOME"; touch "$HOME/.bashrc"; cd; pwd')[0].decode().split()
    again = account.run('echo "$HOME"; ls -A "$HOME"')[0].decode().split()
    assert len(out) == 2
    assert len(again) == 1
    assert out[0] == out[1] != again[0]
    assert not out[0].startswith(account.workspace)
    # The next command cannot read what it left there.
    until(lambda: len(account.run('ls "$HOME"/..')[0].split()) == 1)
    account.target.close()
    assert (
        account_vm.sh(f"ls -A {account_vm.root}/.system/run-io/{account.run_id}/steps 2>/dev/null || true").stdout == ""
    )


def test_a_command_cannot_reach_the_logins_files_of_the_run(account: Stand, account_vm: VM) -> None:
    state = account_vm.root + "/.system/run-state"
    script = f"""
        for path in {state} {state}/* {account.state} {account.state}/commands; do
          ls "$path" 2>/dev/null && cat "$path" 2>/dev/null && echo "reads $path"
        done
        ls {account_vm.root}/.system/run-workspaces {account_vm.root}/.system/run-io 2>/dev/null && echo lists
        mkdir {account_vm.root}/.system/x {account_vm.root}/.system/run-workspaces/x 2>/dev/null && echo makes
        for pid in $(ps -u pcc -o pid=); do
          kill -0 $pid 2>/dev/null && echo "signals $pid"
          cat /proc/$pid/environ 2>/dev/null && echo "reads of $pid"
        done
        sudo -n -u pcc true 2>/dev/null && echo becomes
        [ -w /var/run/docker.sock ] && echo engine
        echo end"""
    assert account.run(script) == (b"end\n", b"", Exit(0))
    assert account.start("true").isolation.engine_at_hand is False


def test_script_environment_and_secrets_are_in_no_argument_list_and_in_no_file(account: Stand, account_vm: VM) -> None:
    secret, plain, text = (f"{name}-{uuid.uuid4().hex}" for name in ("sk", "env", "script"))
    running = account.start(f": {text}; echo up; sleep 100", secrets={"KEY": secret}, env={"PLAIN": plain})
    read_until(running, b"up\n")
    seen = account_vm.sh("ps -eo args ww").stdout
    for value in (secret, plain, text):
        assert value not in seen
        assert account_vm.sh(f"grep -rlF {value} /home /tmp /run /var/log 2>/dev/null || true").stdout == ""
    running.stop(0)
    read_all(running)
    running.discard()


def test_a_step_with_account_login_runs_as_the_login(account: Stand) -> None:
    running = account.start("id -un; echo '{}' >$PCC_OUT/r.json", as_login=True, wants_out=True)
    assert read_all(running)[0] == b"pcc\n"
    assert running.isolation.user.startswith("1000:")
    assert running.isolation.login == "pcc"
    assert running.fetch("r.json", 100) == b"{}\n"
    running.discard()


def test_dev_stdout_is_opened_again(account: Stand) -> None:
    out, err, _ = account.run("echo a >/dev/stdout; echo b >>/dev/stdout; echo c >/dev/stderr; echo d")
    assert (out, err) == (b"a\nb\nd\n", b"c\n")


def test_long_scripts_and_values_arrive_complete(account: Stand) -> None:
    script = "".join(f": {'x' * 90} {number}\n" for number in range(3000)) + "printf %s \"$LONG\" | wc -c; echo 'it''s'"
    assert account.run(script, env={"LONG": "y" * 100_000})[0] == b"100000\nits\n"
    assert account.run(script, env={"LONG": "y" * 100_000}, shell="bash")[0] == b"100000\nits\n"


@pytest.mark.parametrize(
    "script",
    [
        *("kill -9 $PPID; exec sleep 100", "kill -STOP $$; sleep 100", "kill -STOP -1"),
        "exec perl -e '$SIG{TERM} = q(IGNORE); kill q(STOP), -1 while 1'",
    ],
)
def test_the_time_limit_holds_although_the_commands_own_timer_dies(account: Stand, account_vm: VM, script: str) -> None:
    began = time.monotonic()
    _, _, exit_ = account.run(f"trap '' TERM; {script}", limit=1.0)
    assert time.monotonic() - began < 20
    assert exit_.code != 0
    assert living(account_vm) == []
    # A sudo that its command stopped would stay forever.
    until(lambda: account_vm.sh("ps -C sudo -o stat= | grep T || true").stdout == "")


def test_a_command_that_stops_all_others_of_the_account_is_stopped_in_time(account: Stand, account_vm: VM) -> None:
    running = account.start("echo up; exec perl -e '$SIG{TERM} = q(IGNORE); kill q(STOP), -1 while 1'")
    read_until(running, b"up\n")
    began = time.monotonic()
    running.stop(0.5)
    _, _, exit_ = read_all(running)
    # By TERM, if that came before the command stopped its `timeout`.
    assert exit_.code in {137, 143}
    assert time.monotonic() - began < 20
    until(lambda: account_vm.sh("ps -C sudo -o stat= | grep T || true").stdout == "")


def test_no_command_begins_if_the_login_may_not_become_the_account(fresh_vm: VM) -> None:
    fresh_vm.sh("rm /etc/sudoers.d/pccpipe-pccrun")
    with pytest.raises(Unavailable) as caught, opened(fresh_vm):
        pass
    assert caught.value.reason is Reason.START_REFUSED
    assert "sudo" in caught.value.words
    assert "NOPASSWD" in caught.value.hint
    fresh_vm.sh("echo 'pcc ALL=(pccrun) NOPASSWD: ALL' >/etc/sudoers.d/pccpipe-pccrun; chmod 700 /home/project")
    with pytest.raises(Unavailable, match="cannot reach") as caught, opened(fresh_vm):
        pass
    assert "chmod" in caught.value.hint
    fresh_vm.sh("chmod 755 /home/project; userdel pccrun")
    with pytest.raises(Unavailable, match="no such user"), opened(fresh_vm):
        pass


def take_busybox(vm: VM, name: str) -> None:
    shutil.copy(shutil.which("busybox") or "busybox", vm.state / "home" / "busybox")
    vm.sh(f"ln -sf /home/busybox /bin/{name}")


WAYS_TO_SUDO: dict[str, Callable[[VM], object]] = {
    "use_pty": lambda vm: vm.sh("echo 'Defaults use_pty' >/etc/sudoers.d/pty"),
    "environment kept": lambda vm: vm.sh("echo 'Defaults !env_reset' >/etc/sudoers.d/env"),
    "root": lambda vm: vm.sh("rm /etc/sudoers.d/pccpipe-pccrun"),
    "sh of busybox": lambda vm: take_busybox(vm, "sh"),
    "sh of bash": lambda vm: vm.sh("ln -sf bash /bin/sh"),
    "limit of processes": lambda vm: vm.sh("echo 'pccrun - nproc 300' >/etc/security/limits.d/pccrun.conf"),
}


@pytest.mark.parametrize("way", WAYS_TO_SUDO)
def test_the_account_runs_commands_with_any_sudo_setup_and_for_root_without(vms: Callable[..., VM], way: str) -> None:
    vm = vms(images=False)
    WAYS_TO_SUDO[way](vm)
    spec = Vm(vm.host, "root" if way == "root" else "pcc", vm.port, vm.key, vm.known_hosts, vm.root)
    with opened(vm, spec) as stand:
        out, err, exit_ = stand.run("id -un; cat; echo err >&2; exit 7", env={"A": "it's"})
        assert (out, err, exit_) == (f"{vm.run_as}\n".encode(), b"err\n", Exit(7))
        assert stand.run("kill -KILL $$")[2] == Exit(137, "KILL")
        assert stand.run("sleep 100", limit=0.5)[2].timed_out
        # Ignore the second TERM: `timeout` signals its command, and then its group.
        running = stand.start("""trap 'trap "" TERM; echo bye; exit 7' TERM; echo up; sleep 100 & wait""")
        read_until(running, b"up\n")
        running.stop(10.0)
        assert (read_all(running)[0], running.read(1)) == (b"bye\n", Exit(7))
        running.discard()
        # Each of its processes starts more, up to the limit.
        bomb = "env -i perl -e 'setpgrp; $SIG{TERM} = q(IGNORE); while ($n++ < 9) { fork } sleep 1 while 1' </dev/null"
        out = stand.run(f"{bomb} >/dev/null 2>&1 & sleep 1; echo left")[0]
        assert out == b"left\n"
        assert living(vm) == []


def test_tool_folders_come_first_in_path(account_vm: VM) -> None:
    account_vm.sh(
        "mkdir -p /opt/tools/bin; printf '#!/bin/sh\\necho tool\\n' >/opt/tools/bin/tool; chmod +x /opt/tools/bin/tool"
    )
    with opened(account_vm, shared_home=("/opt/tools",)) as stand:
        assert stand.run("tool; command -v tool")[0] == b"tool\n/opt/tools/bin/tool\n"


def test_parallel_commands_are_swept_after_the_last_ends(account: Stand, account_vm: VM) -> None:
    first = account.start(f"env -i setsid /bin/sleep {account.nap} </dev/null >/dev/null 2>&1 & echo one")
    second = account.start("echo up; sleep 4; echo two")
    assert read_all(first)[0] == b"one\n"
    assert len([line for line in living(account_vm) if account.nap in line]) == 1
    assert read_all(second)[0] == b"up\ntwo\n"
    assert living(account_vm) == []
    first.discard()
    second.discard()


def test_another_process_of_the_run_does_not_sweep_a_running_command(account: Stand, account_vm: VM) -> None:
    running = account.start("echo up; sleep 3; echo end")
    read_until(running, b"up\n")
    again = account.again()
    again.open()
    others: list[bytes] = []
    waiting = threading.Thread(target=lambda: others.append(read_all(again.start(account.command("echo other")))[0]))
    waiting.start()
    time.sleep(1)
    assert others == []
    assert read_all(again.attach(running.token))[0] == b"up\nend\n"
    waiting.join(20)
    assert others == [b"other\n"]
    until(lambda: living(account_vm) == [])
    again.close()


def test_a_sweep_waits_for_pccpipes_own_processes_of_the_account(account_vm: VM) -> None:
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    connection = Connection(vm_spec(account_vm))
    account = as_account.prepare(connection, account_vm.run_as, account_vm.root, run_id, is_new=True)
    place = RunDir(run_id, f"{account_vm.root}/.system/run-state/{run_id}", account)
    turns = Turns(connection, place, resumes=False)
    target = VmTarget(connection, run_id, account_vm.root, account=account, turns=turns)
    target.open()
    stand = Stand(run_id, target, lambda: target, str, target.state, target.workspace)
    try:
        said: list[bytes] = []
        script = "sleep 3; echo whole"
        machine = as_account.AccountMachine(connection, account, turns.working)
        working = threading.Thread(target=lambda: said.append(machine.run(script).stdout))
        working.start()
        until(lambda: "sleep 3" in " ".join(living(account_vm)))
        stand.run(f"setsid sleep {stand.nap} </dev/null >/dev/null 2>&1 & echo left")
        working.join(20)
        assert said == [b"whole\n"]
        # Then the sweep removes what the command left, although no other begins.
        assert living(account_vm) == []
    finally:
        target.close()
        as_account.remove(connection, account_vm.run_as, account_vm.root, run_id)
        connection.close()


def test_a_command_that_ended_before_a_sweep_causes_no_other_sweep(account_vm: VM) -> None:
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    connection = Connection(vm_spec(account_vm))
    account = as_account.prepare(connection, account_vm.run_as, account_vm.root, run_id, is_new=True)
    place = RunDir(run_id, f"{account_vm.root}/.system/run-state/{run_id}", account)
    first = VmTarget(connection, run_id, account_vm.root, account=account)
    turns = Turns(connection, place, resumes=True)
    again = VmTarget(connection, run_id, account_vm.root, account=account, turns=turns)
    first.open()
    again.open()
    try:
        token = first.start(Command(id="step-1", step="step", serial=1, script="echo one")).token
        until(lambda: account_vm.sh(f"ls {place.state}/commands").stdout.count("step-1.ended") == 1)
        turns.begin(CommandKind.CONTAINER, "box")
        start = threading.Thread(
            target=lambda: said.append(as_account.AccountMachine(connection, account).run("sleep 2; echo laid out"))
        )
        said: list[Done] = []
        start.start()
        until(lambda: "sleep 2" in " ".join(living(account_vm)))
        assert read_all(again.attach(token))[0] == b"one\n"
        start.join(20)
        assert said[0].stdout == b"laid out\n"
    finally:
        first.close()
        again.close()
        as_account.remove(connection, account_vm.run_as, account_vm.root, run_id)
        connection.close()


def test_a_missing_sudo_rule_is_not_reported_as_processes_that_stay(account_vm: VM) -> None:
    connection = Connection(vm_spec(account_vm))
    try:
        with pytest.raises(Unavailable) as caught:
            as_account.prepare(connection, "nobody", account_vm.root, "run-no-rule", is_new=True)
    finally:
        connection.close()
    assert caught.value.reason is Reason.START_REFUSED
    assert "pcc cannot run commands as nobody: sudo has no rule that allows it" in caught.value.words
    assert "pcc ALL=(nobody) NOPASSWD: ALL" in caught.value.hint


def test_a_process_that_stops_all_others_does_not_stop_the_sweep(account: Stand, account_vm: VM) -> None:
    connection = Connection(vm_spec(account_vm))
    stopper = "setsid perl -e 'kill q(STOP), -1 while 1' </dev/null >/dev/null 2>&1 &"
    try:
        for _ in range(3):
            account_vm.sh(f'su {account_vm.run_as} -s /bin/sh -c "{stopper}"')
            until(lambda: "perl" in " ".join(living(account_vm)))
            found = as_account.processes(connection, account_vm.run_as, account_vm.root, kill=True)
            assert (found.before, found.after) == ("1 process (perl)", "")
        assert account_vm.sh("ps -C sudo -o stat= | grep T || true").stdout == ""
    finally:
        account_vm.sh(f"pkill -KILL -u {account_vm.run_as} perl", check=False)
        connection.close()
