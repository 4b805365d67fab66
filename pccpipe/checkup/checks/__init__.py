"""The doctor's checks, one file a group; `all_checks` returns them in order."""

from __future__ import annotations

from collections.abc import Iterator

from pccpipe.checkup.check import Check
from pccpipe.checkup.checks import (
    account,
    agent,
    controller,
    engine,
    leftovers,
    login,
    network,
    pipeline_agents,
    sshd,
    strays,
    system,
)
from pccpipe.outcome import IsolationMode
from pccpipe.spec.model import Pipeline


def all_checks(mode: IsolationMode, pipeline: Pipeline | None = None) -> list[Check]:
    """Return the checks of a project, by the place where its steps run; with a pipeline, also of its agents."""
    return list(_checks(mode, pipeline))


def _checks(mode: IsolationMode, pipeline: Pipeline | None) -> Iterator[Check]:
    has_engine = mode is not IsolationMode.LOCAL
    on_machine = [
        *([*system.PROGRAMS] if mode is IsolationMode.VM else []),
        *system.CHECKS,
        *network.CHECKS,
        *([*engine.CHECKS, *strays.ENGINE] if has_engine else []),
        leftovers.LEFTOVERS,
    ]
    if mode is IsolationMode.VM:
        yield from login.CHECKS
        yield from sshd.CHECKS
        on_machine += [leftovers.LEASE, *account.CHECKS, *strays.STRAYS]
    for check in on_machine:
        yield check.after("login") if mode is IsolationMode.VM else check
    if has_engine:
        yield from agent.IN_CONTAINER
        if pipeline and pipeline_agents.agents_of(pipeline):
            yield pipeline_agents.AGENTS
    yield from controller.CHECKS
    if mode is IsolationMode.VM:
        yield from controller.BESIDE_VM
    yield from agent.HERE
