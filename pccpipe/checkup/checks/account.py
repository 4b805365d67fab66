"""Checks the account of workspace code: the login can become it, and it has no access to the login's things."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from pccpipe.checkup.check import Check, Finding, Fix, FixPlace, ok, skipped, warning, wrong
from pccpipe.checkup.context import ACCOUNT, CheckContext
from pccpipe.data_files import data_path
from pccpipe.errors import Unavailable
from pccpipe.layout import SystemDir
from pccpipe.machine.answers import IDS, number, number_or_none
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.outcome import Reason
from pccpipe.paste import operands
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Run

PROBE_TIMEOUT = 40.0
MAKE_TIMEOUT = 120.0
PROCESSES = 8192
"""Processes that a step of the account may have, by its own limit."""
NOT_NAMED = "the project file names no run_as"
_VERBS = ("write to its home ", "write to ", "read ", "use ")
"""The words of walls.sh before a path."""
_SOCKETS = ("/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock")


class AccountFacts(Struct, frozen=True):
    """Hold what the probe found.

    Attributes:
        facts: of the account, by name; empty if there is no such account.
        holes: what the account can do and should not: the kind, and words; the worst first.
        refusal: the reason why the login cannot become the account.
    """

    facts: Mapping[str, str]
    holes: tuple[tuple[str, str], ...] = ()
    refusal: str = ""


def account(context: CheckContext) -> Finding:
    """Check that the account exists, belongs to no other user, and that the login can become it."""
    name = _run_as(context)
    if name is None:
        return _without(context)
    login, known = context.machine.facts.user, _known(context, name)
    if not known.facts:
        return wrong(f"no account {name} on the VM: steps with `on: vm` cannot run", _make(context, name))
    uid = number(context.machine.host, f"uid of {name}", known.facts["uid"], IDS)
    if uid in {0, context.machine.facts.uid}:
        return wrong(f"run_as: {name} is {'the login itself' if uid else 'root'}, so nothing isolates workspace code")
    if known.refusal:
        return wrong(f"{login} cannot run commands as {name}: {known.refusal}", _make(context, name))
    return _flaw(context, name, known.facts) or ok(f"{login} can run commands as {name}, which is in no other group")


def walls(context: CheckContext) -> Finding:
    """Check, as the account, that it cannot read, write or signal the login's things, or become the login."""
    name = _run_as(context)
    if name is None:
        return skipped(NOT_NAMED)
    known = _known(context, name)
    if not known.holes:
        return ok(f"{name} cannot read, write or signal the things of {context.machine.facts.user}, or become it")
    words = "; ".join(words for _, words in known.holes[:8])
    more = f"; and {len(known.holes) - 8} more" if len(known.holes) > 8 else ""
    return wrong(f"{name} can {words}{more}", _close(context, name, known.holes[0]))


def limits(context: CheckContext) -> Finding:
    """Check that the account may start the process that ends a step, which has a limit of its own."""
    name = _run_as(context)
    if name is None:
        return skipped(NOT_NAMED)
    limit = number_or_none(_known(context, name).facts.get("limit", ""))
    if limit is None or limit > PROCESSES:
        return ok(f"a step may have {PROCESSES} processes, and {name} more")
    write = f"echo '{name} - nproc {2 * PROCESSES}' | {context.sudo}tee /etc/security/limits.d/pccpipe-{name}.conf"
    words = f"{name} may have {limit} processes: if a step takes them all, ending it needs one more"
    return wrong(words, Fix(write, is_safe=True))


def let_probe_end(context: CheckContext) -> None:
    """Wait until these checks have no process of the account."""
    name = _run_as(context)
    with contextlib.suppress(*UNREACHABLE):
        if name:
            _known(context, name)


def make_account(context: CheckContext, name: str) -> str:
    """Make the account, as provision.yaml does. Raises `Unavailable`."""
    done = context.run(_script(name), MAKE_TIMEOUT)
    if done.code or context.run(f"{become(context, name)} true").code:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Unavailable(Reason.START_REFUSED, f"the account {name} could not be made: {said}")
    context.forget()
    return f"made {name}"


def _script(name: str) -> str:
    """Return the script of provision.yaml for the account."""
    pipeline = load_pipeline(data_path("pipelines", "provision.yaml"))
    body = next(step.body for step in pipeline.steps if step.id == "account")
    assert isinstance(body, Run)
    return f"export ACCOUNT={shlex.quote(name)}\n{body.where.run.source}"


def become(context: CheckContext, name: str) -> str:
    """Return the prefix that runs a command as the account."""
    if context.machine.facts.uid:
        return f"sudo -n -u {name} --"
    return f"setpriv --reuid={name} --regid=$(id -g {name}) --init-groups --"


def _run_as(context: CheckContext) -> str | None:
    return context.vm.run_as if context.vm else None


def _without(context: CheckContext) -> Finding:
    words = f"{NOT_NAMED}: steps with `on: vm` run as {context.machine.facts.user}, and later results are unattested"
    if context.run(f"id {ACCOUNT} && {become(context, ACCOUNT)} true").code:
        return warning(f"{words}; provision makes an account", _make(context, ACCOUNT, is_safe=False))
    file = shlex.quote(str(context.options.project.path or "pccpipe.yaml"))
    return warning(
        f"{words}; the account {ACCOUNT} exists", Fix(f"edit {file}: `run_as: {ACCOUNT}` below `vm:`", FixPlace.HERE)
    )


def _flaw(context: CheckContext, name: str, facts: Mapping[str, str]) -> Finding | None:
    """Return the first fault of the account, if any."""
    groups, sharing = facts.get("groups", ""), facts.get("sharing", "")
    if facts.get("hidden"):
        words = f"/proc is mounted with hidepid: processes of {name} cannot be seen, and no step starts"
        return wrong(words, Fix(f"{context.sudo}mount -o remount,hidepid=0 /proc   # and in /etc/fstab"))
    if groups:
        words = f"{name} is in group {', '.join(groups.split())}: workspace code has the rights of these groups"
        return wrong(words, Fix(f"{context.sudo}usermod -G '' {name}"))
    if sharing:
        words = f"the group of {name}, {facts.get('own')}, is also that of {', '.join(sharing.split()[:5])}"
        return wrong(words, Fix(f"{context.sudo}groupadd {name}; {context.sudo}usermod -g {name} {name}"))
    if facts.get("ranges"):
        words = f"{name} has uids of its own in {facts['ranges']}: processes with them escape the sweep"
        return wrong(words, Fix(f"{context.sudo}sed -i '/^{name}:/d' /etc/subuid /etc/subgid", is_safe=True))
    if facts.get("password") == "P":
        return wrong(f"{name} has a password", Fix(f"{context.sudo}passwd -l {name}", is_safe=True))
    if facts.get("manager", "masked") != "masked":
        unit = f"user@{number(context.machine.host, f'uid of {name}', facts['uid'], IDS)}.service"
        words = f"{unit} can start: units of {name} would outlive its steps"
        return wrong(words, Fix(f"{context.sudo}systemctl mask --now {unit}", is_safe=True))
    if facts.get("unread"):
        words = f"shared_home: {name} cannot read {facts['unread']}/bin: steps do not find its programs"
        return warning(words, Fix(f"ls -ld {shlex.quote(facts['unread'] + '/bin')}", FixPlace.THERE))
    return None


def _close(context: CheckContext, name: str, hole: tuple[str, str]) -> Fix | None:
    """Return the command that closes a hole, if there is a safe one to name."""
    kind, words = hole
    user, sudo, system = context.machine.facts.user, context.sudo, SystemDir.on_vm(context.root)
    # The account named the path: no fix closes or gives to root a path of its choice.
    path = next((words.removeprefix(verb) for verb in _VERBS if words.startswith(verb)), "")
    is_ours = path.startswith((f"{context.root}/", f"{context.machine.facts.home}/"))
    thing = operands(path)
    match kind:
        case "mode" if path == system.states:
            return Fix(f"chmod 700 {thing}", is_safe=True)
        case "mode" if path == system.workspaces:
            return Fix(f"chmod 711 {thing}", is_safe=True)
        case "mode" if path.startswith("/") and words.startswith("write"):
            return Fix(f"{sudo}chmod go-w {thing}")
        case "mode" if is_ours:
            return Fix(f"{sudo}chmod go-rwx {thing}")
        case "home" if path.startswith("/"):
            return Fix(f"{sudo}chown root: {thing}")
        case "engine" if path in {context.engine.socket, *_SOCKETS}:
            return Fix(f"{sudo}chmod o-rw {thing}")
        case "cron" | "at":
            return Fix(f"echo {name} | {sudo}tee -a /etc/{kind}.deny", is_safe=True)
        case "sudo":
            return Fix(f"{sudo}grep -r {name} /etc/sudoers /etc/sudoers.d   # remove the rule that lets it")
        case "su":
            return Fix(f"{sudo}passwd -l {operands(user)}")
        case _:
            return None


def _make(context: CheckContext, name: str, *, is_safe: bool = True) -> Fix:
    if context.machine.facts.uid == 0 or context.run("sudo -n true").code == 0:
        do: Callable[[CheckContext], str] = lambda context: make_account(context, name)  # noqa: E731
        return Fix(context.pccpipe("provision"), FixPlace.HERE, is_safe=is_safe, do=do)
    return Fix(" && ".join(f"({line})" for line in by_administrator(context, name)) + "   # as root")


def by_administrator(context: CheckContext, name: str) -> tuple[str, str]:
    """Return the two commands of provision.yaml for root; their text is not the VM's, which could choose it."""
    facts = context.machine.facts
    login = facts.user if re.fullmatch(r"[A-Za-z0-9_.-]+", facts.user) else f"#{facts.uid}"
    rule, limits = f"/etc/sudoers.d/pccpipe-{name}", f"/etc/security/limits.d/pccpipe-{name}.conf"
    make = f"useradd -r -U -M -d /home/{name} -s /bin/sh -c pccpipe-workspace-code {name}"
    deny = f"for f in cron at; do echo {name} >>/etc/$f.deny; done"
    return (
        f"{make}; {deny}; echo '{name} - nproc {2 * PROCESSES}' >{limits}",
        f"echo '{login} ALL=({name}) NOPASSWD: ALL' >{rule} && chmod 440 {rule} && visudo -c",
    )


def _known(context: CheckContext, name: str) -> AccountFacts:
    return context.once("account", lambda: _probed(context, name))


def _probed(context: CheckContext, name: str) -> AccountFacts:
    facts = context.machine.facts
    settings = {
        "account": name,
        "sudo": "" if facts.uid == 0 else "sudo -n",
        "become": become(context, name),
        "login": facts.user,
        "root": context.root,
        "home": facts.home,
        "shared": "\n".join(context.vm.shared_home if context.vm else ()),
        "socket": context.engine.socket,
    }
    lines = "".join(f"pcc_{key}={shlex.quote(value)}\n" for key, value in settings.items())
    walls = Path(__file__).with_name("walls.sh").read_text()
    script = f"{lines}pcc_walls={shlex.quote(walls)}\n{Path(__file__).with_name('account.sh').read_text()}"
    done = context.run(script, PROBE_TIMEOUT)
    said, words = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()
    if done.code == 3:
        return AccountFacts({})
    before, _, behind = said.partition("walls\n")
    found = {key: rest.strip() for key, _, rest in (line.partition(" ") for line in before.splitlines())}
    holes = []
    for line in behind.splitlines():
        key, _, rest = line.partition(" ")
        if key == "open":
            kind, _, hole = rest.partition(" ")
            holes.append((kind, hole))
        elif key in {"limit", "inside"}:
            found[key] = rest.strip()
    if "uid" not in found:
        raise Unavailable(Reason.START_REFUSED, f"the account {name} cannot be looked at: {words or said}")
    if "inside" not in found:
        return AccountFacts(found, refusal=words.rpartition("\n")[2] or "no answer")
    return AccountFacts(found, tuple(sorted(holes, key=lambda hole: hole[0] == "mode")))


CHECKS = [
    Check("account", account, ("login",), limit=60),
    Check("account-walls", walls, ("account", "folder"), limit=60),
    Check("account-limits", limits, ("account",), limit=60),
]
