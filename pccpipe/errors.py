"""The errors of pccpipe, as data: the view makes the sentences.

PccpipeError
├── UsageError          wrong arguments, files that cannot be read, a run id that is taken
│   ├── RunHeld         another process runs the run
│   └── SpecError       an invalid pipeline or project file, with every problem in it
│       └── PolicyRefused   the operator's policy refuses what it asks for
├── Unavailable         a target is unavailable; the command certainly never began
│   ├── Fenced          another run took over the VM: this one does nothing there any more
│   ├── Broken          its connection ended during a call, which may be retried
│   └── Nonsense        the target gave an invalid answer
├── Refused             no place can do it: a wrong setting, or a mistake of pccpipe
├── VmBusy              another run has the VM; never a reason to run elsewhere
├── RecordFull          the disk of a run's record is full; the run stays as it is and can be resumed
├── Lost                a command began, and nobody can know any more how it ended
├── ExpressionError     a ${{ }} that has no value or an invalid one
├── LimitExceeded       a stranger's data exceeds one of the limits (limits/)
├── ResultError         a step's result is missing or invalid
├── Halted              a cancel or a time limit ended work half way; it can be repeated
└── ActionError         a built-in action (upload, diff, ...) failed
    └── WorkspaceGone   the run's copy of the code is gone, or a link took its place
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pccpipe.outcome import Code, Reason

if TYPE_CHECKING:
    from pathlib import Path

    from pccpipe.limits import Limit
    from pccpipe.spec.position import Position
    from pccpipe.spec.problem import Problem


_LONGEST_QUOTE = 100


class PccpipeError(Exception):
    """The base of every error that pccpipe raises on purpose."""


class UsageError(PccpipeError):
    """A wrong argument of the caller, or a wrong file.

    Args:
        message: the problem, in the user's words.
        hint: the fix; empty if the message has it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RunHeld(UsageError):
    """Another process runs the run."""


class SpecError(UsageError):
    """An invalid pipeline or project file; `problems` has all problems, in order of position."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class PolicyRefused(SpecError):
    """A refusal by the operator's policy; `problems` has each place in the pipeline or project file."""

    code = Code.POLICY_REFUSED


class Unavailable(PccpipeError):
    """An unavailable target. Raised only if the command certainly never began.

    Args:
        reason: the code from the fixed list.
        words: the target's own words (sshd's, the engine's, the kernel's), kept whole.
        hint: the command or setting that fixes it, if one is known.
    """

    def __init__(self, reason: Reason, words: str, hint: str = "") -> None:
        super().__init__(f"{reason.value}: {words}")
        self.reason = reason
        self.words = words
        self.hint = hint


class Broken(Unavailable):
    """A connection that ended during a call. A retry may reach the target."""


class Fenced(Unavailable):
    """A VM that another run took over: this run starts, writes and removes nothing there any more."""

    def __init__(self, words: str) -> None:
        super().__init__(Reason.FENCED, words, "the other run continues; once it has ended: pccpipe resume RUN_ID")


class Nonsense(Unavailable):
    """An invalid answer of a machine or its engine: letters for a number, or a number out of bounds.

    Args:
        what: the thing that was asked for, in words.
        said: the answer; its beginning is quoted.
    """

    def __init__(self, host: str, what: str, said: object) -> None:
        quoted = repr(said)
        shown = quoted if len(quoted) <= _LONGEST_QUOTE else f"{quoted[:_LONGEST_QUOTE]}..."
        hint = "check the machine: pccpipe doctor"
        super().__init__(Reason.NONSENSE, f"{host or 'the machine'}: invalid answer: its {what} is {shown}", hint)


class Refused(PccpipeError):
    """A place refuses an invalid request. Its state is not the cause, so this never leads to a fallback."""


class VmBusy(PccpipeError):
    """A VM that another run has: only one runs there at a time. Never a reason to run elsewhere."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RecordFull(PccpipeError):
    """A full disk under a run's record. The run stays as it is: its commands continue, and it has not ended.

    Args:
        run_dir: the run's folder.
        hint: the fix; by default, to free some space and to resume the run.
    """

    def __init__(self, run_dir: Path, hint: str = "") -> None:
        self.message = f"no space left on the disk of {run_dir}, the run's record"
        self.hint = hint or f"free some space, then: pccpipe resume {run_dir.name}"
        super().__init__(f"{self.message}; {self.hint}")


class Lost(PccpipeError):
    """A command that began on a target which no longer answers."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class ExpressionError(PccpipeError):
    """An expression that could not be evaluated.

    Args:
        limit: the limit that it exceeds, if it exceeds one.
    """

    def __init__(self, position: Position, source: str, message: str, limit: Limit | None = None) -> None:
        first = source.strip().partition("\n")[0]
        self.shown = first if len(first) <= 80 else f"{first[:77]}..."
        super().__init__(f"{position}: in `{self.shown}`: {message}")
        self.position = position
        self.source = source
        self.message = message
        self.limit = limit


class ResultError(PccpipeError):
    """A step's result that is missing, not JSON, against its schema, too large, not a plain file, or has a secret."""

    def __init__(self, message: str, code: Code | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ResultMissing(ResultError):
    """A file that the command did not leave."""


class LimitExceeded(PccpipeError):
    """A stranger's data that exceeds a limit.

    Args:
        limit: the limit, from pccpipe.limits.
        where: names the data, in place of the limit's own words.
    """

    def __init__(self, limit: Limit, where: str = "") -> None:
        self.limit = limit
        self.code = limit.code
        self.message = limit.exceeded(where)
        super().__init__(self.message)


class Halted(PccpipeError):
    """Work that a cancel or a time limit ended half way; the caller knows which."""


class ActionError(PccpipeError):
    """A built-in action that failed on its target: a refused file, a full disk, an error of tar."""

    def __init__(self, message: str, hint: str = "", code: Code | None = None) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.code = code


class WorkspaceGone(ActionError):
    """A run's copy of the code that a step removed, or replaced by a link."""
