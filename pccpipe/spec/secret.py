"""A secret as the pipeline declares it: where its value comes from, and who gets it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pccpipe.model_api import ModelApi
from pccpipe.spec.expression import Template
from pccpipe.spec.position import Position


class SecretSource(StrEnum):
    ENV = "env"
    FILE = "file"
    COMMAND = "command"
    CALLER = "caller"
    """By a policy alone: the value comes with the call of `run` or `resume`."""


class Via(StrEnum):
    DIRECT = "direct"
    PROXY = "proxy"
    """The value stays in this process; a step gets a token for the proxy instead."""


class Secret(Struct, frozen=True):
    """The source of a secret's value; `source_name` is the variable, the file's path or the command line."""

    name: str
    source: SecretSource
    source_name: str
    position: Position
    via: Via = Via.DIRECT
    api: ModelApi | None = None
    """With `via: proxy`: the API that the key is for."""
    upstream: Template | None = None
    """With `via: proxy`: the base URL of the key's API."""
    allow: tuple[str, ...] = ()
    """With `via: proxy`: the allowed calls, such as `POST /responses`."""
    models: tuple[Template, ...] = ()
    """The allowed models; empty: all."""
    service_tiers: tuple[str, ...] = ()
    hosted_tools: tuple[str, ...] = ()
    """The provider's own tools and further features that the agent may use, by name."""
