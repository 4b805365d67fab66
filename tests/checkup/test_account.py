"""The account of workspace code: provision makes it, and the doctor proves that it can reach nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.checkup.check import CheckVerdict, Finding
from pccpipe.checkup.checks import account
from pccpipe.checkup.context import CheckContext, CheckupOptions
from pccpipe.data_files import data_path
from pccpipe.outcome import IsolationMode
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Run
from pccpipe.spec.project_model import Project, Vm
from tests.cli.command import Done
from tests.testbed.vm import VM

# The bed has neither program: these obey the same file as the real ones.
DENIED = '#!/bin/sh\ngrep -qx "$(id -un)" /etc/%s.deny && { echo "not allowed" >&2; exit 1; }\ncat >/dev/null\n'


class Site:
    """Run the doctor's checks of the account on a new VM."""

    def __init__(self, folder: Path, vm: VM) -> None:
        self.folder = folder
        self.vm = vm
        vm.sh(f"mkdir -p {vm.root} && chown {vm.user}: {vm.root}")

    def look(
        self, name: str, run_as: str | None = "pccrun", user: str = "", shared_home: tuple[str, ...] = ()
    ) -> Finding:
        context = self.context(run_as, user, shared_home)
        try:
            return next(check for check in account.CHECKS if check.name == name).look(context)
        finally:
            context.close()

    def context(self, run_as: str | None, user: str = "", shared_home: tuple[str, ...] = ()) -> CheckContext:
        vm = self.vm
        at = Vm(
            *(vm.host, user or vm.user, vm.port, vm.key, vm.known_hosts, vm.root),
            run_as=run_as,
            shared_home=shared_home,
        )
        return CheckContext(
            CheckupOptions(Project("p", IsolationMode.VM, at), self.folder, "http://127.0.0.1:9/v1", "")
        )

    def make(self, name: str = "pccrun", user: str = "") -> Done:
        """Run provision's step alone."""
        pipeline = load_pipeline(data_path("pipelines", "provision.yaml"))
        body = next(step.body for step in pipeline.steps if step.id == "account")
        assert isinstance(body, Run)
        script = f"export ACCOUNT={name}\n{body.where.run.source}"
        done = self.vm.ssh("exec sh", stdin=script, check=False, user=user or None)
        return Done(done.returncode, done.stdout, done.stderr)

    def program(self, name: str, script: str) -> None:
        self.vm.sh(f"cat >/usr/local/bin/{name} && chmod 755 /usr/local/bin/{name}", stdin=script)


@pytest.fixture
def site(tmp_path: Path, bare_vm: VM) -> Site:
    return Site(tmp_path, bare_vm)


def found(finding: Finding, verdict: CheckVerdict, *words: str, fix: str = "") -> None:
    assert finding.verdict is verdict, finding
    assert all(word in finding.words for word in words), finding
    assert fix in (finding.fix.command if finding.fix else ""), finding


def test_the_account_is_made_once_without_anything_of_the_login(site: Site) -> None:
    vm = site.vm
    vm.sh("echo 'SUBUID' >/etc/subuid; echo www-data >/etc/at.deny; chmod 640 /etc/at.deny")
    made = site.make()
    assert made.code == 0, made
    assert made.stdout.endswith("below vm:\n  run_as: pccrun\n")
    passwd = vm.sh("getent passwd pccrun").stdout
    assert passwd.endswith(":/home/pccrun:/bin/sh\n")
    assert vm.sh("id -Gn pccrun").stdout == "pccrun\n"
    assert vm.sh("passwd -S pccrun").stdout.split()[1] == "L"
    assert vm.sh("cat /etc/subuid").stdout == "SUBUID\n"
    assert (
        vm.sh("stat -c '%U %G %a' /home/pccrun /etc/sudoers.d/pccpipe-pccrun").stdout
        == "root root 755\nroot root 440\n"
    )
    assert vm.sh("cat /etc/sudoers.d/pccpipe-pccrun").stdout == "pcc ALL=(pccrun) NOPASSWD: ALL\n"
    assert vm.sh("cat /etc/cron.deny /etc/at.deny").stdout == "pccrun\nwww-data\npccrun\n"
    assert vm.ssh("sudo -n -u pccrun sh -c 'ulimit -p 2>/dev/null || ulimit -u'").stdout == "16384\n"

    files = "/etc/passwd /etc/group /etc/shadow /etc/sudoers.d/* /etc/*.deny /etc/security/limits.d/* /home/pccrun"
    before = vm.sh(f"stat -c '%n %i %y %z' {files}").stdout
    assert site.make().stdout == "pcc can run commands" + made.stdout.rpartition("pcc can run commands")[2]
    assert vm.sh(f"stat -c '%n %i %y %z' {files}").stdout == before

    # Another login of the same VM gets its own line.
    vm.sh("useradd -m -p '*' -s /bin/bash ops && cp -r /home/pcc/.ssh /home/ops && chown -R ops: /home/ops")
    vm.sh("echo 'ops ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/ops")
    assert site.make(user="ops").code == 0
    assert vm.sh("cat /etc/sudoers.d/pccpipe-pccrun").stdout.count("ALL=(pccrun)") == 2

    # Root needs no rule.
    made = site.make("builds", user="root")
    assert made.code == 0, made
    assert vm.sh("ls /etc/sudoers.d/pccpipe-builds", check=False).returncode
    found(site.look("account", "builds", "root"), CheckVerdict.OK)
    found(site.look("account-limits", "builds", "root"), CheckVerdict.OK)


def test_a_user_with_too_many_rights_is_not_made_the_account(site: Site) -> None:
    for name in ("pcc", "root"):
        refused = site.make(name)
        assert refused.code == 1
        assert "name an account that owns nothing" in refused.stderr
    vm = site.vm
    vm.sh("useradd -m -s /bin/bash -p x -G sudo ann")
    before = vm.sh("getent passwd ann; id ann; passwd -S ann; ls -ld /home/ann").stdout
    made = site.make("ann")
    assert made.code == 0
    assert "ann existed before: its password, groups, shell and home stay unchanged" in made.stdout
    assert vm.sh("getent passwd ann; id ann; passwd -S ann; ls -ld /home/ann").stdout == before
    found(site.look("account", "ann"), CheckVerdict.WRONG, "ann is in group sudo", fix="usermod -G '' ann")
    found(
        site.look("account-walls", "ann"),
        CheckVerdict.WRONG,
        "write to its home /home/ann",
        fix="chown root: /home/ann",
    )


def test_without_root_an_administrator_gets_two_commands(site: Site) -> None:
    vm = site.vm
    vm.sh("rm /etc/sudoers.d/pcc")
    made = site.make()
    assert made.code == 0, made
    assert "results after a step on the VM are unattested" in made.stdout
    found(site.look("account"), CheckVerdict.WRONG, "no account pccrun on the VM", fix="(useradd -r")
    found(
        site.look("account", None),
        CheckVerdict.WARNING,
        "unattested",
        fix="&& (echo 'pcc ALL=(pccrun) NOPASSWD: ALL' >/etc",
    )
    commands = [line for line in made.stdout.splitlines() if line.startswith("  ")]
    assert len(commands) == 2
    for command in commands:
        vm.sh(command)
    assert "pccrun exists, and pcc can run commands as it" in site.make().stdout
    for name in ("account", "account-walls", "account-limits"):
        found(site.look(name), CheckVerdict.OK)


def test_a_project_without_run_as_gets_the_line_for_its_file(site: Site) -> None:
    found(site.look("account", None), CheckVerdict.WARNING, "no run_as", "unattested", fix="pccpipe provision")
    site.make()
    found(
        site.look("account", None),
        CheckVerdict.WARNING,
        "unattested",
        "pccrun exists",
        fix="`run_as: pccrun` below `vm:`",
    )
    found(site.look("account-walls", None), CheckVerdict.SKIPPED)


@pytest.mark.timeout(180)
def test_each_thing_that_the_account_could_reach_is_found(site: Site) -> None:
    vm = site.vm
    site.make()
    system = f"{vm.root}/.system"
    vm.ssh(f"umask 077; mkdir -p {system}/run-state; chmod 755 {system}; mkdir -m 711 {system}/run-workspaces")
    for name in ("crontab", "at"):
        site.program(name, DENIED % name.replace("tab", ""))
    for name in ("account", "account-walls", "account-limits"):
        found(site.look(name), CheckVerdict.OK)

    def opens(undo: str, do: str, name: str, *words: str, fix: str = "") -> None:
        vm.sh(do)
        found(site.look(name), CheckVerdict.WRONG, *words, fix=fix)
        vm.sh(undo)

    walls, number = "account-walls", "sed -i 's/^pccrun:x:%s:/pccrun:x:%s:/' /etc/passwd"
    opens(f"chmod 700 {system}/run-state", f"chmod 755 {system}/run-state", walls, f"read {system}/run-state")
    opens(f"chmod 711 {system}/run-workspaces", f"chmod 733 {system}/run-workspaces", walls, f"write to {system}/run-w")
    opens(f"chmod 755 {vm.root}", f"chmod 777 {vm.root}", walls, f"write to {vm.root}", fix=f"chmod go-w {vm.root}")
    opens("rm /home/pcc/.bashrc", "install -m 666 /dev/null /home/pcc/.bashrc", walls, "write to /home/pcc/.bashrc")
    opens("chmod 755 /usr/local/bin", "chmod 777 /usr/local/bin", walls, "write to /usr/local/bin")
    opens("rm /home/pcc/.netrc", "install -m 644 /etc/hosts /home/pcc/.netrc", walls, "read /home/pcc/.netrc")
    opens("chown root: /home/pccrun", "chown pccrun: /home/pccrun", walls, "write to its home", fix="chown root:")
    rule = "/etc/sudoers.d/evil"
    opens(
        f"rm {rule}",
        f"echo 'pccrun ALL=(pcc) NOPASSWD: ALL' >{rule}",
        walls,
        "become pcc by sudo",
        fix="grep -r pccrun",
    )
    opens(f"rm {rule}", f"echo 'pccrun ALL=(ALL) NOPASSWD: ALL' >{rule}", walls, "become root by sudo")
    opens("passwd -qd pcc; usermod -p '*' pcc", "passwd -qd pcc", walls, "become pcc by su", fix="passwd -l pcc")
    opens("echo pccrun >>/etc/cron.deny", "sed -i /pccrun/d /etc/cron.deny", walls, "use crontab", fix="/etc/cron.deny")
    opens("echo pccrun >>/etc/at.deny", "sed -i /pccrun/d /etc/at.deny", walls, "use at", fix="/etc/at.deny")
    opens(
        "rm -r /run/docker.sock",
        "install -m 666 /dev/null /run/docker.sock",
        walls,
        "run/docker.sock",
        fix="o-rw",
    )
    opens(
        number % (1000, 999),
        number % (999, 1000),
        walls,
        "signal a process of pcc",
    )

    who, proc = "account", "mount -o remount,hidepid=%s /proc"
    opens(proc % "0", proc % "2", who, "/proc is mounted with hidepid", fix="hidepid=0")
    opens(
        number % (1000, 999),
        number % (999, 1000),
        who,
        "pccrun is the login itself",
    )
    opens("gpasswd -d pccrun adm", "gpasswd -a pccrun adm", who, "in group adm", fix="usermod -G '' pccrun")
    opens("usermod -g pccrun pccrun", "usermod -g users pccrun; useradd -g users bob", who, "is also that of bob")
    opens("rm /etc/subuid", "echo pccrun:100000:65536 >/etc/subuid", who, "/etc/subuid", fix="sed -i '/^pccrun:/d'")
    opens("passwd -l pccrun", "usermod -p x pccrun", who, "has a password", fix="passwd -l pccrun")
    opens("chmod 440 /etc/sudoers.d/pcc*", "chmod 666 /etc/sudoers.d/pcc*", who, "cannot run commands as pccrun")
    for name in ("account", "account-walls", "account-limits"):
        found(site.look(name), CheckVerdict.OK)

    vm.sh("echo 'pccrun - nproc 4096' >/etc/security/limits.d/pccpipe-pccrun.conf")
    found(
        site.look("account-limits"),
        CheckVerdict.WRONG,
        "4096 processes: if a step takes them all",
        fix="nproc 16384",
    )


def test_a_folder_of_tools_that_the_account_cannot_read_is_named(site: Site) -> None:
    site.make()
    site.vm.sh("install -d '/opt/our tools/bin'; install -d -m 700 /opt/closed /opt/closed/bin")
    found(site.look("account", shared_home=("/opt/our tools",)), CheckVerdict.OK)
    for folder in ("/opt/closed", "/opt/gone"):
        shared = ("/opt/our tools", folder)
        found(
            site.look("account", shared_home=shared),
            CheckVerdict.WARNING,
            f"shared_home: pccrun cannot read {folder}/bin",
        )


def test_with_systemd_the_accounts_manager_is_masked(site: Site) -> None:
    """The bed has no systemd: the test's two programs print their arguments."""
    vm = site.vm
    vm.sh("mkdir -p /run/systemd/system")
    site.program("loginctl", '#!/bin/sh\necho "loginctl $*" >>/tmp/asked\n')
    site.program(
        "systemctl",
        '#!/bin/sh\necho "systemctl $*" >>/tmp/asked\n'
        'case "$1" in is-enabled) readlink /etc/systemd/system/$2 >/dev/null && echo masked || echo static ;;\n'
        "mask) mkdir -p /etc/systemd/system && ln -s /dev/null /etc/systemd/system/$3 ;; esac\n",
    )
    vm.sh("useradd -r -M -s /bin/sh pccrun && echo 'pcc ALL=(pccrun) NOPASSWD: ALL' >/etc/sudoers.d/pccpipe-pccrun")
    found(site.look("account"), CheckVerdict.WRONG, "service can start", fix="systemctl mask --now user@")
    assert site.make().code == 0
    asked = vm.sh("cat /tmp/asked").stdout
    assert "loginctl disable-linger pccrun" in asked
    assert "systemctl mask --now user@" in asked
    found(site.look("account"), CheckVerdict.OK)


def test_the_doctor_makes_a_missing_account(site: Site) -> None:
    context = site.context("builds")
    try:
        finding = account.account(context)
        assert finding.fix
        assert finding.fix.is_safe
        assert finding.fix.do
        assert finding.fix.do(context) == "made builds"
        found(account.account(context), CheckVerdict.OK, "pcc can run commands as builds")
    finally:
        context.close()
