"""Attacks by code on the VM: each one worked before `run_as`, and fails with it."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.control import Control, happened, wait_until
from tests.e2e.test_resume import resume
from tests.testbed.vm import VM

TOKEN = "tok-5d1c7b0e9a3f4482"

# It waits for a reviewer's out folder and writes an approval there, and reads secrets from running processes.
DAEMON = """\
cat > /tmp/d.sh <<'D'
i=0
while [ $i -lt 300 ]; do i=$((i+1))
  for d in SYSTEM/run-state/*/commands/*review*.out SYSTEM/run-io/*/*/*review*.out; do
    [ -d "$d" ] && [ ! -e "$d.x" ] && sleep 0.8 && mv "$d" "$d.x" && mkdir "$d" &&
      printf '{"status":"approved","notes":[],"scope_creep_wos":[]}' >"$d/result.json"
  done
  cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep DEPLOY_TOKEN= >>/tmp/stolen
  sleep 0.05
done
D
env -i PATH=$PATH setsid sh /tmp/d.sh </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
"""
PLANT = """\
for home in "$HOME" /home/pcc ~pcc; do
  mkdir -p "$home/.evil"
  printf '#!/bin/sh\\ntr "\\\\0" "\\\\n" </proc/self/environ | grep TOKEN= >>/tmp/stolen\\n' >"$home/.evil/timeout"
  printf '/usr/bin/timeout "$@"\\nexit 0\\n' >>"$home/.evil/timeout"
  chmod +x "$home/.evil/timeout"
  echo "PATH=$home/.evil:\\$PATH" | tee "$home/.bashrc" "$home/.profile" "$home/.bash_profile" >/dev/null
done
echo all tests passed
"""
FORGED_APPROVAL = """
secrets: {DEPLOY_TOKEN: {from: env}}
containers: {rev: {image: "bb:latest", network: none, workspace: read-only}}
steps:
  - {id: sync, upload: workspace}
  - {id: test, on: vm, run: sh tests-that-stay.sh}
  - id: review
    on: container
    container: rev
    run: |
      sleep 1
      printf '{"status":"changes_requested","notes":["do not merge"],"scope_creep_wos":[]}' >"$PCC_OUT/result.json"
      echo "honest reviewer said changes_requested"
    result: {path: reviewer/iter-1/result.json, schema: reviewer-result}
  - {id: later, on: vm, secrets: [DEPLOY_TOKEN], run: sleep 1.5; exit 7, continue_on_error: true}
  - {id: merge, if: steps.review.result.status == 'approved', on: local, run: echo MERGED}
always:
  - {id: clean, remove: workspace}
"""
NEXT_RUN = """
secrets: {DEPLOY_TOKEN: {from: env}}
steps:
  - {id: sync, upload: workspace}
  - {id: check, on: vm, secrets: [DEPLOY_TOKEN], run: echo really failing; exit 7}
always:
  - {id: clean, remove: workspace}
"""


@pytest.fixture
def guarded(tmp_path: Path, vm: VM) -> Control:
    """A control centre whose project has `run_as`."""
    return Control(tmp_path, vm, {"DEPLOY_TOKEN": TOKEN}, run_as=True)


def account_processes(vm: VM) -> list[str]:
    """Return the account's living threads: a process is alive also after its first thread ended."""
    return vm.sh(f"ps -L -u {vm.run_as} -o pid=,stat=,args= | grep -v ' Z' || true").stdout.splitlines()


def left_behind(vm: VM) -> list[str]:
    """Return the account's processes that live longer than pccpipe's own checks as the account."""
    until = time.monotonic() + 0.5
    while (alive := account_processes(vm)) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def test_background_processes_of_tests_forge_no_approval_and_steal_no_secret(guarded: Control, vm: VM) -> None:
    script = (DAEMON + PLANT).replace("SYSTEM", f"{vm.root}/.system")
    (guarded.workspace / "tests-that-stay.sh").write_text(script)
    ran = guarded.run(FORGED_APPROVAL)
    assert ran.step("test")["outcome"] == "succeeded", ran.stdout
    review = ran.step("review")
    assert review["result"]["status"] == "changes_requested"
    assert json.loads((ran.record / "reviewer/iter-1/result.json").read_text())["status"] == "changes_requested"
    assert ran.step("merge")["outcome"] == "skipped"
    assert (ran.step("later")["outcome"], ran.step("later")["attempts"][-1]["exit_code"]) == ("failed", 7)
    assert vm.sh("cat /tmp/stolen 2>/dev/null || true").stdout == ""
    assert account_processes(vm) == []

    after = guarded.run(NEXT_RUN)
    check = after.step("check")
    assert (check["outcome"], check["attempts"][-1]["exit_code"]) == ("failed", 7)
    assert vm.sh("cat /tmp/stolen 2>/dev/null || true").stdout == ""
    assert vm.sh("cat /home/pcc/.bashrc /home/pcc/.evil/timeout 2>/dev/null || true").stdout == ""
    vm.sh("rm -f /tmp/d.sh /tmp/stolen")


def test_without_run_as_the_forged_approval_is_unattested(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm, {"DEPLOY_TOKEN": TOKEN})
    script = DAEMON.replace("SYSTEM", f"{fresh_vm.root}/.system")
    (control.workspace / "tests-that-stay.sh").write_text(script)
    ran = control.run(FORGED_APPROVAL)
    review = ran.step("review")
    assert "honest reviewer said changes_requested" in ran.log("review")
    assert review["result"]["status"] == "approved"
    assert review["unattested"] is True


WAYS_TO_STAY = {
    "double fork": "( (sleep 1000) & ) &",
    "setsid": "setsid sleep 1000 &",
    "closed descriptors": "sleep 1000 </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &",
    "env -i": "env -i setsid /bin/sleep 1000 </dev/null >/dev/null 2>&1 &",
    "nohup loop": "nohup sh -c 'while :; do sleep 0.05; done' >/dev/null 2>&1 &",
    "deaf": "setsid sh -c \"trap '' TERM HUP INT; while :; do sleep 1; done\" >/dev/null 2>&1 &",
    # A traced child that is stopped, its tracer, and a process that is not dumpable.
    "ptrace": """env -i perl -e 'if (my $p = fork) { waitpid($p, 0); sleep 1000 }
        setpgrp; syscall(101, 0, 0, 0, 0); kill 19, $$; sleep 1000' </dev/null >/dev/null 2>&1 &""",
    "not dumpable": "env -i perl -e 'syscall(157, 4, 0, 0, 0, 0); setpgrp; sleep 1000' </dev/null >/dev/null 2>&1 &",
    "stopped": "env -i setsid sh -c 'kill -STOP $$; sleep 1000' </dev/null >/dev/null 2>&1 &",
    # Each process lives for a moment: it forks a child and exits.
    "hopping": """env -i perl -e 'for (1..30) { if (!fork) { setpgrp; while (1) { exit if fork } } }
        exit' </dev/null >/dev/null 2>&1 &""",
    "first thread ended": "env -i setsid ./headless </dev/null >/dev/null 2>&1 &",
    "user namespace": "env -i unshare -Ur sleep 1000 </dev/null >/dev/null 2>&1 &",
    "pid namespace": "env -i unshare -Urpf sleep 1000 </dev/null >/dev/null 2>&1 &",
}


def program(words: str) -> bytes:
    """Return a program for x86-64 with these words of machine code."""
    code = bytes.fromhex(words)
    start, size = 0x400078, 120 + len(code)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 4096) + code


# Its first thread ends at once, so `ps` shows it as dead; its second thread stays.
HEADLESS = program(
    "b838000000 bf000f0100 488db42400 00ffff 31d2 4d31d2 4d31c0 0f05"  # clone(VM|FS|FILES|SIGHAND|THREAD)
    "85c0 7409 b83c000000 31ff 0f05"  # the first: exit(0), of this thread alone
    "b822000000 0f05 ebf7"  # the second: pause(), in a loop
)
# One process at a time, each for a moment: it is gone before a scan of /proc reaches its number.
HOPPING = {
    "hops": program("b839000000 0f05 85c0 74f5 b83c000000 31ff 0f05"),  # fork(); the parent: exit(0)
    "hops and kills what sweeps": program(
        "b839000000 0f05 85c0 7409 b83c000000 31ff 0f05"  # the same
        "b83e000000 48c7c7ffffffff be09000000 0f05 ebd7"  # and the child: kill(-1, SIGKILL)
    ),
}


@pytest.mark.parametrize("way", WAYS_TO_STAY)
def test_no_process_is_alive_when_its_step_has_ended(guarded: Control, vm: VM, way: str) -> None:
    (guarded.workspace / "headless").write_bytes(HEADLESS)
    (guarded.workspace / "headless").chmod(0o755)
    (guarded.workspace / "stay.sh").write_text(f"{WAYS_TO_STAY[way]}\nsleep 0.1\necho stays\n")
    seen: list[list[str]] = []

    def look(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, '"event":"step_started","step":"after"'))
        seen.append(left_behind(vm))

    ran = guarded.run(
        """
        steps:
          - {id: sync, upload: workspace}
          - {id: test, on: vm, run: sh stay.sh}
          - {id: after, on: local, run: sleep 1}
        always:
          - {id: clean, remove: workspace}
        """,
        meanwhile=look,
    )
    assert (ran.step("test")["outcome"], ran.log("test")) == ("succeeded", "stays\n"), ran.stdout + ran.stderr
    assert seen == [[]]


def test_a_process_that_forks_all_the_time_is_killed(guarded: Control, vm: VM) -> None:
    hopper = "setpgrp; while (1) { open F, q(>>/tmp/hops); print F q(.); close F; exit if fork }"
    (guarded.workspace / "stay.sh").write_text(f"env -i perl -e '{hopper}' </dev/null >/dev/null 2>&1 &\nsleep 0.2")
    sizes: list[str] = []

    def look(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, '"event":"step_started","step":"after"'))
        sizes.extend(vm.sh("stat -c %s /tmp/hops; sleep 0.3; stat -c %s /tmp/hops; rm /tmp/hops").stdout.split())

    ran = guarded.run(
        """
        steps:
          - {id: sync, upload: workspace}
          - {id: test, on: vm, run: sh stay.sh}
          - {id: after, on: local, run: sleep 1}
        always:
          - {id: clean, remove: workspace}
        """,
        meanwhile=look,
    )
    assert ran.step("test")["outcome"] == "succeeded", ran.stdout
    assert int(sizes[0]) > 10
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("way", HOPPING)
def test_no_process_escapes_the_sweep_by_changing_its_number(guarded: Control, vm: VM, way: str) -> None:
    (guarded.workspace / "hop").write_bytes(HOPPING[way])
    (guarded.workspace / "hop").chmod(0o755)
    (guarded.workspace / "stay.sh").write_text("env -i setsid ./hop </dev/null >/dev/null 2>&1 &\nsleep 0.3\n")
    made: list[int] = []

    def look(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, '"event":"step_started","step":"after"'))
        # The VM numbers its processes in sequence.
        numbers = vm.sh("cut -d ' ' -f 5 /proc/loadavg; sleep 0.5; cut -d ' ' -f 5 /proc/loadavg").stdout.split()
        made.append((int(numbers[1]) - int(numbers[0])) % 32768)

    try:
        ran = guarded.run(
            """
            steps:
              - {id: sync, upload: workspace}
              - {id: test, on: vm, run: sh stay.sh, continue_on_error: true}
              - {id: after, on: local, run: sleep 2}
            always:
              - {id: clean, remove: workspace}
            """,
            meanwhile=look,
        )
        assert ran.code == 0, ran.stdout + ran.stderr
        assert made[0] < 100
    finally:
        vm.sh(f"for i in 1 2 3 4 5; do su {vm.run_as} -s /bin/sh -c 'kill -9 -1'; done", check=False)


def test_leftovers_of_a_command_live_while_another_is_active_and_end_after_it(guarded: Control, vm: VM) -> None:
    seen: list[list[str]] = []

    def look(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, '"event":"step_started","step":"after"'))
        seen.append(left_behind(vm))

    ran = guarded.run(
        """
        steps:
          - id: both
            parallel:
              - {id: one, on: vm, run: "env -i setsid /bin/sleep 1000 </dev/null >/dev/null 2>&1 & echo one"}
              - {id: two, on: vm, run: "sleep 2; ps -eo args | grep -c '^/bin/sleep 1000'"}
          - {id: after, on: local, run: sleep 1}
        """,
        meanwhile=look,
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("both.two") == "1\n"
    assert seen == [[]]


def test_commands_and_containers_of_a_group_never_run_at_the_same_time(guarded: Control) -> None:
    ran = guarded.run(
        """
        containers: {box: {image: "bb:latest", network: none}}
        steps:
          - id: all
            parallel:
              - {id: a, on: vm, run: sleep 1}
              - {id: b, on: container, container: box, run: sleep 1}
              - {id: c, on: vm, run: sleep 1}
              - {id: d, on: container, container: box, run: sleep 1}
        """
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    open_: set[str] = set()
    for event in ran.events:
        if event["event"] == "command_started":
            open_.add(event["step"].rpartition(".")[2])
        elif event["event"] == "command_ended":
            open_.discard(event["step"].rpartition(".")[2])
        assert not (open_ & {"a", "c"} and open_ & {"b", "d"}), open_


def test_the_sweep_spares_parallel_containers_while_one_begins(guarded: Control) -> None:
    for number in range(2000):
        folder = guarded.workspace / f"folder{number % 200}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{number}").write_text("x")
    ran = guarded.run(
        """
        containers: {rev: {image: "bb:latest", network: none, workspace: read-only}}
        steps:
          - {id: sync, upload: workspace}
          - {id: test, on: vm, run: "true"}
          - id: all
            parallel:
              - {id: a, on: container, container: rev, run: sleep 1; echo a}
              - {id: b, on: container, container: rev, run: sleep 1; echo b}
              - {id: c, on: container, container: rev, run: sleep 1; echo c}
        always:
          - {id: clean, remove: workspace}
        """
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert [ran.log(f"all.{step}") for step in "abc"] == ["a\n", "b\n", "c\n"]


def test_a_process_that_cannot_be_killed_stops_the_run_and_causes_no_fallback(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm, run_as=True)

    def forbid(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, '"event":"command_started"'))
        fresh_vm.sh("mv /etc/sudoers.d/pccpipe-pccrun /root/rule")

    ran = control.run(
        """
        steps:
          - {id: test, on: vm, run: "setsid sleep 1000 </dev/null >/dev/null 2>&1 & sleep 2"}
          - {id: more, on: vm, run: echo more, fallback: {on: local, run: echo here}}
        """,
        meanwhile=forbid,
    )
    assert ran.code != 0
    step = ran.step("test")
    assert (step["outcome"], step["reason"]) == ("unavailable", "processes_left"), ran.stdout
    assert "more" not in [step["path"] for step in ran.state["steps"]]
    fresh_vm.sh("mv /root/rule /etc/sudoers.d/pccpipe-pccrun")


def test_a_resume_finds_and_follows_the_accounts_command_in_its_closed_workspace(guarded: Control, vm: VM) -> None:
    script = "echo begun >>log; i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.1; done; id -un"
    process, record = guarded.start(
        f"""
        steps:
          - {{id: sync, upload: workspace}}
          - {{id: work, on: vm, run: "{script}"}}
          - {{id: look, on: vm, run: cat log}}
        always:
          - {{id: clean, remove: workspace}}
        """
    )
    wait_until(lambda: happened(record, '"event":"command_started"'))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ran = resume(guarded, record)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("work").split() == [*map(str, range(1, 61)), vm.run_as]
    assert ran.log("look") == "begun\n"
    assert account_processes(vm) == []


def test_no_file_is_left_for_a_later_run_where_all_users_may_write(guarded: Control, vm: VM) -> None:
    deep = "mkdir -p $d/cache-of/deep; echo evil >$d/cache-of/deep/f; chmod 500 $d/cache-of/deep"
    plant = f"for d in /tmp /var/tmp /dev/shm; do {deep}; done"
    there = "ls -d /tmp/cache-of /var/tmp/cache-of /dev/shm/cache-of /tmp/of-another 2>/dev/null || true"
    vm.sh("touch /tmp/of-another")
    guarded.run(f"steps: [{{id: plant, on: vm, run: '{plant}'}}, {{id: see, on: vm, run: '{there}'}}]")
    assert vm.sh(there).stdout.split() == ["/tmp/of-another"]
    # A killed run did not clean up.
    vm.sh(f"su {vm.run_as} -s /bin/sh -c '{plant}'")
    ran = guarded.run(f"steps: [{{id: see, on: vm, run: '{there}'}}]")
    assert ran.log("see").split() == ["/tmp/of-another"]
    vm.sh("rm /tmp/of-another")


def test_the_account_cannot_read_the_runs_files_on_the_vm(guarded: Control, vm: VM) -> None:
    ran = guarded.run("steps: [{id: sync, upload: workspace}, {id: work, on: vm, run: echo kept >file}]")
    assert ran.code == 0, ran.stdout + ran.stderr
    folder = f"{vm.root}/.system/run-workspaces/{ran.record.name}"
    assert vm.sh(f"stat -c '%U %a' {folder}; cat {folder}/workspace/file").stdout == "pcc 700\nkept\n"
    assert vm.sh(f"su {vm.run_as} -s /bin/sh -c 'cat {folder}/workspace/file'", check=False).returncode != 0
    vm.sh(f"rm -rf {folder}")


def test_the_login_follows_no_link_in_the_workspace(guarded: Control, vm: VM) -> None:
    secret = "/home/pcc/of-the-login"
    vm.sh(f"cd /home/pcc; printf private >{secret}; chmod 600 {secret}; : >target; chown pcc {secret} target")
    (guarded.workspace / "report").mkdir()
    (guarded.workspace / "report" / "a").write_text("a")
    ran = guarded.run(
        f"""
        defaults: {{shell_options: []}}
        steps:
          - {{id: sync, upload: workspace}}
          - {{id: work, on: vm, run: "rm -r report; ln -s /home/pcc report; ln {secret} hard; ln -s {secret} soft; :"}}
          - {{id: again, upload: workspace}}
          - id: result
            on: vm
            run: ln -s {secret} $PCC_OUT/r.json; ln -s {secret} soft; ln -s /home/pcc folder
            result: {{path: r.json}}
            continue_on_error: true
          - {{id: take, download: [soft, hard, folder, report]}}
          - {{id: change, diff: diff.patch}}
        always:
          - {{id: clean, remove: workspace}}
        """
    )
    assert ran.step("again")["outcome"] == "succeeded", ran.stdout
    assert ran.step("result")["outcome"] == "failed"
    assert not [file for file in ran.record.rglob("*") if file.is_file() and b"private" in file.read_bytes()]
    assert vm.sh(f"cat {secret}; echo; ls /home/pcc").stdout.split() == ["private", "of-the-login", "target"]
    vm.sh(f"rm -f {secret} /home/pcc/target")


def test_only_a_step_with_account_login_has_the_logins_rights(guarded: Control, vm: VM) -> None:
    ran = guarded.run(
        """
        steps:
          - {id: sync, upload: workspace}
          - {id: mine, on: vm, account: login, run: id -un; docker version >/dev/null && echo engine}
          - {id: theirs, on: vm, run: id -un; docker version >/dev/null 2>&1 || echo none}
        always:
          - {id: clean, remove: workspace}
        """
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert (ran.log("mine"), ran.log("theirs")) == (f"{vm.user}\nengine\n", f"{vm.run_as}\nnone\n")
    had = {step: ran.step(step)["attempts"][-1]["had"] for step in ("mine", "theirs")}
    assert [had[step]["engine_at_hand"] for step in had] == [True, False]
    assert had["mine"]["user"] != had["theirs"]["user"]
