"""`pccpipe doctor`: each thing that it checks, broken on a real VM."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import pccpipe
from pccpipe.checkup.check import CheckVerdict, DoctorReport, Finding
from pccpipe.checkup.checks import agent, sshd, strays
from pccpipe.checkup.checks.engine import CHECKS as ENGINE
from pccpipe.checkup.context import CONTEXT, IMAGE, CheckContext, CheckupOptions
from pccpipe.checkup.doctor import run_checks
from pccpipe.detached.programs import RunDir
from pccpipe.docker_api.image import content_of
from pccpipe.machine.lease import Lease
from pccpipe.machine.provisioned import Provisioned, write_provisioned
from pccpipe.machine.startup import startup_files
from pccpipe.outcome import IsolationMode
from pccpipe.spec.project_model import Project, Vm
from pccpipe.ssh.connection import Connection
from pccpipe.views.text import harmless_line
from tests.cli.command import Folder
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM

BED_WARNINGS = {"sudo", "image", "account"}
"""Warnings of a healthy VM of the bed: no sudo, an image that pccpipe did not build, no `run_as`."""


ENGINES = [
    ((), CheckVerdict.OK, "maps no users"),
    (("userns",), CheckVerdict.OK, "containers of pccrun ask for the host's"),
    (("rootless",), CheckVerdict.WRONG, "engine_maps_users"),
]


class Clinic:
    """Run the doctor from a folder, on a VM."""

    def __init__(self, folder: Path, vm: VM, endpoint: str) -> None:
        self.folder = folder
        self.vm = vm
        self.endpoint = endpoint
        at = Vm(vm.host, vm.user, vm.port, vm.key, vm.known_hosts, vm.root)
        self.project = Project("p", IsolationMode.VM, at)
        self.open: list[Connection] = []

    def doctor(self, *, fix: bool = False, key: str = "", **changed: object) -> DoctorReport:
        """Return the report; `changed` replaces settings of the VM."""
        assert self.project.vm
        project = replace(self.project, vm=replace(self.project.vm, **changed))
        runs = self.folder / ".system" / "runs"
        return pccpipe.doctor(project=project, runs_dir=runs, endpoint=self.endpoint, key=key, fix=fix)

    def agents(self, pipeline: str) -> DoctorReport:
        """Return the report with the agents of a pipeline."""
        runs = self.folder / ".system" / "runs"
        loaded = pccpipe.load(pipeline, root=self.folder)
        return pccpipe.doctor(project=self.project, runs_dir=runs, endpoint=self.endpoint, key="", pipeline=loaded)

    def log_in(self) -> Connection:
        """Open a connection of the test's own, to do what provision does."""
        assert self.project.vm
        connection = Connection(self.project.vm)
        self.open.append(connection)
        return connection

    def project_file(self) -> Path:
        vm, path = self.vm, self.folder / "pccpipe.yaml"
        path.write_text(
            f"id: p\nisolation_mode: vm\nvm: {{external_ip: {vm.host}, user: {vm.user}, key_path: {vm.key}, "
            f"known_hosts: {vm.known_hosts}, root: {vm.root}}}\n"
        )
        return path


@pytest.fixture
def clinic(tmp_path: Path, vm: VM, model: ModelServer) -> Clinic:
    """Return a clinic for the worker's shared VM, which is healthy."""
    return Clinic(tmp_path, vm, f"{model.url}/v1")


@pytest.fixture
def ward(tmp_path: Path, vms: Callable[..., VM], model_for: Callable[[VM], ModelServer]) -> Iterator[Clinic]:
    """Return a clinic for a VM of the test's own, with a small /home."""
    vm = vms(home_mb=400)
    clinic = Clinic(tmp_path, vm, f"{model_for(vm).url}/v1")
    yield clinic
    for connection in clinic.open:
        connection.close()


def found(report: DoctorReport, name: str, verdict: CheckVerdict, *words: str, fix: str = "") -> Finding:
    finding = report[name]
    assert finding.verdict is verdict, finding
    assert all(word in finding.words for word in words), finding
    assert fix in (finding.fix.command if finding.fix else ""), finding
    return finding


def not_ok(report: DoctorReport) -> set[str]:
    return {each.name for each in report.checks if each.finding.verdict in {CheckVerdict.WARNING, CheckVerdict.WRONG}}


def test_a_healthy_vm_is_fine_and_the_checks_leave_nothing(clinic: Clinic, model: ModelServer) -> None:
    assert model.key
    report = clinic.doctor(key=model.key)
    assert not_ok(report) == BED_WARNINGS, report
    assert report.exit_status == 0
    found(report, "codex", CheckVerdict.OK, "Codex 0.")
    found(report, "claude-code", CheckVerdict.OK, "Claude Code 2.")
    found(report, "sandbox", CheckVerdict.OK, "--dangerously-bypass-approvals-and-sandbox", "bwrap")
    found(report, "key", CheckVerdict.OK, "takes the key")
    found(report, "endpoint", CheckVerdict.OK, "answers")
    found(report, "proxy", CheckVerdict.OK, "without a network reaches pccpipe's proxy")
    found(report, "https", CheckVerdict.OK)
    assert not clinic.vm.sh(
        f"ls {clinic.vm.root}/.system/run-state {clinic.vm.root}/.system/run-workspaces"
    ).stdout.count("doctor")
    assert not clinic.vm.sh("docker ps -aq --filter label=pccpipe.run").stdout


AGENTS = """
version: 1
name: p
agents:
  codex: {use: codex, model: m}
  claude: {use: claude-code, model: m}
containers: {box: {image: "pcc-runner:latest"}, small: {image: IMAGE}}
steps:
  - {id: a, container: box, agent: [codex, claude], prompt: {text: x}}
  - {id: b, container: small, agent: codex, prompt: {text: x}}
"""


def test_each_agent_of_a_pipeline_is_looked_for_in_its_images(clinic: Clinic) -> None:
    report = clinic.agents(AGENTS.replace("IMAGE", '"pcc-runner:latest"'))
    found(report, "agents", CheckVerdict.OK, "codex (codex-cli 0.", "claude-code (2.", "in pcc-runner:latest")
    report = clinic.agents(AGENTS.replace("IMAGE", '"bb:latest"'))
    found(report, "agents", CheckVerdict.WRONG, "bb:latest has no program `codex` for the agent codex")
    report = clinic.agents(AGENTS.replace("IMAGE", '"none:latest"'))
    found(report, "agents", CheckVerdict.WRONG, "none:latest: ")
    assert "agents" not in {check.name for check in clinic.doctor().checks}


def test_the_command_reports_in_lines_and_as_json(clinic: Clinic, model: ModelServer) -> None:
    assert model.key
    folder, env = Folder(clinic.folder), {"OPENAI_API_KEY": model.key + "-wrong"}
    clinic.project_file()
    said = folder.do("doctor", "--endpoint", clinic.endpoint, env=env)
    assert said.code == 1, said
    assert "WRONG    key" in said.stdout
    assert "refuses the key in OPENAI_API_KEY (401)" in said.stdout
    assert "fix: pccpipe provision" in said.stdout
    assert model.key not in said.stdout + said.stderr
    report = json.loads(folder.do("doctor", "--json", "--endpoint", clinic.endpoint, env=env).stdout)
    assert report["exit_status"] == 1
    assert report["reachable"] is True
    key = next(check for check in report["checks"] if check["name"] == "key")
    assert key["verdict"] == "wrong"
    assert key["mend"]["where"] == "here"


def test_all_faults_of_the_machine_are_reported_at_once(ward: Clinic) -> None:
    vm = ward.vm
    vm.sh("mv /usr/bin/xargs /usr/bin/xargs.off")
    behind = '#!/bin/sh\nexec /bin/date -d "2 hours ago" "$@"\n'
    vm.sh("cat >/usr/local/bin/date && chmod 755 /usr/local/bin/date", stdin=behind)
    vm.sh("umount /etc/resolv.conf 2>/dev/null; echo nameserver 127.0.0.9 >/etc/resolv.conf")
    little = "sed 's/^MemAvailable:.*/MemAvailable:  99999 kB/' /proc/meminfo >/run/meminfo"
    vm.sh(f"{little} && mount --bind /run/meminfo /proc/meminfo")
    vm.sh("echo sleep 0.2 >/home/pcc/.bashrc")
    vm.sh("printf 'FROM pcc-runner\\nLABEL pccpipe.content=old\\n' | docker build -q -t pcc-runner:latest -")
    vm.sh("docker run -d --network none --label pccpipe.run=gone --label pccpipe.deadline=1 bb:latest true")
    vm.fill(left_mb=70)

    report = ward.doctor()

    found(report, "programs", CheckVerdict.WRONG, "no xargs", fix="apt-get")
    found(report, "clock", CheckVerdict.WRONG, "7", "s behind this machine's", fix="date -s @")
    found(report, "dns", CheckVerdict.WRONG, "registry.npmjs.org not found", "nameserver 127.0.0.9", fix="networking")
    found(report, "memory", CheckVerdict.WARNING, "only 97 MB")
    found(report, "login-shell", CheckVerdict.WARNING, "~/.bashrc", fix="~/.bashrc")
    found(report, "image", CheckVerdict.WRONG, "another Dockerfile", fix="provision")
    found(report, "leftovers", CheckVerdict.WARNING, "1 container of 1 run", fix="gc")
    found(report, "disk", CheckVerdict.WARNING, "MB for /home/project free", fix="gc")
    assert not_ok(report) == {
        *("programs", "clock", "dns", "memory", "login-shell", "image", "leftovers", "disk", "sudo", "account")
    }
    assert report.exit_status == 1

    vm.unfill()
    few = '#!/bin/sh\n/bin/df "$@" | case "$1" in -Pi) sed "2s/.*/x 90000 70000 20000 80% y/" ;; *) cat ;; esac\n'
    vm.sh("cat >/usr/local/bin/df && chmod 755 /usr/local/bin/df", stdin=few)
    lease = f"{vm.root}/.system/lease"
    vm.ssh(f"mkdir -p {lease}; ln -s '{'0' * 32} {'0' * 36} 5 old-run host pid 1' {lease}/99")
    report = ward.doctor()
    found(
        report,
        "disk",
        CheckVerdict.WARNING,
        "20000 files for /home/project",
        "20000 files for /var/lib/docker",
        fix="gc",
    )
    found(report, "lease", CheckVerdict.OK, "left behind by run old-run (host pid 1)", "before a reboot")

    vm.sh("rm /usr/local/bin/df")
    vm.fill(left_mb=10)
    found(ward.doctor(), "disk", CheckVerdict.WRONG, "MB for /home/project free", fix="gc")


@pytest.mark.parametrize(
    ("most", "verdict"), [(1, CheckVerdict.WRONG), (2, CheckVerdict.WRONG), (6, CheckVerdict.WARNING)]
)
def test_an_sshd_that_opens_few_sessions_is_reported(ward: Clinic, most: int, verdict: CheckVerdict) -> None:
    ward.vm.sh(f"sed -i 's/^MaxSessions .*/MaxSessions {most}/' /etc/ssh/sshd_config")
    ward.vm.refuse()
    ward.vm.accept()
    # Only this check: it has a connection of its own.
    context = CheckContext(CheckupOptions(ward.project, ward.folder, ward.endpoint, "", False))
    try:
        finding = sshd.sessions(context)
    finally:
        context.close()
        ward.vm.sh("sed -i 's/^MaxSessions .*/MaxSessions 100/' /etc/ssh/sshd_config")
        ward.vm.refuse()
        ward.vm.accept()
    assert finding.verdict is verdict, finding
    assert f"opens {most} sessions at a time (MaxSessions)" in finding.words
    assert finding.fix
    assert "1i MaxSessions 10'" in finding.fix.command


def test_each_fault_of_the_engine_has_its_own_check(ward: Clinic) -> None:
    vm = ward.vm
    vm.sh("iptables -A OUTPUT -p tcp --dport 443 -j REJECT")
    vm.sh("sed -i '1i AllowStreamLocalForwarding no' /etc/ssh/sshd_config")
    vm.refuse()
    vm.accept()
    report = ward.doctor()
    found(report, "https", CheckVerdict.WARNING, "registry.npmjs.org is not reached")
    found(report, "proxy", CheckVerdict.WRONG, "does not forward the socket", fix="AllowStreamLocalForwarding yes")
    found(report, "codex", CheckVerdict.OK)
    found(report, "sessions", CheckVerdict.OK, "9 sessions")
    vm.sh("sed -i '1c AllowTcpForwarding no' /etc/ssh/sshd_config")
    vm.refuse()
    vm.accept()
    report = ward.doctor()
    found(report, "proxy", CheckVerdict.WRONG, fix="1i AllowTcpForwarding yes'")
    vm.sh("sed -i 1d /etc/ssh/sshd_config")
    vm.refuse()
    vm.accept()

    vm.sh("printf 'FROM bb:latest\\n' | docker build -q -t pcc-runner:latest -")
    report = ward.doctor()
    found(report, "codex", CheckVerdict.WRONG, "Codex does not start", "not found")
    found(report, "claude-code", CheckVerdict.WARNING, "has no Claude Code", fix="provision")

    vm.sh("printf 'FROM scratch\nLABEL nothing=inside\n' | docker build -q -t pcc-runner:latest -")
    found(ward.doctor(), "container", CheckVerdict.WRONG, "shell_missing", "/bin/sh")

    vm.sh("docker rmi -f pcc-runner:latest")
    report = ward.doctor()
    found(report, "image", CheckVerdict.WRONG, "there is no image pcc-runner:latest", fix="provision")
    found(report, "codex", CheckVerdict.SKIPPED)

    vm.leave_docker_group()
    vm.sh("rm -rf /home/project/.system; chown root: /home/project")
    report = ward.doctor()
    group = found(
        report, "engine-group", CheckVerdict.WRONG, "pcc is not in group docker", fix="sudo usermod -aG docker pcc"
    )
    assert group.fix
    assert group.fix.is_safe
    found(
        report,
        "folder",
        CheckVerdict.WRONG,
        "cannot be written by pcc",
        fix="sudo install -d -o 1000 -g 1000 /home/project",
    )
    assert [report[name].verdict for name in ("engine-running", "image", "container", "lease")] == [
        CheckVerdict.SKIPPED
    ] * 4

    vm.join_docker_group()
    vm.pause_docker()
    report = ward.doctor()
    hung = found(report, "engine-running", CheckVerdict.WRONG, "no answer in 15 s", fix="sudo service docker restart")
    # A restart would end the containers of all users.
    assert hung.fix
    assert not hung.fix.is_safe
    vm.resume_docker()

    vm.stop_docker()
    report = ward.doctor()
    found(report, "engine-running", CheckVerdict.WRONG, "does not run", fix="sudo service docker start")

    vm.sh("rm -f /run/docker.sock; mv /usr/sbin/dockerd /usr/sbin/dockerd.off")
    found(ward.doctor(), "engine", CheckVerdict.WRONG, "there is no Docker Engine", fix="pccpipe provision")


def test_a_login_older_than_its_group_is_reported_and_fixed_by_a_new_login(ward: Clinic) -> None:
    ward.vm.leave_docker_group()
    context = CheckContext(CheckupOptions(ward.project, ward.folder / "runs", ward.endpoint, ""))
    engine = [replace(check, needs=()) for check in ENGINE[1:2]]
    try:
        assert "is not in group" in run_checks(engine, context)[0].finding.words
        ward.vm.join_docker_group()
        finding = run_checks(engine, context)[0].finding
        assert "this login began before that" in finding.words
        assert finding.fix
        assert finding.fix.do
        finding.fix.do(context)
        assert run_checks(engine, context)[0].finding.verdict is CheckVerdict.OK
    finally:
        context.close()


def test_an_unavailable_vm_is_reported_with_its_reason(ward: Clinic) -> None:
    vm = ward.vm
    other = ward.folder / "known_hosts"
    other.write_text("")
    report = ward.doctor(known_hosts=other)
    found(report, "ssh", CheckVerdict.OK)
    found(report, "host-key", CheckVerdict.WRONG, "is not in", "Compare", fix=f"ssh-keyscan {vm.host} >>{other}")
    assert report.exit_status == 3
    assert report.checks[-1].name == "codex-here"

    report = ward.doctor(user="nobody-there")
    found(
        report, "login", CheckVerdict.WRONG, "Permission denied", fix=f"ssh-copy-id -i {vm.key} nobody-there@{vm.host}"
    )
    found(report, "image", CheckVerdict.SKIPPED)
    assert report.exit_status == 3

    key = ward.folder / "other-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    found(
        ward.doctor(key_path=key),
        "login",
        CheckVerdict.WRONG,
        "the server refused",
        fix=f"ssh-copy-id -i {key} pcc@{vm.host}",
    )

    vm.sh("usermod -s /usr/sbin/nologin pcc")
    report = ward.doctor()
    found(
        report, "login", CheckVerdict.WRONG, "This account is currently not available", fix="usermod -s /bin/bash pcc"
    )
    vm.sh("usermod -s /bin/bash pcc")

    vm.new_host_key()
    found(
        ward.doctor(),
        "host-key",
        CheckVerdict.WRONG,
        "has changed",
        fix=f"ssh-keygen -R {vm.host} -f {vm.known_hosts}",
    )

    vm.refuse()
    report = ward.doctor()
    found(report, "ssh", CheckVerdict.WRONG, "Connection refused", fix="systemctl enable --now ssh")
    assert report.exit_status == 3

    vm.cut()
    report = ward.doctor()
    found(report, "ssh", CheckVerdict.WRONG, "nothing answered in 10 s", "firewall")
    assert report.exit_status == 3


def test_a_run_that_holds_the_vm_is_named_and_its_vm_is_left_alone(clinic: Clinic, vm: VM) -> None:
    connection = Connection(clinic.project.vm)  # type: ignore[arg-type]
    lease = Lease(connection, vm.root, "other", holder="a test")
    lease.acquire(0, lambda: True, lambda _: None)
    try:
        report = clinic.doctor(fix=True)
        found(
            report,
            "lease",
            CheckVerdict.WARNING,
            "run other (a test) holds the VM and is alive",
            fix="cancel other",
        )
        assert [(each.name, each.succeeded) for each in report.fixes] == [("image", False)]
        assert "nothing was fixed" in report.fixes[0].words
        assert "run other" in report.fixes[0].words
    finally:
        lease.release()
        connection.close()
    found(clinic.doctor(), "lease", CheckVerdict.OK, "free")


def test_an_image_that_provision_did_not_build_is_named_and_replaced(ward: Clinic) -> None:
    vm = ward.vm
    label = f"pccpipe.content={content_of(CONTEXT)}"
    vm.sh(f"printf 'FROM pcc-runner:latest\\nLABEL {label}\\n' | docker build -q -t pcc-runner:latest -")
    found(ward.doctor(), "image", CheckVerdict.OK, "as it is now")
    login = ward.log_in()
    write_provisioned(login, vm.root, Provisioned({IMAGE: "sha256:" + "0" * 64}, startup_files(login)))
    other = found(ward.doctor(), "image", CheckVerdict.WRONG, "and not what provision built (sha256:000000000000)")
    assert other.fix
    assert other.fix.is_safe
    report = ward.doctor(fix=True)
    assert "image" in {each.name for each in report.fixes if each.succeeded}, report
    found(report, "image", CheckVerdict.OK)


def test_start_up_files_that_changed_since_provision_are_named(ward: Clinic) -> None:
    vm = ward.vm
    found(ward.doctor(), "startup-files", CheckVerdict.SKIPPED, "provision writes it")
    login = ward.log_in()
    write_provisioned(login, vm.root, Provisioned({}, startup_files(login)))
    found(ward.doctor(), "startup-files", CheckVerdict.OK)
    vm.ssh("echo 'PATH=$HOME/.evil:$PATH' >>.bashrc; echo 'ssh-ed25519 AAAA me' >>.ssh/authorized_keys")
    words = "since provision: ~/.bashrc is new, ~/.ssh/authorized_keys was changed"
    found(ward.doctor(), "startup-files", CheckVerdict.WARNING, words, fix="provisioned.json")
    vm.ssh(f"chmod 666 {vm.root}/.system/provisioned.json")
    found(ward.doctor(), "startup-files", CheckVerdict.WRONG, "only the login user")


def test_a_slow_container_is_reported_and_is_gone_after_the_doctor(
    ward: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = ward.vm
    dockerfile = "FROM bb:latest\nRUN echo sleep 100 >/bin/codex && chmod +x /bin/codex\n"
    vm.sh("docker build -q -t pcc-runner:latest -", stdin=dockerfile)
    monkeypatch.setattr(agent, "PROBE_LIMIT", 4.0)
    found(ward.doctor(), "container", CheckVerdict.WRONG, "is not done in 4 s")
    # A check past its limit, while its container still runs.
    monkeypatch.setattr(agent, "PROBE_LIMIT", 8.0)
    first, *others = agent.IN_CONTAINER
    monkeypatch.setattr(agent, "IN_CONTAINER", [replace(first, limit=3.0), *others])
    found(ward.doctor(), "container", CheckVerdict.WRONG, "no answer in 3 s")
    assert vm.sh("docker ps -aq").stdout == ""


def test_a_logind_that_ends_processes_at_logout_is_reported(ward: Clinic) -> None:
    """The bed has no systemd: the test makes the folder that shows it, and logind's file."""
    vm = ward.vm
    found(ward.doctor(), "logind", CheckVerdict.OK, "no logind")
    vm.sh(
        "mkdir -p /run/systemd/system /etc/systemd/logind.conf.d; "
        "echo '#KillUserProcesses=no' >/etc/systemd/logind.conf"
    )
    found(ward.doctor(), "logind", CheckVerdict.OK, "go on after their login")
    vm.sh("printf '[Login]\nKillUserProcesses=yes\n' >/etc/systemd/logind.conf.d/x.conf")
    named = found(ward.doctor(), "logind", CheckVerdict.WRONG, "KillUserProcesses=yes", fix="KillExcludeUsers=root pcc")
    assert named.fix
    # A person copies the fix from the report.
    vm.sh(harmless_line(named.fix.command).partition(" && ")[0].replace("sudo ", ""))
    found(ward.doctor(), "logind", CheckVerdict.OK, "go on after their login")


def test_processes_that_an_agent_left_are_reported_and_ended(ward: Clinic) -> None:
    vm = ward.vm
    report = ward.doctor(run_as=vm.run_as)
    for name in ("strays", "processes", "account", "account-walls", "engine-users", "deadline"):
        found(report, name, CheckVerdict.OK)
    vm.ssh(f"sudo -n -u {vm.run_as} env -i setsid sleep 7534 </dev/null >/dev/null 2>&1 &")
    vm.ssh("(env -i setsid sleep 7535 </dev/null >/dev/null 2>&1 &)")
    tag = RunDir("gone", f"{vm.root}/.system/run-state/gone").tag
    vm.ssh(f"(PCCPIPE_STEP={tag}/x-1/ setsid sleep 7536 </dev/null >/dev/null 2>&1 &)")
    vm.ssh(f"mkdir -p {vm.root}/.system/lease && touch {vm.root}/.system/lease/9223372036854775807")
    report = ward.doctor(run_as=vm.run_as)
    words = ("1 process (sleep) of pccrun", "claim to be of run gone", "'9223372036854775807' is not a lease")
    found(report, "strays", CheckVerdict.WRONG, *words, fix="pccpipe gc")
    found(report, "processes", CheckVerdict.WARNING, "sleep 7535", fix="kill ")
    assert "7534" not in report["processes"].words
    assert "7536" not in report["processes"].words
    report = ward.doctor(run_as=vm.run_as, fix=True)
    did = next(each for each in report.fixes if each.command == "pccpipe gc")
    assert did.succeeded
    assert "removed 1 process (sleep) of pccrun" in did.words
    found(report, "strays", CheckVerdict.OK)
    vm.ssh(f"ln -s /home {vm.root}/.system/run-state/claim")
    found(ward.doctor(), "strays", CheckVerdict.WARNING, "not of pccpipe: /home/project/.system/run-state/claim")
    assert [len(vm.pids(f"^sleep {number}")) for number in (7534, 7535, 7536)] == [0, 1, 0]


def test_a_vm_without_a_program_for_deadlines_is_reported(ward: Clinic) -> None:
    vm = ward.vm
    for program in ("curl", "perl", "python3", "docker"):
        vm.sh(f"p=$(command -v {program}) && mv $p $p.off || true")
    found(
        ward.doctor(),
        "deadline",
        CheckVerdict.WRONG,
        "no curl, perl, python3 or docker",
        fix="apt-get install -y curl",
    )


@pytest.mark.parametrize(("options", "verdict", "words"), ENGINES)
def test_an_engine_that_maps_users_is_reported(
    tmp_path: Path, options: tuple[str, ...], verdict: CheckVerdict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bed runs no such engine: the test provides the answer of `info`."""
    project = Project("p", IsolationMode.VM, Vm("127.0.0.1", "u", 9, run_as="pccrun"))
    context = CheckContext(CheckupOptions(project, tmp_path, "http://127.0.0.1:9/v1", ""))
    monkeypatch.setattr(context.engine, "security_options", lambda: options)
    monkeypatch.setattr(context, "service", lambda verb, name: f"service {name} {verb}")
    finding = strays.users(context)
    assert finding.verdict is verdict
    assert words in finding.words
