"""The container target: output and exits, isolation, leftovers, and the reasons why a container is unavailable."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from pccpipe.docker_api import settings
from pccpipe.docker_api.settings import container_name
from pccpipe.errors import Lost, Refused, ResultError, Unavailable
from pccpipe.outcome import Reason, Stream
from pccpipe.spec.project_model import Vm
from pccpipe.ssh.connection import Connection
from pccpipe.target import EXPORTS, Chunk, Command, ContainerSettings, Exit, Running
from pccpipe.targets import container_running, container_start
from pccpipe.targets.container import ContainerTarget
from tests.targets.stand import Stand, read_all, read_into, read_until, until
from tests.testbed.vm import VM

KILL_AFTER = 2.0
BOX = ContainerSettings("bb:latest", network="none", memory=256 << 20, cpus=1.0, pids=100)


def stand_on(vm: VM, connections: list[Connection], box: ContainerSettings = BOX) -> Stand:
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    workspace = f"{vm.root}/.system/run-workspaces/{run_id}"
    state = f"{vm.root}/.system/run-state/{run_id}"

    def make() -> ContainerTarget:
        spec = Vm(vm.host, vm.user, vm.port, vm.key, vm.known_hosts, vm.root)
        connections.append(Connection(spec))
        return ContainerTarget(connections[-1], run_id, state, lambda: workspace, kill_after=KILL_AFTER)

    vm.ssh(f"mkdir -p {workspace}")
    return Stand(run_id, make(), make, lambda command: vm.sh(command).stdout, state, workspace, {"container": box})


@pytest.fixture
def connections() -> Iterator[list[Connection]]:
    made: list[Connection] = []
    yield made
    for connection in made:
        connection.close()


@pytest.fixture
def stand(vm: VM, connections: list[Connection]) -> Iterator[Stand]:
    made = stand_on(vm, connections)
    made.target.open()
    yield made
    made.target.close()
    assert containers(vm, made) == []
    vm.sh(f"rm -rf {made.workspace} {made.state}")


@pytest.fixture
def fresh(fresh_vm: VM, connections: list[Connection]) -> Stand:
    return stand_on(fresh_vm, connections)


def containers(vm: VM, stand: Stand) -> list[str]:
    return vm.sh(f"docker ps -a --filter label=pccpipe.run={stand.run_id} --format '{{{{.Names}}}}'").stdout.split()


def name_of(stand: Stand, serial: int = 1) -> str:
    return container_name(stand.run_id, Command(f"step-{serial}", "step", serial, ""))


def inspect(vm: VM, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(vm.sh(f"docker inspect {name}").stdout)[0]
    return found


def test_output_and_exit_are_the_commands_own(stand: Stand) -> None:
    assert stand.run("printf out; printf 'e\\377' >&2; exit 3") == (b"out", b"e\xff", Exit(3))


@pytest.mark.parametrize("code", [0, 1, 124, 125, 126, 127, 255])
def test_an_exit_code_is_the_commands_own(stand: Stand, code: int) -> None:
    assert stand.run(f"exit {code}")[2].code == code


def test_200_mb_arrive_complete(stand: Stand) -> None:
    size = 200_000_000
    running = stand.start(f"head -c {size} /dev/zero")
    got = 0
    while not isinstance(chunk := running.read(30), Exit):
        assert chunk
        assert chunk.data.count(0) == len(chunk.data)
        got += len(chunk.data)
    running.discard()
    assert got == size


def test_a_command_may_close_its_output_and_go_on(stand: Stand) -> None:
    assert stand.run("echo a; exec >&- 2>&-; sleep 1; exit 4") == (b"a\n", b"", Exit(4))


def test_its_cpu_time_grows_while_it_computes_and_hardly_while_it_waits(stand: Stand) -> None:
    running = stand.start("echo up; sleep 3; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo worked; sleep 60")
    read_until(running, b"up\n")
    first = running.cpu_seconds()
    time.sleep(1)
    second = running.cpu_seconds()
    read_until(running, b"worked\n", 60)
    third = running.cpu_seconds()
    assert first is not None
    assert second is not None
    assert third is not None
    assert third - second > 5 * (second - first)
    running.stop(0)
    read_all(running)
    running.discard()


def test_children_left_behind_end_with_the_command(stand: Stand, vm: VM) -> None:
    stdout, _, exit_ = stand.run(f"(sleep {stand.nap}; echo late) & setsid sleep {stand.nap} & echo main")
    assert (stdout, exit_) == (b"main\n", Exit(0))
    assert stand.naps() == 0


def test_stop_signals_the_whole_tree_and_kills_processes_that_ignore_it(stand: Stand) -> None:
    deaf = (
        f"(trap '' TERM; while :; do sleep {stand.nap}; done) & trap 'echo heard' TERM; echo up; wait; wait; sleep 100"
    )
    running = stand.start(deaf)
    seen = read_until(running, b"up\n")
    running.stop(1.0)
    stdout, _, exit_ = read_all(running)
    assert b"heard" in seen + stdout
    assert exit_.code == 137
    running.discard()
    assert stand.naps() == 0


def test_stop_gives_a_command_time_to_end(stand: Stand) -> None:
    running = stand.start("trap 'echo bye; exit 7' TERM; echo up; sleep 100 & wait")
    read_until(running, b"up\n")
    running.stop(30.0)
    stdout, _, exit_ = read_all(running, 15)
    assert (stdout, exit_.code) == (b"bye\n", 7)
    running.discard()


def test_an_out_of_memory_kill_is_reported(stand: Stand) -> None:
    exit_ = stand.run("x=a; while :; do x=$x$x; done")[2]
    assert (exit_.code, exit_.signal, exit_.out_of_memory) == (137, "KILL", True)


def test_the_container_is_hardened_and_the_record_has_its_real_isolation(stand: Stand, vm: VM) -> None:
    running = stand.start("echo up; sleep 100")
    read_until(running, b"up\n")
    found = inspect(vm, name_of(stand))
    host = found["HostConfig"]
    assert (host["Init"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        256 << 20,
        256 << 20,
        10**9,
        100,
    )
    assert (host["NetworkMode"], host["AutoRemove"], host["Privileged"]) == ("none", False, False)
    had = running.isolation
    assert (had.container, had.image, had.network) == (name_of(stand), "bb:latest", "none")
    assert had.image_digest == found["Image"]
    assert had.user == found["Config"]["User"] == "1000:1000"
    assert (had.memory, had.cpus, had.pids, had.read_only_workspace) == (256 << 20, 1.0, 100, False)
    running.stop(0.1)
    read_all(running)
    running.discard()


def test_secrets_and_environment_are_in_no_inspect_no_argument_list_and_on_no_disk(stand: Stand, vm: VM) -> None:
    secret = f"sk-{uuid.uuid4().hex}"
    running = stand.start(
        'echo "$KEY $PLAIN" | md5sum; echo up; sleep 100', secrets={"KEY": secret}, env={"PLAIN": "it's\n$(id)"}
    )
    read_until(running, b"up\n")
    assert secret not in json.dumps(inspect(vm, name_of(stand)))
    assert "it's" not in json.dumps(inspect(vm, name_of(stand)))
    assert secret not in vm.sh("ps -eo args ww").stdout
    assert vm.sh(f"grep -rlF {secret} /home /tmp /run /etc 2>/dev/null || true").stdout == ""
    container = inspect(vm, name_of(stand))["Id"]
    assert vm.sh(f"grep -rlF {secret} /var/lib/docker/containers/{container} || true").stdout == ""
    running.stop(0.1)
    read_all(running)
    running.discard()


def test_inputs_are_read_only_home_is_not_the_workspace_and_files_belong_to_the_owner(stand: Stand, vm: VM) -> None:
    script = """
        echo x > /pcc/in/prompt.md || echo refused; rm /pcc/in/.script || echo refused
        cat /pcc/in/prompt.md; echo; echo "$HOME $CODEX_HOME"; touch "$HOME/h" "$CODEX_HOME/c" made; pwd
    """
    stdout, _, exit_ = stand.run(script, files={"prompt.md": b"do it"})
    assert exit_ == Exit(0)
    assert stdout.decode().split("\n")[:5] == [
        "refused",
        "refused",
        "do it",
        "/pcc/home /pcc/home/.codex",
        "/workspace",
    ]
    assert vm.sh(f"cd {stand.workspace}; stat -c '%U %n' *").stdout == "pcc made\n"


def test_a_read_only_workspace_cannot_be_written(stand: Stand) -> None:
    box = ContainerSettings("bb:latest", network="none", read_only_workspace=True)
    running = stand.start("echo x > /workspace/x", container=box)
    assert running.isolation.read_only_workspace
    _, stderr, exit_ = read_all(running)
    running.discard()
    assert b"Read-only" in stderr
    assert exit_.code != 0


@pytest.mark.parametrize(
    ("leaves", "says"),
    [
        ("true", "missing"),
        ("mkdir $PCC_OUT/r.json", "not a plain file"),
        ("ln -s /etc/passwd $PCC_OUT/r.json", "not a plain file"),
    ],
)
def test_a_result_must_be_a_plain_file(stand: Stand, leaves: str, says: str) -> None:
    running = stand.start(leaves, wants_out=True)
    read_all(running)
    with pytest.raises(ResultError, match=says):
        running.fetch("r.json", 100)
    running.discard()


def test_another_process_attaches_and_reads_everything_again(stand: Stand) -> None:
    running = stand.start("echo one; echo two >&2; sleep 2; echo three; exit 5")
    read_until(running, b"one\n")
    assert read_all(stand.again().attach(running.token)) == (b"one\nthree\n", b"two\n", Exit(5))
    running.discard()


def test_killed_sessions_lose_no_output(fresh: Stand, fresh_vm: VM) -> None:
    fresh.target.open()
    running = fresh.start("for i in $(seq 1 40); do echo line $i; echo err $i >&2; sleep 0.1; done; exit 6")
    read_until(running, b"line 5\n")
    threading.Timer(0.2, fresh_vm.kill_sessions).start()
    stdout, stderr, exit_ = read_all(running)
    running.discard()
    fresh.target.close()
    assert stdout.endswith(b"line 40\n")
    assert b"line 1\n" not in stdout
    assert stdout.count(b"line 20\n") == 1
    assert stderr.endswith(b"".join(b"err %d\n" % number for number in range(6, 41)))
    assert stderr.count(b"err 1\n") <= 1
    assert stderr.count(b"err 20\n") == 1
    assert exit_.code == 6
    assert containers(fresh_vm, fresh) == []


def restart_engine(vm: VM) -> None:
    vm.stop_docker("KILL")
    vm.start_docker()


@pytest.mark.parametrize("restart", [VM.reboot, restart_engine])
def test_a_container_that_a_restart_ended_is_lost(fresh: Stand, fresh_vm: VM, restart: Callable[[VM], None]) -> None:
    fresh.target.open()
    running = fresh.start("echo begun; sleep 300")
    read_until(running, b"begun\n")
    restart(fresh_vm)
    with pytest.raises(Lost, match="was restarted while the container"):
        read_all(running)
    running.discard()


@pytest.mark.parametrize("others", ["", "docker run -d --rm bb:latest sh -c 'trap : TERM; while :; do sleep 1; done'"])
def test_a_container_that_its_engine_ended_as_it_stopped_is_lost(fresh: Stand, fresh_vm: VM, others: str) -> None:
    """Also while the engine waits for another container that ends slowly."""
    fresh.target.open()
    running = fresh.start("echo begun; sleep 300")
    read_until(running, b"begun\n")
    fresh_vm.sh(others or "true")
    fresh_vm.stop_docker()
    with pytest.raises(Lost, match=r"was stopped while the container .* ran, so how its command would have ended"):
        read_all(running)
    fresh_vm.start_docker()
    running.discard()


@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_a_signal_from_within_the_container_is_the_commands_own_end(fresh: Stand, number: str) -> None:
    fresh.target.open()
    _, _, exit_ = fresh.run(f"kill -{number} $$")
    assert exit_.signal == number


def test_output_that_a_dead_engine_lost_is_reported(fresh: Stand, fresh_vm: VM) -> None:
    fresh.target.open()
    running = fresh.start("for i in $(seq 1 40); do echo line $i; sleep 0.1; done")
    read_until(running, b"line 5\n")
    fresh_vm.stop_docker("KILL")
    time.sleep(5)
    fresh_vm.start_docker()
    assert read_all(running)[2] == Exit(0, output_lost=True)
    running.discard()


def test_a_command_that_a_killed_engine_forgot_is_lost_and_never_begins_again(fresh: Stand, fresh_vm: VM) -> None:
    """After it was killed, an engine may call a container "created" whose command has begun."""
    fresh.target.open()
    command = fresh.command("echo begun; sleep 60")
    running = fresh.target.start(command)
    read_until(running, b"begun\n")
    name = str(running.token["name"])
    running.let_go()
    source = '{{range .Mounts}}{{if eq .Destination "/pcc/in"}}{{.Source}}{{end}}{{end}}'
    files = fresh_vm.sh(f"docker inspect -f '{source}' {name}; docker rm -f {name} >/dev/null").stdout.strip()
    labels = f"--label pccpipe.run={fresh.run_id} --label pccpipe.command={command.id}"
    fresh_vm.sh(f"docker create --name {name} {labels} -v {files}:/pcc/in bb:latest true")
    again = fresh.again()
    found = again.find(command)
    assert found
    with pytest.raises(Lost, match="the engine was killed as the container"):
        read_all(found)
    fresh_vm.sh(f"rm {fresh.state}/commands/{command.id}.out/.pcc-begun")
    assert again.find(command) is None
    assert fresh_vm.sh("docker ps -aq").stdout == ""


def stopped(vm: VM, stand: Stand) -> None:
    vm.stop_docker()  # takes its socket with it


def killed(vm: VM, stand: Stand) -> None:
    vm.stop_docker("KILL")


def paused(vm: VM, stand: Stand) -> None:
    vm.pause_docker()


def not_in_group(vm: VM, stand: Stand) -> None:
    vm.leave_docker_group()


def without_image(vm: VM, stand: Stand) -> None:
    vm.sh("docker rmi -f bb:latest")


def name_taken(vm: VM, stand: Stand) -> None:
    vm.sh(f"docker run -d --network none --name {name_of(stand)} node:20-slim sleep 300")


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (stopped, Reason.ENGINE_MISSING, "docker.sock on"),
        (killed, Reason.ENGINE_STOPPED, "refused"),
        (paused, Reason.ENGINE_NOT_ANSWERING, "15 s"),
        (not_in_group, Reason.ENGINE_PERMISSION_DENIED, "ermission denied"),
        (without_image, Reason.IMAGE_MISSING, "No such image: bb:latest"),
        (name_taken, Reason.NAME_TAKEN, "not created by pccpipe"),
    ],
)
def test_an_unavailable_container_has_a_reason_and_leaves_nothing(
    fresh: Stand, fresh_vm: VM, fault: Callable[[VM, Stand], None], reason: Reason, words: str
) -> None:
    fault(fresh_vm, fresh)
    with pytest.raises(Unavailable) as raised:
        fresh.start("echo never > /workspace/never")
    assert raised.value.reason is reason
    assert words in raised.value.words
    if fault is paused:
        fresh_vm.resume_docker()
    fresh.target.close()
    assert fresh_vm.sh(f"ls -A {fresh.workspace}").stdout == ""


def test_settings_that_the_engine_refuses_are_an_error_of_their_own(stand: Stand) -> None:
    with pytest.raises(Refused, match="refuses these settings"):
        stand.start("echo never", container=ContainerSettings("bb:latest", network="none", cpus=100000.0))


def test_a_value_with_a_nul_byte_is_refused_before_a_container_is_made(stand: Stand, vm: VM) -> None:
    with pytest.raises(Refused, match="NUL byte"):
        stand.start("true", env={"A": "x\0y"})
    assert containers(vm, stand) == []


def test_another_command_does_not_remove_the_files_of_a_start(vm: VM, stand: Stand) -> None:
    missing = stand.command("true", container=ContainerSettings("no-such-image:1"))
    with pytest.raises(Unavailable):
        stand.target.start(missing)
    # Its retry may have begun when another command removes the files of ended ones.
    stand.run("true")
    assert vm.sh(f"ls {stand.state}/commands/{missing.id}.in/.script", check=False).returncode == 0


def test_a_probe_raises_the_same_as_a_start(stand: Stand) -> None:
    stand.target.probe(ContainerSettings("bb:latest"))
    with pytest.raises(Unavailable, match="no image") as raised:
        stand.target.probe(ContainerSettings("no-such-image:1"))
    assert raised.value.reason is Reason.IMAGE_MISSING


def test_a_dead_container_of_pccpipe_is_removed_and_a_running_one_is_named(stand: Stand, vm: VM) -> None:
    vm.sh(f"docker run --name {name_of(stand)} --label pccpipe.run=older bb:latest true")
    assert stand.run("echo fine")[0] == b"fine\n"
    vm.sh(f"docker run -d --network none --name {name_of(stand, 2)} --label pccpipe.run=other bb:latest sleep 300")
    with pytest.raises(Unavailable, match="running, of the run other"):
        stand.run("echo never")
    vm.sh(f"docker rm -f {name_of(stand, 2)}")


@pytest.fixture
def image(vm: VM) -> Iterator[Callable[[str, str], str]]:
    """Return a function that builds an image on the VM from a Dockerfile, after a shell line made files there."""
    made: list[str] = []

    def build(dockerfile: str, makes: str = "true") -> str:
        made.append(f"made-{uuid.uuid4().hex[:8]}")
        folder = f"/tmp/{made[-1]}"
        vm.sh(f"mkdir {folder} && cd {folder} && {makes} && cat >Dockerfile", stdin=dockerfile)
        vm.sh(f"docker build -q -t {made[-1]} {folder}; rm -r {folder}")
        return made[-1]

    yield build
    for name in made:
        vm.sh(f"docker rmi -f {name}")


BUSYBOX = "c=$(docker create bb:latest) && docker cp $c:/bin/busybox sh && docker rm $c"
SHELLS = {
    "another CPU": (
        f"{BUSYBOX} && printf '\\267' | dd of=sh bs=1 seek=18 conv=notrunc status=none",
        "xec format error",
    ),
    "no loader": ("cp /bin/dash sh", "o such file or directory"),
    "no library": ("cp /bin/dash sh && mkdir lib64 && cp -L /lib64/ld-linux-x86-64.so.2 lib64/", "shared librar"),
    "not executable": (f"{BUSYBOX} && chmod 644 sh", "ermission denied"),
    "a folder": ("mkdir sh && touch sh/x", ""),
    "an empty file": (":> sh && chmod 755 sh", ""),
}


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_that_cannot_run_never_began_a_command(
    stand: Stand, vm: VM, image: Callable[[str, str], str], shell: str, init: bool
) -> None:
    makes, words = SHELLS[shell]
    copies = "COPY sh /bin/sh\n" + ("COPY lib64 /lib64\n" if "lib64" in makes else "")
    name = image(f"FROM scratch\n{copies}", makes)
    command = stand.command("echo never", container=ContainerSettings(name, network="none", init=init))
    with pytest.raises(Unavailable) as caught:
        stand.target.start(command)
    assert caught.value.reason is Reason.SHELL_MISSING
    assert words in caught.value.words
    assert containers(vm, stand) == []
    # Another process that resumes the run finds no command that began.
    assert stand.again().find(command) is None


def test_a_resumed_run_does_not_find_a_command_that_never_began(
    stand: Stand, vm: VM, image: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_start, "BEGIN_LIMIT", 0)
    box = ContainerSettings(image("FROM scratch\nCOPY sh /bin/sh\n", "cp /bin/dash sh"), network="none")
    command = stand.command("echo never", container=box)
    stand.target.start(command)
    monkeypatch.undo()
    assert containers(vm, stand) != []
    assert stand.again().find(command) is None
    assert containers(vm, stand) == []


def test_a_command_may_have_a_path_without_the_systems_programs(stand: Stand, image: Callable[[str], str]) -> None:
    box = ContainerSettings(image("FROM node:20-slim\nENV PATH=/opt/tool/bin\n"), network="none")
    out, _, exit_ = stand.run('echo "$PATH"; command -v cat || echo none', container=box)
    assert (out, exit_) == (b"/opt/tool/bin\nnone\n", Exit(0))
    assert stand.run('echo "$PATH"', env={"PATH": "/nowhere"})[0] == b"/nowhere\n"
    began = time.monotonic()
    assert stand.run("/bin/sleep 60", container=box, limit=2)[2].timed_out
    assert time.monotonic() - began < 20


def test_an_image_without_sleep_runs_its_command(stand: Stand, image: Callable[[str], str]) -> None:
    box = ContainerSettings(image("FROM node:20-slim\nRUN rm /bin/sleep\n"), network="none")
    assert stand.run("for i in $(seq 1 20000); do :; done; echo fine", container=box)[::2] == (b"fine\n", Exit(0))


def test_a_command_whose_shell_the_image_lacks_never_begins(stand: Stand, image: Callable[[str], str]) -> None:
    box = ContainerSettings(image("FROM node:20-slim\nRUN rm -f /bin/bash /usr/bin/bash\n"), network="none")
    with pytest.raises(Unavailable, match="has no bash, which the step's `shell:` names") as caught:
        stand.start("echo never", shell="bash -e", container=box)
    assert caught.value.reason is Reason.SHELL_MISSING


def test_another_interpreter_that_the_image_lacks_fails_the_command(stand: Stand) -> None:
    # Code in the workspace could have removed one that it had, so this must not lead to a fallback.
    assert stand.run("print(1)", shell="python9", env={"PATH": "bin:$PATH"})[::2] == (b"", Exit(127))


def test_a_script_of_another_interpreter_runs_in_a_container(stand: Stand) -> None:
    lines = "#!/bin/sh\\necho $1 $2; tr a-z A-Z <$2; exit 3\\n"
    assert stand.run(f"mkdir bin; printf '{lines}' >bin/shout; chmod 755 bin/shout")[2] == Exit(0)
    out, err, exit_ = stand.run("some text", shell="shout -x", env={"PATH": "./bin:$PATH"})
    assert (out, err, exit_) == (b"-x /pcc/in/.script\nSOME TEXT", b"", Exit(3))


def test_a_containers_path_extends_that_of_its_image(stand: Stand, image: Callable[[str], str]) -> None:
    box = ContainerSettings(image("FROM node:20-slim\nENV PATH=/opt/tool/bin\n"), network="none")
    path = {"PATH": "./bin:$PATH"}
    assert stand.run('echo "$PATH"', container=box, env=path)[0] == b"/workspace/bin:/opt/tool/bin\n"
    fake = "printf '#!/bin/sh\\necho fake\\n' >bin/$name; chmod 755 bin/$name"
    assert stand.run(f"mkdir bin; for name in sh bash sleep mkdir tool; do {fake}; done")[2] == Exit(0)
    assert stand.run("echo real; tool", env=path)[0] == b"real\nfake\n"
    without = ContainerSettings(image("FROM node:20-slim\nRUN rm -f /bin/bash /usr/bin/bash\n"), network="none")
    with pytest.raises(Unavailable, match="has no bash"):
        stand.start("echo never", env=path, shell="bash -e", container=without)


def test_a_container_leaves_variables_in_a_file_of_its_own(stand: Stand) -> None:
    running = stand.start('echo "A=1" >>"$PCC_ENV"', has_exports=True, wants_out=True)
    assert read_all(running)[2] == Exit(0)
    assert running.fetch(EXPORTS, 100) == b"A=1\n"
    running.discard()
    running = stand.start('ln -s /etc/passwd "$PCC_ENV"', has_exports=True, wants_out=True)
    assert read_all(running)[2] == Exit(0)
    with pytest.raises(ResultError, match="not a plain file"):
        running.fetch(EXPORTS, 100)
    running.discard()


def test_a_commands_own_words_do_not_prove_that_it_never_began(stand: Stand) -> None:
    lies = "echo 'exec /bin/sh failed: Exec format error' >&2; exit 127"
    assert stand.run(lies)[2].code == 127
    # Nor does it if it closes its output, or writes the line that marks the beginning.
    assert stand.run("exec >&- 2>&-; exit 127")[2].code == 127
    assert stand.run("echo 'pccpipe: the command begins'; exit 126")[0] == b"pccpipe: the command begins\n"


def test_a_shortage_of_memory_or_processes_is_start_refused(stand: Stand) -> None:
    with pytest.raises(Unavailable) as caught:
        stand.start("true", container=msgspec.structs.replace(BOX, pids=1))
    assert caught.value.reason is Reason.START_REFUSED


def test_close_removes_what_still_runs(stand: Stand, vm: VM) -> None:
    running = stand.start("echo up; sleep 1000")
    read_until(running, b"up\n")
    assert containers(vm, stand) == [name_of(stand)]
    stand.target.close()
    assert containers(vm, stand) == []


def test_ten_parallel_commands_are_not_mixed_up(stand: Stand) -> None:
    results: dict[int, bytes] = {}

    def run(number: int) -> None:
        results[number] = stand.run(f"echo {number}; sleep 0.2; echo {number}")[0]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {number: b"%d\n%d\n" % (number, number) for number in range(10)}


def test_without_pccpipe_the_container_ends_by_itself_at_its_deadline(
    vm: VM, stand: Stand, connections: list[Connection]
) -> None:
    running = stand.start(f"trap '' TERM; echo ready; sleep {stand.nap} & sleep {stand.nap}", limit=4)
    read_until(running, b"ready\n")
    token = running.token
    for connection in connections:
        connection.close()
    name = name_of(stand)
    began = time.monotonic()
    until(lambda: inspect(vm, name)["State"]["Status"] == "exited", 4 + KILL_AFTER + 10)
    assert time.monotonic() - began > 3
    assert stand.naps() == 0
    again = stand.again()
    again.open()
    found = again.attach(token)
    out, _, exit_ = read_all(found)
    assert out == b"ready\n"
    assert exit_.timed_out
    assert exit_.code == 137
    found.discard()
    again.close()


def test_the_watchdog_does_not_disturb_the_command(stand: Stand) -> None:
    # It ends with the command, holds no output, is not a job of the command's shell, and does not hold the folder.
    began = time.monotonic()
    assert stand.run("wait; jobs; echo done; exit 3", limit=600) == (b"done\n", b"", Exit(3))
    assert time.monotonic() - began < 10


def test_a_container_with_an_unrecorded_start_is_found_and_one_that_never_started_is_not(vm: VM, stand: Stand) -> None:
    command = stand.command("echo one; sleep 1; echo two; exit 6")
    stand.target.start(command)
    restarted = stand.again()
    restarted.open()
    found = restarted.find(command)
    assert found is not None
    assert read_all(found) == (b"one\ntwo\n", b"", Exit(6))
    found.discard()
    never = stand.command("true")
    files = f"{stand.state}/commands/{never.id}.in"
    vm.ssh(f"mkdir -p {files}")
    vm.sh(f"docker create --name {name_of(stand, 2)} -v {files}:/pcc/in {labels(stand, never)} bb:latest")
    assert restarted.find(never) is None
    assert containers(vm, stand) == []
    restarted.close()


def labels(stand: Stand, command: Command) -> str:
    return f"--label pccpipe.run={stand.run_id} --label pccpipe.command={command.id}"


def test_a_container_with_only_the_labels_is_not_followed_and_is_removed_with_the_run(vm: VM, stand: Stand) -> None:
    command = stand.command("echo never")
    forged = "sh -c 'echo approved; sleep 60'"
    vm.sh(f"docker run -d --network none --name forged {labels(stand, command)} bb:latest {forged}")
    assert stand.target.find(command) is None
    stand.target.close()
    assert containers(vm, stand) == []


def test_a_run_of_another_project_with_the_same_id_keeps_its_container(vm: VM, stand: Stand) -> None:
    elsewhere = "/home/other/.system/run-state/run/commands/a-1.in"
    vm.sh(f"mkdir -p {elsewhere}")
    said = f"--label pccpipe.run={stand.run_id}"
    vm.sh(f"docker run -d --network none --name theirs -v {elsewhere}:/pcc/in {said} bb:latest sleep 60")
    stand.target.close()
    assert containers(vm, stand) == ["theirs"]
    vm.sh("docker rm -f theirs; rm -r /home/other")


def test_a_flood_ends_when_it_is_stopped(stand: Stand) -> None:
    running = stand.start("exec yes 0123456789")
    running.may_skip(1 << 20, 1 << 20)
    read_for(running, 2.0)
    began = time.monotonic()
    running.stop(1.0)
    exit_ = read_all(running, limit=25)[2]
    assert exit_.code in {137, 143}
    assert time.monotonic() - began < 15
    running.discard()


def read_for(running: Running, seconds: float) -> None:
    """Read output for this many seconds."""
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        assert not isinstance(running.read(0.1), Exit)


def test_the_end_of_a_flood_that_cannot_be_read_in_time_is_kept(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_running, "DRAIN", 1.0)
    begun = stand.start("echo first words; seq 1000000; echo last words")
    assert isinstance(begun, container_running.ContainerRunning)
    begun._disconnect()
    other = stand.again()
    other.open()
    found = other.attach(begun.token)
    until(lambda: "exited" in stand.shell(f"docker ps -a --filter label=pccpipe.run={stand.run_id} | cat").lower(), 60)
    output, gaps = bytearray(), []

    def take(chunk: Chunk) -> None:
        output.extend(chunk.data)
        gaps.extend([chunk.stream] * chunk.skipped_more)

    exit_ = read_into(found, take, 30)
    found.discard()
    other.close()
    assert exit_.code == 0
    assert output.startswith(b"first words\n1\n2\n")
    assert output.endswith(b"999999\n1000000\nlast words\n")
    assert gaps == [Stream.STDOUT]


def test_a_log_whose_beginning_the_engine_dropped_hides_no_later_output(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"Type": "local", "Config": {"max-size": "1m", "max-file": "2", "compress": "false"}}
    monkeypatch.setattr(settings, "LOG_CONFIG", config)
    monkeypatch.setattr(container_running, "LOG_FILE", 900_000)
    running = stand.start(
        "seq 100000; echo middle; until [ -e go ]; do sleep 0.1; done; echo after; echo more >&2; sleep 2"
    )
    read_until(running, b"middle\n", 60)
    assert isinstance(running, container_running.ContainerRunning)
    # The engine writes its log later than it sends output.
    until(lambda: stand.shell(f"docker logs --tail 1 {name_of(stand)}") == "middle\n", 30)
    running._disconnect()
    stand.shell(f"touch {stand.workspace}/go")
    chunks: list[Chunk] = []
    assert read_into(running, chunks.append, 30).code == 0
    running.discard()
    assert b"".join(chunk.data for chunk in chunks if chunk.stream is Stream.STDOUT).endswith(b"middle\nafter\n")
    assert b"".join(chunk.data for chunk in chunks if chunk.stream is Stream.STDERR) == b"more\n"
    assert [chunk.stream for chunk in chunks if chunk.skipped_more] == [Stream.STDOUT]
