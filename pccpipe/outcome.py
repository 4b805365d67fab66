"""The words for the end of a step, and for why a place was unavailable. All of pccpipe uses them."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The end of a step or a run."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its command exited non-zero, or its result was missing or invalid."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UNAVAILABLE = "unavailable"
    """Its target was unavailable: the command certainly never began."""
    LOST = "lost"
    """It began, and nobody can know any more how it ended."""


class Place(StrEnum):
    """The place where a step asks to run: the value of `on:`."""

    LOCAL = "local"
    VM = "vm"
    CONTAINER = "container"


class ActionKind(StrEnum):
    """The kinds of what an agent's program reports of its work."""

    SESSION = "session"
    """The conversation began, with its id."""
    MESSAGE = "message"
    COMMAND = "command"
    """A command began."""
    COMMAND_END = "command_end"
    EDIT = "edit"
    """A file was changed."""
    RETRY = "retry"
    """A call of the model failed, and the program tries again."""
    ERROR = "error"
    RESULT = "result"
    """The agent is done: its answer, or its failure."""
    USAGE = "usage"
    OUTPUT = "output"
    """A line of the program that is not JSON."""


class IsolationMode(StrEnum):
    """A project's choice of where `on: vm` and `on: container` lead."""

    VM = "vm"
    CONTAINER = "container"
    LOCAL = "local"


class Code(StrEnum):
    """The cause of a failed step or run, where programs must know it: the record's word beside `failed`.

    `OUTPUT_LOST` alone is also the code of a step that did not fail, and never that of a run.
    """

    SECRET_IN_OUTPUT = "secret_in_output"
    """A secret's value was in its result, its diff or a downloaded file; the record has it masked."""
    WORKSPACE_REFUSED = "workspace_refused"
    """The workspace holds a private key, a `.env` or a secret's value, which must not leave this machine."""
    LIMIT_EXCEEDED = "limit_exceeded"
    """Data of an agent, a repository or a machine exceeds a limit; the message names it (docs/limits.md)."""
    BUDGET_EXCEEDED = "budget_exceeded"
    """The step used all the tokens that it may use."""
    POLICY_REFUSED = "policy_refused"
    """The operator's policy does not allow what the pipeline or the project file asks for."""
    RESULT_TOO_LARGE = "result_too_large"
    """The step's result exceeds a limit: its size, its depth, or the number of its values."""
    NO_RESULT = "no_result"
    """The step's command succeeded and left no result."""
    BAD_RESULT = "bad_result"
    """The step's result is not JSON, or does not match its schema."""
    FILES_MISSING = "files_missing"
    """A path of a download with `required: true` brought no file."""
    AGENT_MISSING = "agent_missing"
    """The place of an agent step, such as its image, does not have the agent's program."""
    INTERPRETER_MISSING = "interpreter_missing"
    """The step's place, such as its image, does not have the program that its `shell:` or `#!` names."""
    EXPORT_REFUSED = "export_refused"
    """The step's file `$PCC_ENV` sets a variable that it may not export, or cannot be read."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """The step failed after the model's API refused its last calls, or was unreachable."""
    MODEL_LIMITED = "model_limited"
    """The step failed because of a limit of its agents' providers that does not pass in time."""
    TESTS_FAILED = "tests_failed"
    """In the last round of a `repeat`, a step failed after which the round goes on, such as the tests."""
    CHANGES_REQUESTED = "changes_requested"
    """In the last round of a `repeat`, no step failed, and a result did not meet its condition: a reviewer said no."""
    NOT_READY = "not_ready"
    """A background command, or a service, was not ready in time, or ended before it was."""
    SERVICE_ENDED = "service_ended"
    """A service failed, or was gone, before the steps beside it had ended."""
    OUTPUT_LOST = "output_lost"
    """Some of the step's output was lost, or may be: its machine could not store it."""


STATUSES = frozenset(
    {
        Code.SECRET_IN_OUTPUT,
        Code.WORKSPACE_REFUSED,
        Code.LIMIT_EXCEEDED,
        Code.BUDGET_EXCEEDED,
        Code.POLICY_REFUSED,
        Code.RESULT_TOO_LARGE,
    }
)
"""The codes that are also the status of the run that they end, without a `fails_as`."""
FINAL = frozenset({Code.SECRET_IN_OUTPUT, Code.WORKSPACE_REFUSED, Code.BUDGET_EXCEEDED, Code.MODEL_LIMITED})
"""The codes of a step that is not retried: it would end in the same way."""


class Stream(StrEnum):
    """One of a command's two output streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Reason(StrEnum):
    """The reason why a target was unavailable. The list is fixed: servers branch on it."""

    SSH_NAME_UNKNOWN = "ssh_name_unknown"
    SSH_REFUSED = "ssh_refused"
    SSH_UNREACHABLE = "ssh_unreachable"
    """No route, or nothing answered in time."""
    SSH_CLOSED = "ssh_closed"
    """The other side, or the network, ended the connection."""
    SSH_INCOMPATIBLE = "ssh_incompatible"
    """The server shares no algorithm of some kind with this machine."""
    SSH_AUTH_FAILED = "ssh_auth_failed"
    SSH_HOST_KEY_UNKNOWN = "ssh_host_key_unknown"
    SSH_HOST_KEY_CHANGED = "ssh_host_key_changed"
    VM_BUSY = "vm_busy"
    """Another run has the VM; never a reason to run elsewhere."""
    FENCED = "fenced"
    """Another run, or another process of this run, took over the VM."""
    SSH_SESSION_REFUSED = "ssh_session_refused"
    """Logged in, but the server opened no session (MaxSessions, a forced command, no shell)."""
    ENGINE_MISSING = "engine_missing"
    """There is no engine's socket."""
    ENGINE_STOPPED = "engine_stopped"
    """The socket exists, and no process listens on it."""
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
    """The target could not make or write the folder for the run's copy."""
    SHELL_MISSING = "shell_missing"
    ENGINE_MAPS_USERS = "engine_maps_users"
    """The engine gives its containers' users other ids than the machine's, which `run_as` cannot work with."""
    PROCESSES_LEFT = "processes_left"
    """Processes that an `on: vm` command left cannot be killed; never a reason to run elsewhere."""
    PROXY_REFUSED = "proxy_refused"
    """The place cannot reach the secrets' proxy: sshd forwards nothing, or refuses the path of its socket."""
    NONSENSE = "nonsense"
    """The machine, or its engine, gave an invalid answer."""
    AFTER_UNTRUSTED_CODE = "after_untrusted_code"
    """Code of an agent may have run already, in a place with more isolation than this one."""
    VM_NOT_TRUSTED = "vm_not_trusted"
    """Code of an earlier run's agent ran on the VM itself, and may be the cause of the failure."""
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
"""The reasons for which a step may fall back: the place's own state.

Code in a container cannot cause one of them, as it can a full disk, a taken name, or exhausted processes or memory. No
mistake of pccpipe is one.
"""
VM_AWAY = frozenset({Reason.SSH_REFUSED, Reason.SSH_UNREACHABLE, Reason.SSH_CLOSED, Reason.SSH_SESSION_REFUSED})
"""The VM does not answer now, and may in a moment: sshd restarts within a second, a network recovers."""
ENGINE_AWAY = frozenset({Reason.ENGINE_MISSING, Reason.ENGINE_STOPPED, Reason.ENGINE_NOT_ANSWERING})
"""The engine does not answer now, and may in a moment: dockerd takes seconds to restart."""
