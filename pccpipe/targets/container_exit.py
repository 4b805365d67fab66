"""How a container's command ended, by what the engine says of the container and of itself."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from pccpipe.detached.ended import signal_name
from pccpipe.detached.programs import RunDir
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.isolation import part
from pccpipe.docker_api.settings import BEGUN_FILE, LIMIT_LABEL
from pccpipe.errors import Lost, Unavailable
from pccpipe.machine.answers import number_or_none
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.outcome import Reason
from pccpipe.target import Exit
from pccpipe.values import Json

PID_FILE = "/var/run/docker.pid"
ENDED_BY_SIGNAL = frozenset({128 + signal.SIGTERM, 128 + signal.SIGKILL})
ENDED_WITH_THE_ENGINE = ENDED_BY_SIGNAL | {255}
"""Exit codes of a container whose engine stops. The engine writes 255 when it starts and finds the container dead."""


class ContainerRef(Struct, frozen=True):
    """A container, its engine, and the place of its command's files."""

    engine: DockerEngine
    run_dir: RunDir
    command_id: str
    container: str
    name: str
    litter: list[str]
    """The ids of commands whose files the target may remove, with its next call there."""

    @property
    def host(self) -> str:
        return self.engine.machine.host

    def state(self) -> dict[str, Json]:
        """Return the engine's `State` of it; empty if the engine does not know it. Raises `UNREACHABLE` errors."""
        return part(self.engine.inspect(self.container) or {}, "State")

    def has_begun(self) -> bool:
        """Say whether its command began, by the file that it leaves before that. Raises `UNREACHABLE` errors."""
        file = f"{self.run_dir.file_of(self.command_id, 'out')}/{BEGUN_FILE}"
        return self.engine.machine.run(f"test -e {shlex.quote(file)}").code == 0

    def remove_quietly(self) -> None:
        """Remove it, or leave that to the target's `close`, which goes by the run's label."""
        with contextlib.suppress(*UNREACHABLE):
            self.engine.remove(self.container)


def exit_of(ref: ContainerRef, code: int, *, was_away: bool, was_stopped: bool) -> Exit:
    """Return the end of a container whose output was read.

    Raises `Lost` if the engine's end may have ended it, ConnectionError if the caller should ask the engine again.

    Args:
        was_away: whether the connection broke while the container ran.
        was_stopped: whether pccpipe asked it to stop.
    """
    found: dict[str, Json] = {}
    began_again = False
    may_be_the_engines = code in ENDED_WITH_THE_ENGINE and not was_stopped
    try:
        if code or was_away:
            found = ref.engine.inspect(ref.container) or {}
        if may_be_the_engines or was_away:
            began_again = _engine_began_after(ref, part(found, "State").get("StartedAt"))
    except UNREACHABLE as error:
        if may_be_the_engines:
            _check_engine_stopped(ref, error)
    out_of_memory, timed_out = part(found, "State").get("OOMKilled") is True, reached_limit(found, code)
    if began_again and may_be_the_engines and not out_of_memory and not timed_out:
        raise _lost(ref, f"the engine, or all of {ref.host}, was restarted")
    return Exit(
        code,
        signal_name(code),
        out_of_memory=out_of_memory,
        timed_out=timed_out,
        output_lost=began_again and was_away,
    )


def reached_limit(found: Mapping[str, Json], code: int) -> bool:
    """Say whether a container ran for as long as it may, by the engine's own account."""
    match found:
        case {
            "Created": str(made),
            "State": {"StartedAt": str(began), "FinishedAt": str(ended)},
            "Config": {"Labels": {**labels}},
        }:
            limit = number_or_none(labels.get(LIMIT_LABEL))
            # A busy engine records a start seconds late, so the limit would end before it.
            since = made if code in ENDED_BY_SIGNAL else began
            try:
                seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(since)).total_seconds()
            except (ValueError, TypeError, OverflowError):
                return False
            return limit is not None and seconds >= limit
        case _:
            return False


def _check_engine_stopped(ref: ContainerRef, error: Exception) -> None:
    """Raise `Lost` if the engine is gone as soon as the container is: an engine that stops ends its containers.

    Such an engine takes no connections from then on. Where systemd takes them for it, or the machine is away, this
    raises ConnectionError, and the caller asks again.
    """
    if isinstance(error, Unavailable) and error.reason in (Reason.ENGINE_MISSING, Reason.ENGINE_STOPPED):
        raise _lost(ref, f"the engine of {ref.host} was stopped") from error
    raise ConnectionResetError(str(error)) from error


def _lost(ref: ContainerRef, words: str) -> Lost:
    return Lost(f"{words} while the container {ref.name} ran, so how its command would have ended is unknown")


def _engine_began_after(ref: ContainerRef, moment: object) -> bool:
    """Say whether the engine started after the container did, by the files that it makes at its start."""
    files = shlex.join(filter(None, (PID_FILE, ref.engine.socket)))
    said = ref.engine.machine.run(f"stat -c %.3Y {files} 2>/dev/null | tr -d . | sort -n | tail -n 1").stdout
    milliseconds = number_or_none(said.strip())
    try:
        return milliseconds is not None and milliseconds > datetime.fromisoformat(str(moment)).timestamp() * 1000
    except (ValueError, OverflowError):
        return False
