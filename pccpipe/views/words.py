"""Words for people, beside the codes for programs: reasons, cancels, the next command."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

from pccpipe.layout import RUNS
from pccpipe.outcome import Outcome, Reason
from pccpipe.paste import operands
from pccpipe.record.state import RunState
from pccpipe.record.step_state import StepState
from pccpipe.views.text import harmless_line
from pccpipe.words import duration

FINE = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED})
REASONS: dict[Reason, str] = {
    Reason.SSH_NAME_UNKNOWN: "the VM's name is unknown",
    Reason.SSH_REFUSED: "the VM refused the connection",
    Reason.SSH_UNREACHABLE: "the VM did not answer",
    Reason.SSH_CLOSED: "the connection to the VM was closed",
    Reason.SSH_INCOMPATIBLE: "the VM's SSH server shares no algorithm with this machine",
    Reason.SSH_AUTH_FAILED: "the VM refused the login",
    Reason.SSH_HOST_KEY_UNKNOWN: "the VM's host key is unknown",
    Reason.SSH_HOST_KEY_CHANGED: "the VM's host key changed",
    Reason.VM_BUSY: "another run has the VM",
    Reason.FENCED: "the run lost the VM to another process",
    Reason.SSH_SESSION_REFUSED: "the VM opened no session",
    Reason.ENGINE_MISSING: "there is no Docker Engine",
    Reason.ENGINE_STOPPED: "the Docker Engine does not run",
    Reason.ENGINE_PERMISSION_DENIED: "no permission to use the Docker Engine",
    Reason.ENGINE_NOT_ANSWERING: "the Docker Engine does not answer",
    Reason.ENGINE_ERROR: "the Docker Engine reports an error",
    Reason.IMAGE_MISSING: "the image is missing",
    Reason.NAME_TAKEN: "the container's name is taken",
    Reason.CREATE_REFUSED: "the engine refused to create the container",
    Reason.START_REFUSED: "the engine refused to start the container",
    Reason.RUNTIME_MISSING: "the container's runtime is missing",
    Reason.NO_DISK_SPACE: "too little space on the disk",
    Reason.WORKSPACE_REFUSED: "the workspace could not be written",
    Reason.SHELL_MISSING: "there is no usable shell",
    Reason.ENGINE_MAPS_USERS: "the engine maps users, which `run_as` does not work with",
    Reason.PROCESSES_LEFT: "processes of a command cannot be ended",
    Reason.PROXY_REFUSED: "the secrets' proxy cannot be reached from there",
    Reason.NONSENSE: "an answer makes no sense",
    Reason.AFTER_UNTRUSTED_CODE: "an agent's code may have run already",
    Reason.VM_NOT_TRUSTED: "an earlier run's agent may have changed the VM",
    Reason.UNATTESTED: "a command on the VM may have forged a result",
}
_SIGNALS = {"INT": "Ctrl-C (SIGINT)", "TERM": "SIGTERM", "HUP": "SIGHUP"}


def with_codes(exit_codes: Collection[int]) -> str:
    """Name exit codes: ` with exit code 75 or 137`; empty for none."""
    return f" with exit code {' or '.join(map(str, sorted(exit_codes)))}" if exit_codes else ""


def reason_text(reason: Reason) -> str:
    """Say why a place is unavailable: the words, then the code in brackets."""
    words = REASONS.get(reason)
    return f"{words} ({reason.value})" if words else reason.value


def cancelled_text(state: RunState) -> str:
    """Say who cancelled a run: ` by root@vm with `pccpipe cancel``; empty if it was not cancelled."""
    by = state.cancelled_by
    if not by or state.outcome is not Outcome.CANCELLED:
        return ""
    if by == "cancel":
        who = f" by {state.cancelled_who}" if state.cancelled_who else ""
        return harmless_line(f"{who} with `pccpipe cancel`")
    return harmless_line(f" by {_SIGNALS.get(by, by)}")


def next_command(state: RunState, record: Path, verb: str, *names: str) -> str:
    """Return a command for the run that works in the current folder: `pccpipe logs r1 'unit[node=20]'`."""
    return f"pccpipe {verb}{_elsewhere(record)} {operands(state.run_id, *names)}"


def due_command(record: Path) -> str:
    """Return the command that continues the runs beside a record that are due."""
    return f"pccpipe resume --due{_elsewhere(record)}"


def _elsewhere(record: Path) -> str:
    runs_dir = record.parent
    return "" if runs_dir.absolute() == Path(RUNS).absolute() else f" --runs-dir {shlex.quote(str(runs_dir))}"


def failed_step_with_log(state: RunState, record: Path) -> StepState | None:
    """Find the step whose log says most about a run's failure; its log is not empty.

    A group has no log of its own: then it is the last step inside that did not succeed, even an ignored one.
    """
    for failed in failed_steps(state):
        inside = [step for step in state.steps.values() if is_within(step.path, failed.path)]
        # The latest first; before all, those that did not succeed.
        inside.reverse()
        for step in sorted(inside, key=lambda step: step.outcome in FINE):
            if has_log(step, record):
                return step
    return None


def has_log(step: StepState, record: Path) -> bool:
    """Say whether `pccpipe logs` prints something for a step."""
    names = [name for attempt in step.attempts for name in attempt.logs]
    return any((record / name).is_file() and (record / name).stat().st_size for name in names)


def interrupted_text(state: RunState, record: Path) -> str:
    """Say that a run's process is gone, and how to continue: the first line about such a run."""
    going_on = next_command(state, record, "resume")
    return f"run {state.run_id} interrupted (its process {state.pid} ended unexpectedly). Continue: {going_on}"


def failed_steps(state: RunState) -> list[StepState]:
    """Return the failed steps, without ignored ones; of a failed group, the failed steps inside."""
    failed = [step for step in state.steps.values() if step.outcome and step.outcome not in FINE and not step.ignored]
    return [
        step for step in failed if not any(other is not step and is_within(other.path, step.path) for other in failed)
    ]


def is_within(path: str, group: str) -> bool:
    """Say whether a path is that of a group, or of a step inside."""
    return path == group or path.startswith((f"{group}.", f"{group}["))


def took_text(state: RunState) -> str:
    """Say how long a run took: ` in 44s`; of a cancelled one, ` after 16s`."""
    if state.seconds is None:
        return ""
    return f" {'after' if state.outcome is Outcome.CANCELLED else 'in'} {duration(state.seconds)}"
