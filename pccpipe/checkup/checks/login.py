"""Checks the way onto the VM: sshd, its host key, the user, the time of its login shell, sudo."""

from __future__ import annotations

import shlex
import time

from pccpipe.checkup.check import Check, Finding, Fix, FixPlace, ok, skipped, warning, wrong
from pccpipe.checkup.context import CheckContext
from pccpipe.errors import Unavailable
from pccpipe.layout import SystemDir
from pccpipe.machine.logind import ends_logins, spare_login
from pccpipe.machine.provisioned import read_provisioned
from pccpipe.machine.script import read_to_end
from pccpipe.machine.startup import changed, startup_files
from pccpipe.outcome import Reason
from pccpipe.paste import operands
from pccpipe.spec.project_model import Vm

HOST_KEY = {Reason.SSH_HOST_KEY_UNKNOWN, Reason.SSH_HOST_KEY_CHANGED}
USER = {Reason.SSH_AUTH_FAILED, Reason.SSH_SESSION_REFUSED}
SLOW_SHELL = 0.05
"""Seconds, which each command takes again."""


def ssh(context: CheckContext) -> Finding:
    """Check that sshd answers."""
    vm, refusal = _vm(context), context.login_refusal
    where = f"{vm.external_ip} port {vm.port}"
    if refusal is None or refusal.reason in HOST_KEY | USER:
        return ok(f"{where} answers")
    words = _words(refusal)
    match refusal.reason:
        case Reason.SSH_REFUSED:
            words = f"{refusal.words}. The VM runs, but nothing listens on that port (`vm.port`)"
            return wrong(words, Fix("sudo systemctl enable --now ssh"))
        case Reason.SSH_NAME_UNKNOWN | Reason.SSH_UNREACHABLE:
            return wrong(f"{words}. Check that the VM runs, that `vm.external_ip` is its address, and its firewall")
        case _:
            return wrong(words)


def host_key(context: CheckContext) -> Finding:
    """Check the VM's host key against known_hosts."""
    vm, refusal = _vm(context), context.login_refusal
    known = shlex.quote(str(vm.known_hosts)) if vm.known_hosts else "~/.ssh/known_hosts"
    if refusal is None or refusal.reason not in HOST_KEY:
        return ok(f"the host key is in {known}")
    if vm.proxy_jump:
        # The words and the hint say whether the key is the jump host's.
        return wrong(f"{refusal.words}. {refusal.hint}")
    port = "" if vm.port == 22 else f"-p {vm.port} "
    scan = f"ssh-keyscan {port}{operands(vm.external_ip)} >>{known}"
    if refusal.reason is Reason.SSH_HOST_KEY_UNKNOWN:
        words = f"{refusal.words}. Compare it with the VM's own key (ssh-keygen -lf, on its console) before you accept"
        return wrong(words, Fix(scan, FixPlace.HERE))
    name = vm.external_ip if vm.port == 22 else f"[{vm.external_ip}]:{vm.port}"
    words = f"{refusal.words}. If the VM is not a new one, an attacker may be listening in"
    return wrong(words, Fix(f"ssh-keygen -R {shlex.quote(name)} -f {known} && {scan}", FixPlace.HERE))


def login(context: CheckContext) -> Finding:
    """Check that the user may log in, and gets a shell."""
    vm, refusal = _vm(context), context.login_refusal
    if refusal is None:
        facts = context.machine.facts
        return ok(f"user {facts.user} ({facts.uid}:{facts.gid}), {facts.system}")
    if refusal.reason is Reason.SSH_SESSION_REFUSED:
        # nologin and false say so; a forced command has words of its own.
        no_shell = any(words in refusal.words for words in ("gave no shell: This account", "gave no shell: exit code"))
        return wrong(_words(refusal), Fix(f"sudo usermod -s /bin/bash {operands(vm.user)}") if no_shell else None)
    fix = None
    if vm.key_path and not vm.proxy_jump:
        port = "" if vm.port == 22 else f"-p {vm.port} "
        user = operands(f"{vm.user}@{vm.external_ip}")
        fix = Fix(f"ssh-copy-id -i {shlex.quote(str(vm.key_path))} {port}{user}", FixPlace.HERE)
    return wrong(_words(refusal), fix)


def login_shell(context: CheckContext) -> Finding:
    """Measure how long the login's shell takes to start, by the VM's own clock."""
    # Measured until the program starts: after that it waits for the network.
    script = "read -r me </proc/self/stat; getconf CLK_TCK; echo $pcc_ready ${me##*) }"
    deadline = time.monotonic() + 15
    process = context.machine.popen(script)
    try:
        process.settimeout(15)
        process.shutdown_write()
        said = read_to_end(process, deadline)[0].decode(errors="replace")
    finally:
        process.close()
    try:
        ticks, line = said.strip().splitlines()
        now, *fields = line.split()
        seconds = float(now) - int(fields[19]) / int(ticks)
    except (ValueError, IndexError, ArithmeticError):
        return skipped("the VM does not say when it started")
    if not 0 <= seconds < 60:
        # A container's uptime is not its kernel's.
        return skipped("the VM does not say when it started")
    took = f"the login's shell is ready after {1000 * seconds:.0f} ms"
    if seconds <= SLOW_SHELL:
        return ok(took)
    words = f"{took}, and each command waits for it: start-up files (~/.bashrc) should end at once without a terminal"
    return warning(words, Fix("sed -i '1i case $- in *i*) ;; *) return ;; esac' ~/.bashrc"))


def startup(context: CheckContext) -> Finding:
    """Check that the files which the login's shell and sshd obey have not changed since `provision`."""
    known = read_provisioned(context.machine, context.root)
    record = SystemDir.on_vm(context.root).provisioned
    accept = Fix(f"rm {shlex.quote(record)}   # if you made the change; then pccpipe provision")
    if known is None:
        return skipped(f"there is no {record} to compare with: provision writes it")
    if known.problem:
        return wrong(f"{record}: {known.problem}", accept)
    words = changed(known.startup_files, startup_files(context.machine))
    if not words:
        return ok("the login's start-up files have not changed since provision")
    return warning(f"since provision: {', '.join(words)}. Each login obeys them: read them", accept)


def logind(context: CheckContext) -> Finding:
    """Check that logind spares what a login leaves: commands and a container's deadline outlive their login."""
    if not context.has_systemd:
        return ok("no logind")
    if not ends_logins(context.machine):
        return ok("processes go on after their login")
    user = context.machine.facts.user
    words = f"logind ends all processes of {user} at logout (KillUserProcesses=yes): a dropped connection ends its"
    words += " command, and leaves a container without its deadline"
    return wrong(words, Fix(spare_login(context.machine)))


def sudo(context: CheckContext) -> Finding:
    """Check that the user may become root without a password: for `provision`, not for runs."""
    facts = context.machine.facts
    if facts.uid == 0:
        return warning("runs log in as root: an agent's tests on the VM run as root")
    done = context.run("command -v sudo >/dev/null || { echo there is no sudo >&2; exit 1; }; sudo -n true")
    if done.code == 0:
        return ok(f"{facts.user} may become root without a password")
    said = done.stderr.decode(errors="replace").strip()
    # No fix makes the login root for good: a program that an agent leaves on the VM might use it.
    words = f"{facts.user} may not become root without a password ({said}); runs don't need that"
    return warning(f"{words}. For --fix and provision, name a login that may (`user` of the VM)")


def _vm(context: CheckContext) -> Vm:
    assert context.vm is not None
    return context.vm


def _words(refusal: Unavailable) -> str:
    return f"{refusal.words}; {refusal.hint}" if refusal.hint else refusal.words


CHECKS = [
    Check("ssh", ssh, limit=60),
    Check("host-key", host_key, ("ssh",)),
    Check("login", login, ("host-key",)),
    Check("login-shell", login_shell, ("login",)),
    Check("startup-files", startup, ("login",), limit=40),
    Check("logind", logind, ("login",)),
    Check("sudo", sudo, ("login",)),
]
