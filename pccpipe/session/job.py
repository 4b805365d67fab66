"""The job of a run, and its caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from pccpipe.cancel import Cancel
from pccpipe.policy.policy import Policy
from pccpipe.record.events import Event
from pccpipe.secrets.values import Secrets
from pccpipe.session.targets import Folders
from pccpipe.spec.model import Pipeline
from pccpipe.spec.project_model import Project
from pccpipe.values import Json


class Caller(Struct, frozen=True):
    """The caller of `run` or `resume`, with its wishes for the time of the call.

    Attributes:
        on_event: called with each event once it is on disk.
        wait: seconds to wait while another run has the VM.
        environ: where secrets of the environment are read.
        secrets: values by name, which no other source is asked for.
        upstreams: base URLs of models' APIs, by the names of their secrets.
        policy: what the pipeline may ask for; None: everything.
    """

    on_event: Callable[[Event], None] | None
    cancel: Cancel
    accept_new_host_key: bool
    wait: float
    environ: Mapping[str, str]
    secrets: Mapping[str, str]
    upstreams: Mapping[str, str]
    policy: Policy | None


class Job(Struct, frozen=True):
    """The arguments of `run`; `resume` reads them from the record."""

    run_id: str
    pipeline: Pipeline
    project: Project
    folders: Folders
    inputs: Mapping[str, Json]
    secrets: Secrets
    fallback_allowed: bool
    accepted_fallbacks: tuple[str, ...]
    """The ids of steps that a person allowed to fall back even after an agent's code may have run."""
