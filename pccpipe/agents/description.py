"""The content of an agent file: how pccpipe runs an agent program."""

from __future__ import annotations

from msgspec import Struct

from pccpipe.agents.rules import EventRule, ResultRule
from pccpipe.model_api import ModelApi


class SessionFiles(Struct, frozen=True):
    """The files of a conversation."""

    folder: str
    """Relative to HOME."""
    files: tuple[str, ...]
    """Patterns in the folder; `**` is any number of folders."""


class AgentDescription(Struct, frozen=True):
    """An agent file.

    The scripts are shell text for `sh`. They find `PCC_PROMPT`, `PCC_SCHEMA`, `PCC_RESULT`, `PCC_MODEL`, `PCC_SESSION`,
    `PCC_KEEPS_SESSION`, `PCC_KEY`, `PCC_PROXY_URL`, `PCC_READ_ONLY` and `PCC_TRUSTED`, each empty
    where it does not apply.
    """

    name: str
    program: str
    api: ModelApi
    in_container: str
    before: str = ""
    """Runs before each of the two scripts, in the same shell."""
    outside: str = ""
    """Runs the agent with its own sandbox on; empty: it runs only in containers."""
    description: str = ""
    version_command: str = ""
    key: str = ""
    """The usual name of the secret with its key."""
    has_result_file: bool = True
    """It writes its result to `PCC_RESULT`."""
    result: ResultRule | None = None
    """The place of its result in its output; without it and without a file, the JSON of its last message is it."""
    session: SessionFiles | None = None
    """None: it cannot continue a conversation."""
    hide: tuple[str, ...] = ()
    """Names in the workspace that configure the agent, and that no option of it switches off."""
    events: tuple[EventRule, ...] = ()
    """Rules that read its stdout."""
    usage_adds_up: bool = False
    """Its figures count the whole conversation."""
