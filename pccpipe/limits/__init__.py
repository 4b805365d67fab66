"""Lists every limit on what a stranger's data may become: in memory, on disk, in a log, or as work.

A stranger is an agent, a repository, a VM and its engine, a model's API, or the author of a pipeline: a file for each.
A limit has its figure, its reason, and the place where a user changes it; docs/limits.md is made from this list.
Data that exceeds one gives one message and one code, and costs at most `MARGIN` of memory beyond the limit itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import ModuleType

from pccpipe.limits import agent, api, author, machine, network, repository
from pccpipe.limits.agent import *  # noqa: F403
from pccpipe.limits.api import *  # noqa: F403
from pccpipe.limits.author import *  # noqa: F403
from pccpipe.limits.limit import Limit as Limit
from pccpipe.limits.limit import Unit as Unit
from pccpipe.limits.machine import *  # noqa: F403
from pccpipe.limits.network import *  # noqa: F403
from pccpipe.limits.repository import *  # noqa: F403

MARGIN = 64 << 20
"""Bytes of memory that reading too much may cost beyond the limit itself."""
PAUSE = 0.05
"""Seconds for which work on a stranger's data may hold the interpreter lock, at most."""


class Sender(StrEnum):
    """The sender of the data that a limit bounds."""

    AUTHOR = "The author of a pipeline"
    AGENT = "An agent, or another command of a step"
    REPOSITORY = "A repository, and a workspace with what was made in it"
    MACHINE = "A VM, its sshd and its engine"
    API = "A model's API, or another server that the proxy asks"
    NETWORK = "Any program that connects to the proxy"


def _limits_of(module: ModuleType) -> tuple[Limit, ...]:
    return tuple(value for value in vars(module).values() if isinstance(value, Limit))


SENT_BY: Mapping[Sender, tuple[Limit, ...]] = {
    Sender.AUTHOR: _limits_of(author),
    Sender.AGENT: _limits_of(agent),
    Sender.REPOSITORY: _limits_of(repository),
    Sender.MACHINE: _limits_of(machine),
    Sender.API: _limits_of(api),
    Sender.NETWORK: _limits_of(network),
}
ALL: tuple[Limit, ...] = tuple(limit for group in SENT_BY.values() for limit in group)
