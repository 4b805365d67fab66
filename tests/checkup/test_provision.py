"""`pccpipe provision`: makes a cloud's bare VM fit for runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shlex
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pccpipe.data_files import data_path
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Run
from tests.cli.command import Done, Folder
from tests.e2e.control import Control, wait_until
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM, init_of

IN_CONTAINER = """\
containers:
  agent: {image: "pcc-runner:latest", network: none}
steps:
  - id: work
    on: container
    container: agent
    run: codex --version
    isolation: required
"""


AS_ACCOUNT = """\
containers:
  agent: {image: "pcc-runner:latest", network: none}
steps:
  - id: who
    on: vm
    run: "id -un; dirname $HOME; ulimit -p 2>/dev/null || ulimit -u"
  - {id: boxed, on: container, container: agent, run: "id -u >x"}
always:
  - {id: clean, remove: workspace}
"""


LATER = """\
steps:
  - id: plant
    on: vm
    run: |
      command -v crontab; command -v at
      echo '* * * * * touch /tmp/by-cron' | crontab - && echo planted
      echo 'touch /tmp/by-at' | at now && echo planted
      true
"""


class Provisioner:
    """Run the commands for one VM."""

    def __init__(self, folder: Path, vm: VM, model: ModelServer) -> None:
        self._folder = Folder(folder)
        self._project = Control(folder, vm).project_file()
        self._model = model

    def provision(self) -> Done:
        return self._do("provision")

    def doctor(self, *arguments: str) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self._do("doctor", "--json", *arguments).stdout)
        return report

    def _do(self, command: str, *arguments: str) -> Done:
        return self._folder.do(
            command,
            *("--project", self._project),
            *("--endpoint", f"{self._model.url}/v1"),
            *arguments,
            env={"OPENAI_API_KEY": self._model.key or ""},
            limit=150,
        )


# It installs about 90 MB of packages and builds an image: 45 s, mostly waiting for network and disk.
@pytest.mark.timeout(240)
def test_a_bare_vm_becomes_fit_stays_unchanged_and_is_fixed(
    bare_vm: VM, model_for: Callable[[VM], ModelServer], tmp_path: Path
) -> None:
    control = Control(tmp_path, bare_vm)
    commands = Provisioner(tmp_path, bare_vm, model_for(bare_vm))
    assert not bare_vm.ssh("command -v docker rsync git node; ls -d /home/project 2>/dev/null", check=False).stdout

    waits = "another apt is running; waiting for it"
    logs = tmp_path / ".system" / "runs"
    with held_apt_lock(bare_vm, until=lambda: any(waits in log.read_text() for log in logs.glob("*/logs/packages*"))):
        first = commands.provision()
    assert first.code == 0, first.stdout + first.stderr
    assert waits in first.stdout
    assert "0 wrong, 1 warning" in first.stdout
    assert "the account pccrun exists" in first.stdout
    assert "run_as: pccrun" in first.stdout
    assert bare_vm.ssh("sudo -n -u pccrun id -un").stdout == "pccrun\n"
    assert bare_vm.ssh("node --version && npm --version && rsync --version && git --version").returncode == 0
    ran = control.run(IN_CONTAINER)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert "codex-cli" in ran.log("work")
    assert ran.step("work")["attempts"][-1]["had"]["place"] == "container"

    control.run_as = True
    ran = control.run(AS_ACCOUNT)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("who").split() == ["pccrun", "/home/project/.system/run-io/" + ran.record.name + "/steps", "8192"]
    assert (
        ran.step("boxed")["attempts"][-1]["had"]["user"]
        == bare_vm.sh("echo $(id -u pccrun):$(id -g pccrun)").stdout.strip()
    )
    no_later_work_of_the_account(bare_vm, control)
    before, began = state_of(bare_vm), time.monotonic()
    second = commands.provision()
    assert second.code == 0, second.stdout + second.stderr
    assert "all is fine" in second.stdout
    assert state_of(bare_vm) == before
    assert time.monotonic() - began < 30

    # If nothing is missing, no step needs root.
    bare_vm.sh("mv /etc/sudoers.d/pcc /root/rule")
    third = commands.provision()
    assert third.code == 0, third.stdout + third.stderr
    assert "cannot become root without a password: steps that install or start something" in third.stdout
    assert "pccrun exists, and pcc can run commands as it" in third.stdout
    bare_vm.sh("mv /root/rule /etc/sudoers.d/pcc")

    fixed_by_the_doctor(bare_vm, commands)


def no_later_work_of_the_account(vm: VM, control: Control) -> None:
    """With the real cron and at, a step leaves nothing that would run after its end."""
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q -o Dpkg::Options::=--force-confold cron at"
    vm.sh(f"{install} >/dev/null 2>&1 && cron && atd")
    ran = control.run(LATER)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("plant").splitlines() == ["/usr/bin/crontab", "/usr/bin/at"]
    for planted in ("crontab - </dev/null", "at now </dev/null"):
        done = vm.sh(f"su {vm.run_as} -s /bin/sh -c {shlex.quote(planted)}", check=False)
        assert "not allowed" in done.stderr or "do not have permission" in done.stderr, done.stderr
    assert vm.sh("ls /var/spool/cron/crontabs; atq").stdout == ""


def fixed_by_the_doctor(vm: VM, commands: Provisioner) -> None:
    """Check what the doctor finds and fixes safely, on a VM with `sudo`."""
    vm.leave_docker_group()
    vm.sh("rm -rf /home/project/.system && chown root: /home/project")
    vm.sh("docker run -d --network none --label pccpipe.run=gone --label pccpipe.deadline=1 bb:latest true")
    vm.sh("docker tag bb:latest pcc-runner:latest")
    vm.stop_docker()

    report = commands.doctor("--fix")

    fixes = {each["name"]: each for each in report["mended"]}
    assert set(fixes) == {"folder", "engine-group", "engine-running", "image", "leftovers"}, report
    assert all(each["succeeded"] for each in fixes.values()), report
    assert fixes["engine-group"]["command"] == "sudo usermod -aG docker pcc"
    # The time of a shell depends on the machine, which may be busy.
    not_asked = {"codex-here", "login-shell"}
    assert [each for each in report["checks"] if each["verdict"] != "ok" and each["name"] not in not_asked] == []
    assert report["exit_status"] == 0, report
    assert commands.doctor("--fix")["mended"] == []


@contextlib.contextmanager
def held_apt_lock(vm: VM, until: Callable[[], bool]) -> Iterator[None]:
    """Hold dpkg's lock, as a new cloud VM's first updates do, until a condition holds."""
    with Path(f"/proc/{init_of(vm.state)}/root/var/lib/dpkg/lock-frontend").open("a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)

        def let_go() -> None:
            try:
                wait_until(until, 120)
            finally:
                fcntl.lockf(lock, fcntl.LOCK_UN)

        letting_go = threading.Thread(target=let_go)
        letting_go.start()
        yield
        letting_go.join()


def state_of(vm: VM) -> str:
    """Return what a run without changes must leave as it is."""
    script = """
        cat /var/log/dpkg.log /etc/group /etc/passwd | sha256sum
        docker images -a --no-trunc -q | sort; docker ps -aq; pgrep -x dockerd
        find /usr/local /etc /home -xdev -newer /bed/ready ! -name .system ! -path '*/.system/*' -printf '%p %C@\\n' |
          sort"""
    return vm.sh(script).stdout


def test_provision_refuses_a_project_without_a_vm(tmp_path: Path) -> None:
    done = Folder(tmp_path).do("provision")
    assert done.code == 2
    assert "has no VM: its isolation_mode is local" in done.stderr


class Pretend:
    """Run a step's script on a made-up system, whose programs only print their arguments."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._os_release = folder / "os-release"
        self.program("sudo", 'shift; exec "$@"')
        for name in ("apt-get", "systemctl", "service", "usermod", "groupadd", "install", "ln", "cp", "chown"):
            self.program(name, f'echo "{name} $*"')

    def release(self, text: str) -> None:
        self._os_release.write_text(textwrap.dedent(text))

    def program(self, name: str, script: str) -> None:
        path = self._folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def step(self, name: str, **replaced: str) -> Done:
        pipeline = load_pipeline(data_path("pipelines", "provision.yaml"))
        body = next(step.body for step in pipeline.steps if step.id == name)
        assert isinstance(body, Run)
        script = body.where.run.source.replace("/etc/os-release", str(self._os_release))
        for text, other in replaced.items():
            script = script.replace(text, other)
        env = {"PATH": f"{self._folder}:/usr/bin:/bin"}
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=env, timeout=30, check=False)
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def pretend(tmp_path: Path) -> Pretend:
    return Pretend(tmp_path)


@pytest.mark.parametrize(
    ("release", "code", "said"),
    [
        ('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n', 0, "Debian 12\n"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04"\n', 0, "Ubuntu 22.04\n"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04"\n', 0, "Ubuntu 24.04\n"),
        ('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian 13"\n', 0, "is untested (tested: Debian 12"),
        (
            'ID=pop\nID_LIKE="ubuntu debian"\nVERSION_ID="1"\nPRETTY_NAME="Pop"\n',
            0,
            "is untested (tested: Debian 12",
        ),
        ('ID=fedora\nVERSION_ID=41\nPRETTY_NAME="Fedora 41"\n', 1, "not Fedora 41: install Docker Engine"),
        ("ID=arch\nPRETTY_NAME=Arch\n", 1, "not Arch:"),
    ],
)
def test_provision_knows_these_systems(pretend: Pretend, release: str, code: int, said: str) -> None:
    pretend.release(release)
    done = pretend.step("system")
    assert done.code == code, done
    assert said in done.stdout + done.stderr


def test_the_init_system_of_the_vm_starts_the_engine(pretend: Pretend, tmp_path: Path) -> None:
    pretend.program("curl", f"[ -e {tmp_path}/started ] && printf OK")
    pretend.program("id", 'case "$*" in -u) echo 1000 ;; -un) echo deploy ;; *) echo deploy ;; esac')
    for name, flag in (("systemctl", "-d"), ("service", "! -d")):
        pretend.program(name, f'echo "{name} $*"; touch {tmp_path}/started')
        done = pretend.step("engine", **{"[ -d /run/systemd/system ]": f"[ {flag} / ]"})
        assert done.code == 0, done
        assert ("systemctl enable --now docker" if name == "systemctl" else "service docker start") in done.stdout
        assert "usermod -aG docker deploy" in done.stdout
        (tmp_path / "started").unlink()
    (tmp_path / "started").touch()
    pretend.program("id", 'case "$*" in -u) echo 1000 ;; -un) echo deploy ;; *) echo deploy docker ;; esac')
    assert pretend.step("engine").stdout == "the engine is running\ndeploy can use it\n"


def test_node_is_the_distributions_where_that_is_new_enough_and_an_old_one_is_not_replaced(pretend: Pretend) -> None:
    pretend.program("node", "echo v18.19.1")
    pretend.program(
        "apt-cache", 'case $2 in nodejs) echo "  Candidate: 22.1.0-1" ;; npm) echo "  Candidate: 9.2" ;; esac'
    )
    done = pretend.step("node")
    assert "apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends nodejs npm" in done.stdout
    pretend.program("apt-cache", 'echo "  Candidate: 18.19.1+dfsg-6ubuntu5"')
    pretend.program("uname", "echo riscv64")
    done = pretend.step("node")
    assert done.code == 1
    assert "no known Node for riscv64" in done.stderr
    pretend.program("node", "echo v22.1.0")
    pretend.program("npm", "true")
    assert pretend.step("node").stdout == "Node v22.1.0 is already installed\n"


@pytest.mark.parametrize(("enabled", "also"), [("Y", " apparmor"), ("N", ""), (None, "")])
def test_a_kernel_with_apparmor_gets_the_parser_without_which_no_container_starts(
    pretend: Pretend, tmp_path: Path, enabled: str | None, also: str
) -> None:
    file = tmp_path / "enabled"
    if enabled:
        file.write_text(f"{enabled}\n")
    pretend.program("dpkg-query", "exit 1")
    done = pretend.step("packages", **{"/sys/module/apparmor/parameters/enabled": str(file)})
    assert done.code == 0, done
    assert f"install -y --no-install-recommends docker.io rsync git ca-certificates curl{also}\n" in done.stdout


def test_an_apt_that_fails_for_good_fails_the_step_and_an_installation_that_was_cut_off_is_finished(
    pretend: Pretend, tmp_path: Path
) -> None:
    pretend.program("dpkg-query", "exit 1")
    pretend.program("apt-get", "echo 'E: Unable to locate package docker.io'; exit 100")
    done = pretend.step("packages")
    assert done.code == 100, done
    assert "Unable to locate package" in done.stdout
    finished = tmp_path / "finished"
    cut_off = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem."
    pretend.program("apt-get", f'[ -e {finished} ] || {{ echo "{cut_off}"; exit 100; }}; echo "apt-get $*"')
    pretend.program("dpkg", f"touch {finished}")
    done = pretend.step("packages")
    assert done.code == 0, done
    assert "an installation was interrupted; finishing it" in done.stdout
    assert "install -y --no-install-recommends docker.io rsync git ca-certificates curl" in done.stdout
