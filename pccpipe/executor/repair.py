"""Ask an agent again whose result was refused: in the same attempt, with the errors as its prompt."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import ResultError
from pccpipe.executor.agent import repairs_of
from pccpipe.executor.context import StepOutcome
from pccpipe.executor.result import result_target
from pccpipe.executor.run_step import RunStep
from pccpipe.outcome import Code, Outcome, Place
from pccpipe.record.agent_events import RepairAsked
from pccpipe.spec.agent_task import PROMPT
from pccpipe.target import Command

_REPAIRABLE = frozenset({Code.NO_RESULT, Code.BAD_RESULT})
_AGAIN = """\
Your result was refused: {errors}

Correct it: return the whole result again as JSON that matches its schema, in the way that you were given. Change
nothing else.
"""
_COLD = """\
{prompt}

---

You did this task before, in a session that you do not remember. The workspace has your changes.

{again}"""
_BEFORE = """
This was your result:

{before}
"""


class Repair(Struct, frozen=True):
    """One repair of an attempt's result."""

    number: int
    """From 1."""
    errors: str
    code: Code | None

    def prompt(self, first: bytes, before: bytes, *, is_warm: bool) -> bytes:
        """Return the agent's prompt.

        Args:
            first: the step's own prompt.
            before: the refused result; empty if there is none.
            is_warm: whether the agent continues its session, so that it knows both.
        """
        again = _AGAIN.format(errors=self.errors)
        if is_warm:
            return again.encode("utf-8", "replace")
        if before:
            again += _BEFORE.format(before=before.decode("utf-8", "replace"))
        return _COLD.format(prompt=first.decode("utf-8", "replace"), again=again).encode("utf-8", "replace")


def is_repairable(ended: StepOutcome) -> bool:
    """Say whether an agent ended well but for its result. A result with a secret in it is never asked for again."""
    return ended.outcome is Outcome.FAILED and ended.code in _REPAIRABLE


def with_repairs(step: RunStep, number: int, command: Callable[[Repair | None], StepOutcome]) -> StepOutcome:
    """Run an attempt's command, and run it again for each repair of its result, as often as the step says."""
    ended = command(None)
    most = repairs_of(step.body)
    for count in range(1, most + 1):
        was_asked = step.turn.peek(RepairAsked) is not None
        if not is_repairable(ended) or (step.halt.requested and not was_asked):
            break
        asked = RepairAsked(step.path, number, count, most, ended.message)
        step.context.record_once(step.turn, asked)
        ended = command(Repair(count, ended.message, ended.code))
    return ended


def with_repair(command: Command, repair: Repair, step: RunStep, place: Place) -> Command:
    """Return an agent's command with the prompt of a repair."""
    prompt = repair.prompt(command.files[PROMPT], _refused_result(step, repair, place), is_warm=bool(command.memory))
    return replace(command, files={**command.files, PROMPT: prompt})


def _refused_result(step: RunStep, repair: Repair, place: Place) -> bytes:
    """Return the beginning of the refused result, as the record has it; empty if there is none."""
    if repair.code is not Code.BAD_RESULT or step.body.result is None:
        return b""
    try:
        with result_target(step.result_path(step.body.result, place), step.context.run_dir).open("rb") as file:
            return file.read(limits.REPAIR_TEXT.most)
    except (OSError, ResultError):
        return b""
