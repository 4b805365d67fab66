"""Checks the machine itself: programs, the folder for runs, disk, clock and memory."""

from __future__ import annotations

import shlex
import time

from pccpipe.checkup.check import Check, Finding, Fix, ok, skipped, warning, wrong
from pccpipe.checkup.checks.leftovers import gc_fix
from pccpipe.checkup.context import CheckContext
from pccpipe.layout import SYSTEM
from pccpipe.machine.answers import df_column, number_or_none
from pccpipe.outcome import IsolationMode
from pccpipe.targets.container_files import LEAST_FREE, LEAST_INODES
from pccpipe.values import cut

LITTLE_DISK = 2 * 1024 * 1024
"""In kB: an image and a few workspaces."""
FEW_INODES = 50_000
CLOCK_OFF = 5.0
CLOCK_WRONG = 60.0
"""Seconds, from which on TLS certificates and tokens are invalid."""
LITTLE_MEMORY = 1024 * 1024
"""In kB: an agent and a project's tests need more."""


def programs(context: CheckContext) -> Finding:
    """Check for the programs that run commands on the VM."""
    script = "for p in timeout tail grep stat df find xargs tar; do command -v $p >/dev/null || echo $p; done"
    script += "; [ -r /proc/self/stat ] || echo /proc"
    missing = context.words_of(script).split()
    if missing:
        words = f"there is no {', '.join(missing)}: pccpipe needs Linux with GNU coreutils, grep, findutils and tar"
        return wrong(words, Fix(_install(context, "coreutils grep findutils tar"), is_safe=True))
    return ok("coreutils, grep, findutils, tar, /proc")


def folder(context: CheckContext) -> Finding:
    """Check that the user may write where runs have their folders."""
    facts, root = context.machine.facts, shlex.quote(context.root)
    script = (
        f'd={root}/{SYSTEM}; [ -d "$d" ] || d={root}; [ -d "$d" ] && [ -w "$d" ] && [ -x "$d" ] && exit; '
        'ls -ld "$d" 2>&1; exit 1'
    )
    done = context.run(script)
    if done.code == 0:
        return ok(f"{context.root} can be written")
    said = done.stdout.decode(errors="replace").strip()
    make = f"{context.sudo}install -d -o {facts.uid} -g {facts.gid} {root}"
    owner = f"{context.sudo}chown {facts.uid}:{facts.gid} {root}/{SYSTEM}"
    fix = owner if SYSTEM in said else make
    return wrong(f"{context.root} cannot be written by {facts.user}: {said}", Fix(fix, is_safe=True))


def disk(context: CheckContext) -> Finding:
    """Check the room for workspaces and containers, in bytes and in files."""
    free: list[str] = []
    little: list[str] = []
    none: list[str] = []
    for path in [context.root, *_engine_folder(context)]:
        for left, least, enough, words in (
            (_free(context, path, "-Pk"), LEAST_FREE, LITTLE_DISK, _size),
            (_free(context, path, "-Pi"), LEAST_INODES, FEW_INODES, _files),
        ):
            if left is not None:
                where = none if left < least else little if left < enough else free
                where.append(f"{words(left)} for {path}")
    if none:
        return wrong(f"only {', '.join(none)} free: no step starts in a container there", gc_fix(context))
    if little:
        return warning(f"only {', '.join(little)} free", gc_fix(context))
    # Enough files are not worth a word.
    room = [each for each in free if " files " not in each]
    return ok(f"{', '.join(room)} free" if room else "df does not say")


def clock(context: CheckContext) -> Finding:
    """Compare the machine's clock with this machine's."""
    before = time.time()
    said = context.words_of("date +%s")
    after = time.time()
    there = number_or_none(said)
    if there is None:
        return skipped(f"date says {cut(said, 100)!r}")
    # `date` cuts to whole seconds, and ran at some time between.
    off = there - after if there > after else min(0.0, there + 1 - before)
    if abs(off) < CLOCK_OFF:
        return ok("the same as on this machine")
    words = f"the clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this machine's"
    set_it = "timedatectl set-ntp true" if context.has_systemd else f"date -s @{int(time.time())}"
    # Without a time service, a person decides whether to set the clock by this machine's.
    fix = Fix(f"{context.sudo}{set_it}", is_safe=context.has_systemd)
    return wrong(f"{words}: TLS and tokens fail", fix) if abs(off) > CLOCK_WRONG else warning(words, fix)


def memory(context: CheckContext) -> Finding:
    """Check the memory that an agent, its commands and the project's tests share."""
    lines = context.words_of("grep -E '^(MemTotal|MemAvailable):' /proc/meminfo").splitlines()
    values = {line.split(":")[0]: number_or_none(line.split()[1]) for line in lines if len(line.split()) > 1}
    known = {name: value for name, value in values.items() if value is not None}
    if not known.keys() >= {"MemAvailable", "MemTotal"}:
        return skipped("/proc/meminfo does not say")
    words = f"{_size(known['MemAvailable'])} of {_size(known['MemTotal'])} available"
    if known["MemAvailable"] >= LITTLE_MEMORY:
        return ok(words)
    return warning(f"only {words}: the kernel may kill agents", Fix("ps aux --sort=-rss | head"))


def _install(context: CheckContext, packages: str) -> str:
    if context.has_apk:
        return f"{context.sudo}apk add {packages}"
    # The package lists first: a cloud's new VM has none.
    return f"{context.sudo}sh -c 'apt-get update && apt-get -o DPkg::Lock::Timeout=120 install -y {packages}'"


def _engine_folder(context: CheckContext) -> list[str]:
    """Return the engine's folder, which may be on another disk."""
    if context.options.project.isolation_mode is IsolationMode.LOCAL or context.engine_refusal:
        return []
    folder = context.engine.info().get("DockerRootDir")
    return [folder] if isinstance(folder, str) else []


def _free(context: CheckContext, path: str, option: str) -> int | None:
    # A folder that does not exist yet will be on its parent's disk.
    up = 'while [ ! -e "$d" ]; do d=$(dirname -- "$d"); done'
    script = f'd={shlex.quote(path)}; {up}; df {option} -- "$d"'
    lines = context.words_of(script).splitlines()
    return df_column(lines[0], lines[-1], "ifree" if "i" in option else "available") if len(lines) > 1 else None


def _files(count: int) -> str:
    return f"{count} files"


def _size(kilobytes: int) -> str:
    return f"{kilobytes / 1024 / 1024:.1f} GB" if kilobytes >= 1024 * 1024 else f"{kilobytes // 1024} MB"


PROGRAMS = [Check("programs", programs)]
"""Only for the VM: Python starts the steps on this machine."""
CHECKS = [
    Check("folder", folder),
    Check("disk", disk, limit=40),
    Check("clock", clock),
    Check("memory", memory),
]
