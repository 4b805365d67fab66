"""The words for how a step ends, and for why a place was not to be had.

Everything else in pccpipe speaks these words; this module imports nothing of it.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a step, or a run, ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its command exited non-zero, or its result was missing or invalid."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UNAVAILABLE = "unavailable"
    """Its target could not be had: the command certainly never began."""
    LOST = "lost"
    """It began, and how it ended can no longer be known."""


class Place(StrEnum):
    """Where a step asks to run: the value of `on:`."""

    LOCAL = "local"
    VM = "vm"
    CONTAINER = "container"


class IsolationMode(StrEnum):
    """What a project chose: where `on: vm` and `on: container` lead."""

    VM = "vm"
    CONTAINER = "container"
    LOCAL = "local"


class Code(StrEnum):
    """Why a step failed, where more than a person must know: the record's word beside `failed`."""

    SECRET_IN_OUTPUT = "secret_in_output"
    """A secret's value stood in its result, its diff or a file that came home; what is kept is masked."""
    WORKSPACE_REFUSED = "workspace_refused"
    """The workspace holds a private key, a `.env` or a secret's value, which is not to leave this machine."""
    LIMIT_EXCEEDED = "limit_exceeded"
    """What an agent, a repository or a machine gave exceeds a limit; the message says which (docs/limits.md)."""
    BUDGET_EXCEEDED = "budget_exceeded"
    """The tokens that the step may use are used up."""
    POLICY_REFUSED = "policy_refused"
    """The operator's policy does not allow what the pipeline or the project file asks for."""
    RESULT_TOO_LARGE = "result_too_large"
    """The step's result exceeds a limit: its size, its depth, or the number of its values."""


FINAL = frozenset({Code.SECRET_IN_OUTPUT, Code.WORKSPACE_REFUSED, Code.BUDGET_EXCEEDED})
"""The codes of a step that is not tried again: it would end in the same way."""


class Stream(StrEnum):
    """One of a command's two output streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Reason(StrEnum):
    """Why a target could not be had. The list is fixed: servers branch on it."""

    SSH_NAME_UNKNOWN = "ssh_name_unknown"
    SSH_REFUSED = "ssh_refused"
    SSH_UNREACHABLE = "ssh_unreachable"
    """No route, or nothing answered in time."""
    SSH_CLOSED = "ssh_closed"
    """The other side, or the network, ended the connection."""
    SSH_INCOMPATIBLE = "ssh_incompatible"
    """The server offers no algorithm of some kind that is known here."""
    SSH_AUTH_FAILED = "ssh_auth_failed"
    SSH_HOST_KEY_UNKNOWN = "ssh_host_key_unknown"
    SSH_HOST_KEY_CHANGED = "ssh_host_key_changed"
    VM_BUSY = "vm_busy"
    """Another run has the VM; never a reason to run elsewhere."""
    FENCED = "fenced"
    """The VM was taken over from the run, by another one or by another process of it."""
    SSH_SESSION_REFUSED = "ssh_session_refused"
    """Logged in, but the server opened no session (MaxSessions, a forced command, no shell)."""
    ENGINE_MISSING = "engine_missing"
    """There is no engine's socket."""
    ENGINE_STOPPED = "engine_stopped"
    """The socket is there and nobody listens on it."""
    ENGINE_PERMISSION_DENIED = "engine_permission_denied"
    ENGINE_NOT_ANSWERING = "engine_not_answering"
    ENGINE_ERROR = "engine_error"
    """The engine answered with an error of its own; its words say which."""
    IMAGE_MISSING = "image_missing"
    NAME_TAKEN = "name_taken"
    CREATE_REFUSED = "create_refused"
    START_REFUSED = "start_refused"
    RUNTIME_MISSING = "runtime_missing"
    NO_DISK_SPACE = "no_disk_space"
    WORKSPACE_REFUSED = "workspace_refused"
    """The folder for the run's copy could not be made or written on the target."""
    SHELL_MISSING = "shell_missing"
    ENGINE_MAPS_USERS = "engine_maps_users"
    """The engine gives its containers' users other ids than the machine's, which `run_as` cannot work with."""
    PROCESSES_LEFT = "processes_left"
    """What an `on: vm` command left running there cannot be killed; never a reason to run elsewhere."""
    PROXY_REFUSED = "proxy_refused"
    """The secrets' proxy can't be reached from there: sshd forwards nothing, or the place of its socket is no good."""
    NONSENSE = "nonsense"
    """The machine, or its engine, gave an answer that has no sense."""
    AFTER_UNTRUSTED_CODE = "after_untrusted_code"
    """Code of an agent may have run already, in a place with more isolation than this one."""
    VM_NOT_TRUSTED = "vm_not_trusted"
    """Code of an earlier run's agent ran on the VM itself and may have caused what makes it unavailable."""
    UNATTESTED = "unattested"
    """`isolation: required`, and a result that a command on the VM may have forged."""


MAY_FALL_BACK = frozenset(
    {
        Reason.SSH_NAME_UNKNOWN,
        Reason.SSH_REFUSED,
        Reason.SSH_UNREACHABLE,
        Reason.SSH_CLOSED,
        Reason.SSH_INCOMPATIBLE,
        Reason.SSH_AUTH_FAILED,
        Reason.SSH_HOST_KEY_UNKNOWN,
        Reason.SSH_HOST_KEY_CHANGED,
        Reason.SSH_SESSION_REFUSED,
        Reason.ENGINE_MISSING,
        Reason.ENGINE_STOPPED,
        Reason.ENGINE_PERMISSION_DENIED,
        Reason.ENGINE_NOT_ANSWERING,
        Reason.IMAGE_MISSING,
        Reason.RUNTIME_MISSING,
        Reason.SHELL_MISSING,
        Reason.PROXY_REFUSED,
    }
)
"""The reasons for which a step may fall back: the place's own state. Never what code in a container can cause (a full
disk, a taken name, exhausted processes or memory), and never a mistake of pccpipe's own.
"""
VM_AWAY = frozenset({Reason.SSH_REFUSED, Reason.SSH_UNREACHABLE, Reason.SSH_CLOSED, Reason.SSH_SESSION_REFUSED})
"""The VM does not answer now, and may in a moment: sshd restarts within a second, a link heals."""
ENGINE_AWAY = frozenset({Reason.ENGINE_MISSING, Reason.ENGINE_STOPPED, Reason.ENGINE_NOT_ANSWERING})
"""The same of an engine: dockerd takes seconds to restart."""
