"""The machine itself: the programs that runs need, the folder for them, its disk, clock and memory."""

from __future__ import annotations

import shlex
import time

from pccpipe.checkup.check import Check, Finding, Fix, FixPlace, ok, skipped, warning, wrong
from pccpipe.checkup.checks.leftovers import collect_leftovers
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
"""Seconds. TLS certificates and tokens are not valid yet, or not any more."""
LITTLE_MEMORY = 1024 * 1024
"""In kB: less than an agent and a project's tests take."""


def programs(context: CheckContext) -> Finding:
    """What commands that outlive their connection are made of."""
    script = "for p in timeout tail grep stat df find xargs tar; do command -v $p >/dev/null || echo $p; done"
    script += "; [ -r /proc/self/stat ] || echo /proc"
    missing = context.words_of(script).split()
    if missing:
        words = f"there is no {', '.join(missing)}: pccpipe needs Linux with GNU coreutils, grep, findutils and tar"
        return wrong(words, Fix(_install(context, "coreutils grep findutils tar"), is_safe=True))
    return ok("coreutils, grep, findutils, tar, /proc")


def folder(context: CheckContext) -> Finding:
    """Whether the user may write where runs have their folders."""
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
    """Room for workspaces and containers, in bytes and in files."""
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
        return wrong(f"only {', '.join(none)} free: no step begins in a container there", _make_room(context))
    if little:
        return warning(f"only {', '.join(little)} free", _make_room(context))
    # That there are enough files is worth no word.
    room = [each for each in free if " files " not in each]
    return ok(f"{', '.join(room)} free" if room else "df does not say")


def clock(context: CheckContext) -> Finding:
    """Whether it has the time that it is here."""
    before = time.time()
    said = context.words_of("date +%s")
    after = time.time()
    there = number_or_none(said)
    if there is None:
        return skipped(f"date says {cut(said, 100)!r}")
    # It is cut to whole seconds, and was asked at some time between.
    off = there - after if there > after else min(0.0, there + 1 - before)
    if abs(off) < CLOCK_OFF:
        return ok("the same as here")
    words = f"the clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this machine's"
    set_it = "timedatectl set-ntp true" if context.has_systemd else f"date -s @{int(time.time())}"
    # Where nobody keeps the time, to set it by ours is for a person to decide.
    fix = Fix(f"{context.sudo}{set_it}", is_safe=context.has_systemd)
    return wrong(f"{words}: TLS and tokens fail", fix) if abs(off) > CLOCK_WRONG else warning(words, fix)


def memory(context: CheckContext) -> Finding:
    """What an agent, its commands and the project's tests share."""
    lines = context.words_of("grep -E '^(MemTotal|MemAvailable):' /proc/meminfo").splitlines()
    told = {line.split(":")[0]: number_or_none(line.split()[1]) for line in lines if len(line.split()) > 1}
    known = {name: value for name, value in told.items() if value is not None}
    if not known.keys() >= {"MemAvailable", "MemTotal"}:
        return skipped("/proc/meminfo does not say")
    words = f"{_size(known['MemAvailable'])} of {_size(known['MemTotal'])} available"
    if known["MemAvailable"] >= LITTLE_MEMORY:
        return ok(words)
    return warning(f"only {words}: agents may be ended for it", Fix("ps aux --sort=-rss | head"))


def _install(context: CheckContext, packages: str) -> str:
    if context.has_apk:
        return f"{context.sudo}apk add {packages}"
    # The lists first: a new VM of a cloud has none.
    return f"{context.sudo}sh -c 'apt-get update && apt-get -o DPkg::Lock::Timeout=120 install -y {packages}'"


def _make_room(context: CheckContext) -> Fix:
    return Fix(context.pccpipe("gc"), FixPlace.HERE, is_safe=True, do=collect_leftovers)


def _engine_folder(context: CheckContext) -> list[str]:
    """Where the engine keeps images and containers, which may be another disk."""
    if context.options.project.isolation_mode is IsolationMode.LOCAL or context.engine_refusal:
        return []
    folder = context.engine.info().get("DockerRootDir")
    return [folder] if isinstance(folder, str) else []


def _free(context: CheckContext, path: str, option: str) -> int | None:
    # A folder that is still to be made is on its parent's disk.
    up = 'while [ ! -e "$d" ]; do d=$(dirname -- "$d"); done'
    script = f'd={shlex.quote(path)}; {up}; df {option} -- "$d"'
    lines = context.words_of(script).splitlines()
    return df_column(lines[0], lines[-1], "ifree" if "i" in option else "available") if len(lines) > 1 else None


def _files(count: int) -> str:
    return f"{count} files"


def _size(kilobytes: int) -> str:
    return f"{kilobytes / 1024 / 1024:.1f} GB" if kilobytes >= 1024 * 1024 else f"{kilobytes // 1024} MB"


PROGRAMS = [Check("programs", programs)]
"""What only the VM needs: steps on this machine are started by Python."""
CHECKS = [
    Check("folder", folder),
    Check("disk", disk, limit=40),
    Check("clock", clock),
    Check("memory", memory),
]
