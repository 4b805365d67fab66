"""Checks for processes and lease files on the VM that belong to no live run."""

from __future__ import annotations

import shlex

from pccpipe.checkup.check import Check, Finding, Fix, FixPlace, ok, skipped, warning, wrong
from pccpipe.checkup.checks.leftovers import collected, gc_fix
from pccpipe.checkup.context import CheckContext
from pccpipe.gc.decide import ThingKind
from pccpipe.gc.report import RemovalStatus
from pccpipe.gc.unknown import in_words, unknown_processes
from pccpipe.layout import SYSTEM
from pccpipe.machine.answers import number


def strays(context: CheckContext) -> Finding:
    """Report what claims to belong to a run but does not: processes of the account, of other tags, false leases."""
    found = collected(context)
    going = [other.words for other in found.others if other.status is RemovalStatus.PLANNED]
    failed = [other.words for other in found.others if other.status is RemovalStatus.FAILED]
    going += [
        f"processes that claim to be of run {outcome.thing.run_id}, which has no command there"
        for outcome in found.removals
        if outcome.thing.kind is ThingKind.PROCESSES and outcome.status is RemovalStatus.PLANNED
    ]
    if not going and not failed and not found.foreign:
        return ok("each process, lease and file belongs to a run")
    if not going and not failed:
        more = f" and {len(found.foreign) - 3} more" if len(found.foreign) > 3 else ""
        remove = Fix(f"ls -la {shlex.quote(context.root)}/{SYSTEM}/*   # remove what is not needed")
        return warning(f"not of pccpipe: {', '.join(found.foreign[:3])}{more}; gc leaves it", remove)
    return wrong("; ".join([*going, *failed]), gc_fix(context))


def processes(context: CheckContext) -> Finding:
    """Report processes of the login that no session or service started: perhaps commands left by a run."""
    facts = context.machine.facts
    if facts.uid == 0:
        return skipped("the login is root, which runs the system's processes too")
    lines = unknown_processes(context.machine, context.root)
    if not lines:
        return ok(f"each process of {facts.user} belongs to a session, a service or a run")
    words = in_words(facts.user, lines)
    pids = " ".join(str(number(context.machine.host, "PID", line.partition(" ")[0])) for line in lines)
    return warning(
        f"{words}. They can read and change the files of {facts.user}",
        Fix(f"kill {pids}   # if you do not know them: runs without run_as leave such processes", FixPlace.THERE),
    )


def deadline(context: CheckContext) -> Finding:
    """Check that a program on the engine's machine can end a container at its deadline without pccpipe."""
    from pccpipe.docker_api import holder

    way = context.words_of(holder.functions(context.engine.socket) + holder.probe())
    if way:
        return ok(f"without pccpipe, {'root' if way == 'proc' else way} ends a container at its deadline")
    words = "without pccpipe, nothing can end a container at its deadline: there is no curl, perl, python3 or docker"
    install = f"{context.sudo}sh -c '{'apk add' if context.has_apk else 'apt-get update && apt-get install -y'} curl'"
    return wrong(f"{words} to ask the engine with", Fix(install, is_safe=True))


def users(context: CheckContext) -> Finding:
    """Check that a uid names the same user in containers, as the account needs."""
    name = context.vm.run_as if context.vm else None
    options = context.engine.security_options() or ()
    if "rootless" in options:
        if name is None:
            return ok("the engine is rootless: root in its containers is the login, so containers run as root")
        words = f"the engine is rootless: in its containers the uid of {name} is another user (engine_maps_users)"
        return wrong(f"{words}. Use the system's engine, or a project without run_as", Fix(_system_engine(context)))
    if "userns" in options:
        whose = f"containers of {name}" if name else "containers"
        return ok(f"the engine maps users (userns-remap): {whose} ask for the host's users")
    return ok("the engine maps no users")


def _system_engine(context: CheckContext) -> str:
    return f"dockerd-rootless-setuptool.sh uninstall && {context.service('start', 'docker')}"


STRAYS = [Check("strays", strays, ("folder", "account"), limit=90), Check("processes", processes, limit=40)]
ENGINE = [Check("engine-users", users, ("engine-running",)), Check("deadline", deadline, ("engine-running",))]
