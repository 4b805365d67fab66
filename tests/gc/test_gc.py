"""`pccpipe gc` on a VM and on the controller."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.detached.programs import RunDir
from pccpipe.gc import collect_over
from pccpipe.machine.lease import Lease, read_lease
from pccpipe.machine.provisioned import Provisioned, write_provisioned
from pccpipe.machine.startup import startup_files
from pccpipe.outcome import IsolationMode, Outcome
from pccpipe.record.journal import Journal
from pccpipe.record.lock import RunLock
from pccpipe.record.run_events import RunEnded, RunStarted
from pccpipe.spec.project_model import Vm
from pccpipe.ssh.connection import Connection
from tests.cli.command import Done, Folder
from tests.testbed.vm import VM

RUNS = Path(".system/runs")
LEASE = f"{'0' * 32} {'0' * 36} 100"
"""The beginning of a lease from before a reboot: nonce, boot, since."""


class Bench:
    """A controller's folder, and the things of its runs and of others on the VM."""

    def __init__(self, folder: Path, vm: VM | None, run_as: str = "") -> None:
        self.folder = Folder(folder)
        self.vm = vm
        self.stem = f"gc{uuid.uuid4().hex[:8]}"
        mode = "vm" if vm else "local"
        at = (
            f"vm: {{external_ip: {vm.host}, user: {vm.user}, key_path: {vm.key}, known_hosts: {vm.known_hosts}, "
            f"root: {vm.root}{f', run_as: {run_as}' if run_as else ''}}}\n"
            if vm
            else ""
        )
        (folder / "pccpipe.yaml").write_text(f"id: p\nisolation_mode: {mode}\n{at}")

    @property
    def system(self) -> str:
        assert self.vm
        return f"{self.vm.root}/.system"

    def gc(self, *arguments: str) -> Done:
        return self.folder.do("gc", *arguments)

    def record(self, name: str, *, ended: bool, mode: IsolationMode = IsolationMode.VM, project: str = "p") -> str:
        """Make a run's record; return its id."""
        run_id = f"{self.stem}-{name}"
        runs = self.folder.path / RUNS
        journal = Journal.create(runs / run_id)
        journal.append(RunStarted(run_id, "test", "p.yaml", project, mode, {}, ".", (), "1", "here", 1))
        if ended:
            journal.append(RunEnded(Outcome.SUCCEEDED, "succeeded", False, 1.0))
        journal.close()
        return run_id

    def other(self, name: str) -> str:
        return f"{self.stem}-{name}"

    def leave(self, run_id: str, megabytes: int = 0) -> None:
        """Make a workspace and a state on the VM, as a run leaves them."""
        assert self.vm
        folders = f"{self.system}/run-workspaces/{run_id}", f"{self.system}/run-state/{run_id}"
        self.vm.ssh(
            f"mkdir -p {' '.join(folders)}/commands && echo x >{folders[0]}/file"
            f" && head -c {megabytes}M /dev/urandom >{folders[0]}/big"
        )

    def begin(self, run_id: str, mark: str = "", *, supervised: bool = True, tagged: bool = True) -> None:
        """Start a process like a command of the run, or like its lane; with or without a supervisor."""
        assert self.vm
        place = RunDir(run_id, f"{self.system}/run-state/{run_id}")
        if mark:
            self.vm.ssh(f"echo 0 0 x >{place.state}/commands/work-1.claim-{mark}")
        sign = f"echo $$ ${{22}} $(cat /proc/sys/kernel/random/boot_id) >{place.state}/commands/work-1.sup; "
        script = f"read -r line </proc/$$/stat; set -- $line; {sign if supervised else ''}exec sleep 7531"
        tag = f"PCCPIPE_STEP={place.tag}/work-1/" if tagged else ""
        self.vm.ssh(f"{tag} setsid sh -c '{script}' </dev/null >/dev/null 2>&1 & sleep 0.3")

    def container(self, run_id: str, script: str, seconds: int, *options: str) -> str:
        assert self.vm
        name = f"pcc-run-{run_id}"
        labels = f"--label pccpipe.run={run_id} --label pccpipe.deadline=$(($(date +%s) + {seconds}))"
        self.vm.sh(
            f"docker run -d --name {name} --network none {labels} {' '.join(options)} bb:latest sh -c '{script}'"
        )
        return name

    def has(self, run_id: str) -> bool:
        assert self.vm
        return bool(self.vm.sh(f"ls -d {self.system}/run-*/{run_id} 2>/dev/null || true").stdout)

    def containers(self) -> set[str]:
        assert self.vm
        return set(self.vm.sh(f"docker ps -a --filter name={self.stem} --format '{{{{.Names}}}}'").stdout.split())


@pytest.fixture
def bench(tmp_path: Path, vm: VM) -> Iterator[Bench]:
    made = Bench(tmp_path, vm)
    yield made
    vm.sh(f"rm -rf {made.system}; docker ps -aq --filter name={made.stem} | xargs -r docker rm -f")


@pytest.fixture
def local(tmp_path: Path) -> Bench:
    return Bench(tmp_path, None)


@pytest.fixture
def connection(vm: VM) -> Iterator[Connection]:
    made = Connection(Vm(vm.host, vm.user, vm.port, vm.key, vm.known_hosts, vm.root))
    yield made
    made.close()


def line(done: Done, *words: str) -> str:
    """Return the one line that has all of the words."""
    found = [each for each in done.stdout.splitlines() if all(word in each for word in words)]
    assert len(found) == 1, (words, done.stdout)
    return found[0]


def test_things_of_an_ended_run_are_removed_and_all_others_kept(bench: Bench, vm: VM, connection: Connection) -> None:
    over = bench.record("over", ended=True)
    bench.leave(over, megabytes=20)
    dead = bench.container(over, "exit 3", 600)
    running, leased, other = bench.other("running"), bench.record("leased", ended=True), bench.other("left")
    for run_id in (running, leased, other):
        bench.leave(run_id)
    theirs = bench.container(running, "sleep 600", 600)
    strange = f"{bench.system}/run-workspaces/{bench.stem} strange's;touch x"
    quoted = strange.replace("'", "'\\''")
    link = f"{bench.system}/run-state/{bench.stem}-link"
    own = f"{vm.root}/{bench.stem}-own"
    vm.ssh(f"mkdir -p '{quoted}' {own} && ln -s {own} {link}")
    vm.sh(f"docker run -d --name {bench.stem}-stranger --network none bb:latest true")
    lease = Lease(connection, vm.root, leased, holder="a test")
    lease.acquire(0, lambda: True, lambda _: None)
    try:
        planned = bench.gc("--dry-run")
        assert planned.code == 0, planned
        assert "would go" in line(planned, dead, "the run is over")
        assert "would free 21" in planned.stdout or "would free 20" in planned.stdout
        assert bench.has(over)
        assert dead in bench.containers()

        done = bench.gc()
        assert done.code == 0, done
        assert "removed" in line(done, f"run-workspaces/{over}", "21.0 MB")
        assert "removed" in line(done, dead)
        assert "its last sign of life was" in line(done, f"run-state/{leased}")
        assert "a container of it runs, for 9m" in line(done, theirs)
        assert "and it changed" in line(done, f"run-state/{other}")
        assert "not created by pccpipe" in line(done, "strange")
        assert "not created by pccpipe" in line(done, f"{bench.stem}-link")
        assert "freed 21" in line(done, "as du and the engine count it", "free there now")
        assert not bench.has(over)
        assert all(bench.has(run_id) for run_id in (running, leased, other))
        assert bench.containers() == {theirs, f"{bench.stem}-stranger"}
        assert vm.sh(f"ls -d '{quoted}' {own} {link}").stdout.count(bench.stem) == 3

        done = bench.gc("--older-than", "0s")
        assert (done.code, bench.has(other), bench.has(running), bench.has(leased)) == (0, False, True, True), done
    finally:
        lease.release()
        vm.sh(f"rm -rf {own}")


def test_processes_of_a_lost_run_are_killed_and_those_of_its_namesake_kept(bench: Bench, vm: VM) -> None:
    """The record names the marks of its own commands."""
    ours, theirs, older = (bench.record(name, ended=True) for name in ("ours", "theirs", "older"))
    mark = uuid.uuid4().hex
    for run_id in (ours, theirs, older):
        bench.leave(run_id)
        bench.begin(run_id, f"{mark}-{run_id}")
    with (bench.folder.path / RUNS / ours / "events.jsonl").open("a") as journal:
        journal.write(f'{{"mark": "{mark}-{ours}"}}\n')
    late = bench.container(bench.other("late"), "sleep 600", -5)
    done = bench.gc()
    assert done.code == 0, done
    assert "its deadline passed" in line(done, late)
    assert "removed" in line(done, f"run-state/{ours}", "the run is over")
    assert "a command of it runs" in line(done, f"run-state/{theirs}")
    assert [bench.has(run_id) for run_id in (ours, theirs, older)] == [False, True, True]
    assert len(vm.pids("^sleep 7531")) == 2
    assert bench.containers() == set()
    vm.sh("pkill -f '^sleep 7531'")


def test_a_stale_lease_is_removed(bench: Bench, vm: VM, connection: Connection) -> None:
    vm.ssh(f"mkdir -p {bench.system}/lease && ln -s '{LEASE} {bench.stem} a host pid 1' {bench.system}/lease/7")
    left = read_lease(connection, vm.root)
    assert left is not None
    assert left.is_stale
    assert "would go" in line(bench.gc("--dry-run"), "lease of run")
    assert read_lease(connection, vm.root) is not None
    assert "removed" in line(bench.gc(), "lease of run", "from before a reboot")
    assert read_lease(connection, vm.root) is None
    assert "nothing of any run is there" in bench.gc().stdout


def test_changes_since_provision_are_named(bench: Bench, vm: VM, connection: Connection) -> None:
    assert "WRONG" not in bench.gc().stdout
    bench.leave(bench.record("over", ended=True))
    files = startup_files(connection)
    write_provisioned(
        connection, vm.root, Provisioned({"bb:latest": "sha256:" + "0" * 64, "gone:1": "sha256:1"}, files)
    )
    vm.ssh("echo x >.profile")
    try:
        done = bench.gc()
    finally:
        vm.ssh("rm .profile")
    assert done.code == 0
    line(done, "WRONG", "~/.profile is new since provision")
    line(done, "WRONG", "bb:latest is sha256:", "and not what provision built (sha256:000000000000)")
    assert "gone:1" not in done.stdout


def test_a_process_without_a_supervisor_keeps_nothing_and_is_killed(bench: Bench, vm: VM) -> None:
    """A process's environment proves nothing."""
    left, gone = bench.other("left"), bench.other("gone")
    bench.leave(left)
    for run_id in (left, gone):
        bench.begin(run_id, supervised=False)
    vm.ssh(f"PCCPIPE_STEP={bench.other('else')}-0123456789ab/x/ setsid sleep 7531 </dev/null >/dev/null 2>&1 &")
    assert "would go" in line(bench.gc("--dry-run"), "processes of run", gone)
    assert len(vm.pids("^sleep 7531")) == 3
    done = bench.gc()
    assert done.code == 0, done
    assert "no command is there" in line(done, "removed", "processes of run", gone)
    assert "and it changed" in line(done, f"run-state/{left}"), "it may be resumed"
    assert len(vm.pids("^sleep 7531")) == 2
    assert "removed" in line(bench.gc("--older-than", "0s"), f"run-state/{left}")
    assert len(vm.pids("^sleep 7531")) == 1, "that of another root"
    vm.sh("pkill -f '^sleep 7531'")


def test_a_daemon_that_a_command_left_is_named(bench: Bench, vm: VM) -> None:
    left = bench.other("left")
    bench.leave(left)
    bench.begin(left, tagged=False)
    vm.ssh("(env -i setsid sh -c 'sleep 7537; :' </dev/null >/dev/null 2>&1 3>&- &)")
    hold = f"{bench.system}/run-state/{left}/commands/box-1.hold"
    vm.ssh(f"(env -i setsid sh -c 'echo $$ 0 0 >{hold}; sleep 7539; :' </dev/null >/dev/null 2>&1 3>&- &)")
    try:
        assert "sh -c sleep 7537; :" in line(bench.gc(), "WRONG", "no session, service or run began", f"of {vm.user}")
    finally:
        vm.sh("pkill -f '^sleep 7537'")
    assert "no session" not in bench.gc().stdout, "gc knows supervisors and their children"
    vm.sh("pkill -f '^sleep 75(31|39)'")


def test_files_that_are_not_leases_are_removed_and_the_lease_kept(bench: Bench, vm: VM, connection: Connection) -> None:
    lease = Lease(connection, vm.root, bench.other("alive"), holder="a test")
    lease.acquire(0, lambda: True, lambda _: None)
    folder = f"{bench.system}/lease"
    before = vm.sh(f"ls {folder}").stdout
    vm.ssh(
        f"""cd {folder} && boot=$(cat /proc/sys/kernel/random/boot_id)
        ln -s "x $boot 1 r h" 9223372036854775807; ln -s "$(printf %032d 7) $boot 1 run h" 9223372036854775806
        touch -h -d @0 9223372036854775807; ln -s nothing 77; touch 78; mkdir 79 && touch 79/x; ln -s /home 80
        touch "$(printf 'a\\nb')" "it's \"x\"; touch y" -- -rf .hidden $(printf %0255d 0)"""
    )
    try:
        named = "in /home/project/.system/lease: "
        assert "would go" in line(bench.gc("--dry-run"), named, "and 6 more are not leases")
        done = bench.gc()
        assert "removed" in line(done, named)
        assert "has the VM" in line(done, "lease of run", bench.other("alive"))
        assert vm.sh(f"ls -A {folder}").stdout == before
        assert vm.sh("ls -d /home/pcc").stdout
        assert lease.lost is None
        assert "not leases" not in bench.gc().stdout
    finally:
        lease.release()
    vm.ssh(f"rm -r {folder}; ln -s /home/pcc {folder}")
    assert "lease is not a folder" in line(bench.gc(), "removed")
    assert vm.sh(f"ls -d {folder}", check=False).returncode
    assert vm.sh("ls -d /home/pcc/.ssh").stdout
    elsewhere = f"/home/pcc/{bench.stem}-elsewhere"
    vm.ssh(f"mkdir -p {elsewhere}/lease && touch {elsewhere}/lease/x && rm -r {bench.system}")
    vm.ssh(f"ln -s {elsewhere} {bench.system}")
    try:
        assert bench.gc().code == 1
        assert vm.sh(f"ls {elsewhere}/lease").stdout == "x\n"
    finally:
        vm.ssh(f"rm {bench.system}; rm -r {elsewhere}")


@pytest.mark.timeout(240)
def test_many_things_with_any_name_are_removed_in_bounded_time(bench: Bench, vm: VM) -> None:
    over = bench.record("over", ended=True)
    bench.leave(over)
    names = "a=$(printf 'a\\nb') b=\"it's\" c='$(touch /tmp/x)' d=$(printf 'd%0254d' 0)"
    vm.ssh(
        f"""{names}; cd {bench.system}/run-state && mkdir "$a" "$b" "$c" "$d" && ln -s /home {bench.stem}-home
        cd {over}/commands && mkfifo work-1.sup && ln -s /dev/zero work-2.sup && mkdir work-3.sup work-1.claim-x
        touch "$a.sup" "$b.sup" "$c.claim-1" "$d" && seq -f fill-%g.sup 20000 | xargs touch
        mkdir {bench.system}/lease && cd {bench.system}/lease && seq 100 100099 | xargs touch
        cd {bench.system}/run-workspaces && seq -f .fill-%g 100000 | xargs touch && seq -f fill-%g 6000 | xargs mkdir"""
    )
    began = time.monotonic()
    done = bench.gc()
    assert time.monotonic() - began < 120
    assert done.code == 0, done.stdout[-2000:]
    assert "removed" in line(done, f"run-state/{over}")
    assert "removed" in line(done, "'100'", "and 99995 more are not leases")
    assert "99950 more things" in done.stdout
    assert "1001 more things" in done.stdout
    assert len(done.stdout) < 2_000_000
    assert vm.sh("ls -d /home/pcc; ls /tmp/x", check=False).stdout == "/home/pcc\n"


def test_files_and_processes_of_the_account_are_removed(tmp_path: Path, bench: Bench, vm: VM) -> None:
    with_account = Bench(tmp_path, vm, vm.run_as)
    with_account.stem = bench.stem
    over = with_account.record("over", ended=True)
    bench.leave(over)
    workspaces, io = f"{bench.system}/run-workspaces", f"{bench.system}/run-io"
    vm.sh(f"rm -r {workspaces}/{over}/*; chmod 711 {vm.root} {bench.system} {workspaces}; mkdir -p {io}/{over}/steps")
    make = "mkdir -m 700 workspace && head -c 5M /dev/zero >workspace/big && ln -s /home/pcc workspace/l"
    make += " && mkdir workspace/shut && touch workspace/shut/x && chmod 500 workspace/shut"
    theirs = f"chown -R pccrun: {io}/{over}/steps workspace && chown pcc: {io} {io}/{over} . && chmod 700 ."
    vm.sh(f"cd {workspaces}/{over} && {make} && {theirs}")
    stay = "sudo -n -u pccrun env -i setsid sh -c '(trap \"\" TERM HUP; exec sleep 7532) & exit' >/dev/null 2>&1"
    vm.ssh(f"{stay} </dev/null; {stay} </dev/null")
    inside = with_account.container(bench.other("running"), "sleep 600", 600, "--user $(id -u pccrun)")
    assert "would go" in line(with_account.gc("--dry-run"), "2 processes (sleep) of pccrun")
    assert len(vm.pids("^sleep 7532")) == 2

    lane = "PCCPIPE_STEP=run-0123456789ab// setsid sleep 7533 </dev/null >/dev/null 2>&1 &"
    vm.ssh(lane)
    done = with_account.gc()
    assert "run run of another root may be alive" in line(done, "kept", "2 processes (sleep) of pccrun")
    vm.sh("pkill -f '^sleep 7533'")

    done = with_account.gc()
    assert done.code == 0, done
    assert "no live run can own them" in line(done, "removed", "2 processes (sleep) of pccrun")
    assert vm.pids("^sleep 7532") == []
    assert inside in with_account.containers()
    assert vm.sh(f"docker inspect -f '{{{{.State.Running}}}}' {inside}").stdout == "true\n"
    assert not bench.has(over)
    assert vm.sh("ls -d /home/pcc/.ssh").stdout
    assert "of pccrun" not in with_account.gc().stdout


def test_a_starting_run_removes_the_accounts_files_and_kills_no_process(
    bench: Bench, vm: VM, connection: Connection
) -> None:
    over = bench.other("over")
    bench.leave(over)
    workspaces = f"{bench.system}/run-workspaces"
    vm.sh(
        f"chmod 711 {bench.system} {workspaces}; cd {workspaces}/{over} && mkdir -m 700 workspace && touch workspace/x"
    )
    vm.sh(f"chown -R pccrun: {workspaces}/{over}/workspace")
    vm.ssh("sudo -n -u pccrun setsid sleep 7532 >/dev/null 2>&1 </dev/null &")
    collect_over(connection, None, vm.root, lambda run_id: run_id == over, vm.run_as)
    assert not bench.has(over)
    assert len(vm.pids("^sleep 7532")) == 1, "it may be the run's own"
    vm.sh("pkill -f '^sleep 7532'")


def test_the_accounts_processes_are_kept_while_a_run_has_the_vm(
    tmp_path: Path, bench: Bench, vm: VM, connection: Connection
) -> None:
    with_account = Bench(tmp_path, vm, vm.run_as)
    lease = Lease(connection, vm.root, bench.other("alive"), holder="a test")
    lease.acquire(0, lambda: True, lambda _: None)
    vm.ssh("sudo -n -u pccrun setsid sleep 7532 >/dev/null 2>&1 </dev/null &")
    # A chain of processes: each has started the next one before gc sees it.
    vm.ssh("sudo -n -u pccrun setsid sh -c 'f() { sleep 0.001; f & }; f; f' >/dev/null 2>&1 </dev/null &")
    try:
        assert f"run {bench.other('alive')} has the VM" in line(with_account.gc(), "kept", "of pccrun")
        assert len(vm.pids("^sleep 7532")) == 1
    finally:
        lease.release()
    done = with_account.gc()
    assert done.code == 0, done
    assert vm.pids("^sleep 7532") == []
    assert vm.sh("ps -o pid= -u pccrun | wc -l").stdout == "0\n"


def test_a_failed_removal_is_reported_and_stops_no_other(bench: Bench, vm: VM) -> None:
    first, second = bench.record("a", ended=True), bench.record("b", ended=True)
    bench.leave(first)
    bench.leave(second)
    vm.ssh(f"mkdir {bench.system}/run-workspaces/{second}/mod && touch {bench.system}/run-workspaces/{second}/mod/x")
    vm.ssh(f"chmod -R a-w {bench.system}/run-workspaces/{second}/mod")
    vm.sh(f"mkdir {bench.system}/run-workspaces/{first}/roots; touch {bench.system}/run-workspaces/{first}/roots/x")
    done = bench.gc()
    assert done.code == 1
    assert "Permission denied" in line(done, "FAILED", f"run-workspaces/{first}")
    assert not bench.has(second), "gc removes folders that their owner may not write"


def test_without_the_engine_only_ended_runs_are_removed(bench: Bench, vm: VM) -> None:
    over, other = bench.record("over", ended=True), bench.other("left")
    bench.leave(over)
    bench.leave(other)
    vm.leave_docker_group()
    try:
        done = bench.gc("--older-than", "0s")
    finally:
        vm.join_docker_group()
    assert done.code == 1
    assert "engine_permission_denied" in line(done, "gc did not look for containers")
    assert "the engine could not be asked" in line(done, f"run-state/{other}")
    assert (bench.has(over), bench.has(other)) == (False, True)


def test_a_starting_run_cleans_up_only_ended_runs(bench: Bench, connection: Connection, vm: VM) -> None:
    over, other = bench.other("over"), bench.other("left")
    bench.leave(over)
    bench.leave(other)
    vm.ssh(f"mkdir -p {bench.system}/lease && ln -s '{LEASE} {over} a host pid 1' {bench.system}/lease/7")
    collected = collect_over(connection, None, vm.root, lambda run_id: run_id == over)
    assert {outcome.thing.run_id for outcome in collected.removals} == {over}
    assert (bench.has(over), bench.has(other)) == (False, True)
    assert read_lease(connection, vm.root) is not None, "the run that starts takes it over itself"


def test_an_unreachable_vm_gives_one_message(tmp_path: Path, bench: Bench) -> None:
    file = tmp_path / "pccpipe.yaml"
    assert bench.vm
    file.write_text(file.read_text().replace("root:", "port: 9, root:"))
    done = bench.gc()
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr.startswith("pccpipe: the VM refused the connection (ssh_refused): ")
    assert len(done.stderr.splitlines()) <= 2


def test_a_local_copy_is_removed_only_after_its_run_and_with_its_changes_in_a_diff(local: Bench) -> None:
    pipeline = local.folder.pipeline(
        """
        steps:
          - {id: up, upload: workspace}
          - {id: work, run: "echo work >made"}
          - {id: diff, diff: diff.patch}
          - {id: more, run: "echo ${{ inputs.more }} >made"}
        inputs: {more: {type: string, default: work}}
        """
    )
    (local.folder.path / "ws").mkdir()
    for run_id, more in (("diffed", "work"), ("undiffed", "else")):
        ran = local.folder.do("run", pipeline, "--run-id", run_id, "--workspace", "ws", "--input", f"more={more}")
        assert ran.code == 0, ran
    runs = local.folder.path / RUNS
    open_ = local.record("open", ended=False, mode=IsolationMode.LOCAL)
    # As if the runs had failed to remove them at their ends.
    for copy in (runs / "diffed/workspace", runs / open_ / "workspace"):
        copy.with_name("workspace-sent").mkdir()
        copy.mkdir()
        (copy / "made").write_text("work\n")
    states = local.folder.path / ".system" / "run-state"
    for run_id in ("diffed", "undiffed", open_):
        (states / run_id / "commands").mkdir(parents=True)
    done = local.gc("--older-than", "0s")
    assert done.code == 0, done
    kept = {str(path.relative_to(runs)) for path in runs.glob("*/workspace*") if path.is_dir()}
    assert kept == {f"{run}/{name}" for run in ("undiffed", open_) for name in ("workspace", "workspace-sent")}
    # No run left this one: it keeps git out of the folder.
    assert [path.name for path in states.iterdir()] == [".git"]
    assert ".git" not in done.stdout, "no run left the .git that keeps git out"
    assert "exist only there: no diff has all of them" in line(done, "undiffed/workspace of")
    assert "the run was interrupted" in line(done, f"{open_}/workspace of")


def test_a_run_of_a_local_process_is_left_alone(local: Bench) -> None:
    run_id = local.record("held", ended=False, mode=IsolationMode.LOCAL)
    state = local.folder.path / ".system" / "run-state" / run_id
    state.mkdir(parents=True)
    with RunLock(local.folder.path / RUNS / run_id):
        done = local.gc("--older-than", "0s")
        assert "a process here runs it" in line(done, run_id)
        assert state.exists()
    assert local.gc("--older-than", "0s").code == 0
    assert not state.exists()


def test_a_folder_that_is_a_link_is_not_followed(local: Bench, tmp_path: Path) -> None:
    system = tmp_path / ".system"
    run_id = local.record("over", ended=True, mode=IsolationMode.LOCAL)
    own = tmp_path / "own" / run_id
    own.mkdir(parents=True)
    (system / "run-state").symlink_to(tmp_path / "own")
    done = local.gc("--older-than", "0s")
    assert (done.code, own.exists()) == (1, True)
    assert "it is a symbolic link" in done.stdout
