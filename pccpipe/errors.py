"""What can go wrong, as data: the view makes the sentences.

PccpipeError
├── UsageError          wrong arguments, files that cannot be read, a run id that is taken
│   └── SpecError       a pipeline or project file that is wrong, with every problem in it
│       └── PolicyRefused   the operator's policy refuses what it asks for
├── Unavailable         a target could not be had; the command certainly never began
│   ├── Fenced          the VM was taken over from the run, which does nothing there any more
│   ├── Broken          its connection ended in the midst of a call, which may be made again
│   └── Nonsense        what the target said has no sense
├── Refused             what was asked of a place can't be done anywhere: a setting, or a mistake of pccpipe's own
├── VmBusy              another run has the VM; never a reason to run elsewhere
├── RecordFull          the disk that has a run's record is full: the run is left as it is, to be resumed
├── Lost                a command began, and how it ended can no longer be known
├── ExpressionError     a ${{ }} that has no value, or no good one, now that its turn has come
├── LimitExceeded       a stranger's data exceeds one of the limits (limits/)
├── ResultError         what a step left as its result is missing or not what was asked for
├── Halted              work that can be done again was ended half way: by a cancel, or a time limit
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
    """The root of every error that pccpipe raises on purpose."""


class UsageError(PccpipeError):
    """The caller asked for something that cannot be done as asked.

    Args:
        message: what is wrong, in the user's words.
        hint: what to do about it; empty when the message says it already.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SpecError(UsageError):
    """A pipeline or project file is wrong; `problems` has all of it, in order of position."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class PolicyRefused(SpecError):
    """The operator's policy refuses what a pipeline or project file asks for; `problems` has each place."""

    code = Code.POLICY_REFUSED


class Unavailable(PccpipeError):
    """A target could not be had. Raised only if the command certainly never began.

    Args:
        reason: the code from the fixed list.
        words: the target's own words (sshd's, the engine's, the kernel's), kept whole.
        hint: the command or setting that mends it, when one is known.
    """

    def __init__(self, reason: Reason, words: str, hint: str = "") -> None:
        super().__init__(f"{reason.value}: {words}")
        self.reason = reason
        self.words = words
        self.hint = hint


class Broken(Unavailable):
    """The connection to a target ended in the midst of a call. Asked again, the target may well be had."""


class Fenced(Unavailable):
    """The VM was taken over from this run: it starts, writes and removes nothing there any more."""

    def __init__(self, words: str) -> None:
        super().__init__(Reason.FENCED, words, "the other one goes on; once it has ended: pccpipe resume RUN_ID")


class Nonsense(Unavailable):
    """A machine, or its engine, said what has no sense: letters for a number, a number out of all bounds.

    Args:
        what: the thing it was asked for, in words.
        said: its answer; the beginning of it is quoted.
    """

    def __init__(self, host: str, what: str, said: object) -> None:
        quoted = repr(said)
        shown = quoted if len(quoted) <= _LONGEST_QUOTE else f"{quoted[:_LONGEST_QUOTE]}..."
        hint = "see what runs there: pccpipe doctor"
        super().__init__(Reason.NONSENSE, f"{host or 'the machine'} talks nonsense: its {what} is {shown}", hint)


class Refused(PccpipeError):
    """A place refuses what it was asked as wrong. Not its state but the question is at fault, so this never leads to a
    fallback.
    """


class VmBusy(PccpipeError):
    """Another run has the VM, and one runs there at a time. Never a reason to run elsewhere."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RecordFull(PccpipeError):
    """The disk that has a run's record is full. The run is left as it is: what has begun goes on, nothing has ended.

    Args:
        run_dir: the run's folder.
        hint: what to do; by default, to make room and to resume the run.
    """

    def __init__(self, run_dir: Path, hint: str = "") -> None:
        self.message = f"no space left on the disk of {run_dir}, which has the run's record"
        self.hint = hint or f"make room there, then: pccpipe resume {run_dir.name}"
        super().__init__(f"{self.message}; {self.hint}")


class Lost(PccpipeError):
    """A command began on a target that can no longer be reached or asked."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class ExpressionError(PccpipeError):
    """An expression could not be evaluated when its turn came.

    Args:
        limit: the limit that it exceeds, if that is what is wrong.
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
    """A step's result is missing, no JSON, against its schema, too large, not a plain file, or has a secret in it."""

    def __init__(self, message: str, code: Code | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class LimitExceeded(PccpipeError):
    """A stranger's data exceeds a limit.

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
    """Work was ended half way, because the run is to end or the time for it is over; who asked for that knows which."""


class ActionError(PccpipeError):
    """A built-in action failed after its target was had (a refused file, a full disk, tar's error)."""

    def __init__(self, message: str, hint: str = "", code: Code | None = None) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.code = code


class WorkspaceGone(ActionError):
    """The run's copy of the code is gone, or a link took its place: a step did that."""
