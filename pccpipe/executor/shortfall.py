"""Compare a container with its settings: engines discard limits that their kernel lacks, without an error."""

from __future__ import annotations

from collections.abc import Iterator

from pccpipe.target import ContainerSettings, Isolation


def shortfalls(asked: ContainerSettings, had: Isolation) -> Iterator[str]:
    """Yield each way in which a container has less isolation than requested."""
    for name, wanted, given in (
        ("memory", asked.memory, had.memory),
        ("cpus", asked.cpus, had.cpus),
        ("pids", asked.pids, had.pids),
    ):
        if wanted is not None and (given is None or given > wanted):
            yield f"{name} {'unlimited' if given is None else given} instead of {wanted}"
    for name, chosen, got in (("network", asked.network, had.network), ("runtime", asked.runtime, had.runtime)):
        if chosen is not None and got != chosen:
            yield f"{name} {got or 'unknown'} instead of {chosen}"
    if asked.read_only_workspace and not had.read_only_workspace:
        yield "a writable workspace"
    if asked.read_only_root and not had.read_only_root:
        yield "a writable root file system"
    if more := [name for name in had.capabilities or () if name not in asked.capabilities]:
        yield f"capabilities {', '.join(more)}"
    if not asked.new_privileges and "no-new-privileges" not in had.security:
        yield "no `no-new-privileges`"
    if asked.seccomp and "seccomp=none" in had.security:
        yield "no filter of system calls (this engine has none)"
    if others := [name for name in had.shared if name != "network" or asked.network != "host"]:
        yield f"the host's {', '.join(others)}"
