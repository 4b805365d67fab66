"""What a run is asked for, and who asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from pccpipe.cancel import Cancel
from pccpipe.policy.policy import Policy
from pccpipe.record.events import Event
from pccpipe.secrets.values import Secrets
from pccpipe.session.targets import Folders
from pccpipe.spec.model import Pipeline, Project
from pccpipe.values import Json


class Caller(Struct, frozen=True):
    """What the caller of `run` or `resume` gives for as long as the call takes.

    Attributes:
        on_event: called with each event once it is on disk.
        wait: seconds to wait for a VM that is another run's.
        environ: where secrets of the environment are read.
        secrets: values by name, which no other source is asked for.
        policy: what the pipeline may ask for; None: everything.
    """

    on_event: Callable[[Event], None] | None
    cancel: Cancel
    accept_new_host_key: bool
    wait: float
    environ: Mapping[str, str]
    secrets: Mapping[str, str]
    policy: Policy | None


class Job(Struct, frozen=True):
    """What `run` is asked for, and `resume` knows from the record."""

    run_id: str
    pipeline: Pipeline
    project: Project
    folders: Folders
    inputs: Mapping[str, Json]
    secrets: Secrets
    fallback_allowed: bool
    accepted_fallbacks: tuple[str, ...]
    """The ids of steps that a person let fall back also after an agent's code may have run."""
