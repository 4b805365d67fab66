"""The walk through a pipeline's steps: order, condition, matrix, repeat, parallel. Each end goes to the journal."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Deadline
from pccpipe.errors import PccpipeError
from pccpipe.executor.actions import kind_of, run_action
from pccpipe.executor.attestation import unattested_condition
from pccpipe.executor.cause import named, not_reached
from pccpipe.executor.context import ALWAYS_LIMIT, STEP_LIMIT, LeftOpen, Position, RunContext, StepOutcome
from pccpipe.executor.help import InputState, help_wanted, unmarked_plea
from pccpipe.executor.patience import is_away
from pccpipe.executor.probe import levels_of
from pccpipe.executor.replay import Turn, deadline_since
from pccpipe.executor.retries import with_retries
from pccpipe.executor.scope import Scope, StepView
from pccpipe.executor.step import run_step
from pccpipe.outcome import Outcome, Place, Reason
from pccpipe.record.events import (
    CommandStarted,
    InputAsked,
    RoundStarted,
    StepEnded,
    StepStarted,
    Warned,
)
from pccpipe.record.logs import tail
from pccpipe.spec.absent import NoResult, lenient
from pccpipe.spec.model import Build, Diff, Download, Parallel, Remove, Repeat, Run, Step, Upload, Value
from pccpipe.values import Json

PASSING = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED})


def number_of(value: Value[float] | Value[int] | None, scope: Scope) -> float | None:
    """Evaluate a number of a step's: a limit, a count. Raises PccpipeError if it is none above 0."""
    if value is None:
        return None
    if value.expression is None:
        return value.known
    got = value.expression.evaluate(scope.names)
    if isinstance(got, bool) or not isinstance(got, int | float):
        raise PccpipeError(f"{value.expression.source} is to be a number, and is {got!r}")
    if not 0 < got < math.inf:
        raise PccpipeError(f"{value.expression.source} is to be more than 0, and is {got!r}")
    return got


class Walk(Struct, frozen=True):
    """The walk through the steps of one run, or of its `always:`. Safe from many threads."""

    parts: RunContext

    def sequence(self, steps: Sequence[Step], here: Position) -> StepOutcome:
        """Steps in order, up to the first that does not pass."""
        for step in steps:
            barred = self._barred(step, here)
            ended = barred or self.step(step, here)
            if barred or ended.help is not InputState.NONE:
                return ended
            if not self._goes_on(step, ended):
                return ended if ended.at is not None else replace(ended, at=step.id)
        return StepOutcome(Outcome.SUCCEEDED)

    def _barred(self, step: Step, here: Position) -> StepOutcome | None:
        """Why a step's turn does not come any more. What it had begun before is brought to its end all the same.

        Raises `LeftOpen`: who goes on with the run has that turn, also of a step on this machine.
        """
        if self.parts.targets.fenced and not here.always:
            raise LeftOpen(self.parts.targets.fenced)
        if self.parts.past.knows(here.path_of(step.id)):
            return None
        if self.parts.past.always and not here.always:
            # The process that was killed was at the `always:` steps: the others were over, and how is noted.
            over = self.parts.past.always
            return StepOutcome(over.outcome, fails_as=over.status, message=over.outcome.value)
        if self.parts.cancel.requested:
            return StepOutcome(Outcome.CANCELLED, message="cancelled")
        if here.deadline and here.deadline.passed:
            return StepOutcome(Outcome.TIMED_OUT, message=here.deadline.message)
        return None

    def step(self, step: Step, here: Position) -> StepOutcome:
        """One step with its condition and its matrix; its end is in the journal and in the scope."""
        return self._until_helped(here, lambda: self._turn(step, here))

    def _until_helped(self, here: Position, turn: Callable[[], StepOutcome]) -> StepOutcome:
        """A step whose agent was helped has another turn; in a `repeat`, that is the next round."""
        ended = turn()
        while ended.help is InputState.GIVEN and not here.in_round:
            ended = turn()
        return ended

    def _turn(self, step: Step, here: Position) -> StepOutcome:
        began = time.monotonic()
        visit = self.parts.past.visit(here.path_of(step.id))
        if visit.ended and (visit.ended.outcome is Outcome.SKIPPED or not _has_inner(step)):
            return self._end(step, here, visit, self._remembered(step, visit, visit.ended), began)
        try:
            if not visit.noted and step.condition is not None and not step.condition.evaluate(here.scope.names):
                return self._end(step, here, visit, StepOutcome(Outcome.SKIPPED), began)
            forged = (*here.forged, *unattested_condition(here.scope, step.condition))
            here = replace(here, deadline=self._deadline(step, here, visit), forged=forged)
            if step.matrix:
                path = here.path_of(step.id)
                self.parts.note(visit, StepStarted(path, "matrix", name=step.name, always=here.always))
                ended = self._matrix(step, here)
            else:
                ended = self._leg(step, here, visit)
        except PccpipeError as error:
            ended = StepOutcome(Outcome.FAILED, message=str(error))
        return self._end(step, here, visit, ended, began)

    def _deadline(self, step: Step, here: Position, visit: Turn) -> Deadline:
        seconds = number_of(step.timeout, here.scope)
        if seconds is None:
            seconds = ALWAYS_LIMIT if here.always else STEP_LIMIT
        return deadline_since(visit.began_at, seconds, f"step {step.id}").nearest(here.deadline)

    def _remembered(self, step: Step, visit: Turn, ended: StepEnded) -> StepOutcome:
        """The end of a step that an earlier process brought to its end."""
        if isinstance(step.body, Run):
            self.parts.serials.skip(step.id, visit.attempts)
        logs = None
        for started in visit.all_of(CommandStarted):
            logs = (self.parts.run_dir / started.stdout, self.parts.run_dir / started.stderr)
        fails_as = step.fails_as if ended.outcome not in PASSING else None
        return StepOutcome(
            ended.outcome,
            ended.exit_code,
            ended.reason,
            ended.code,
            ended.message,
            ended.result,
            ended.result_path,
            ended.unattested,
            ignored=ended.ignored,
            fails_as=fails_as,
            logs=logs,
        )

    def _leg(self, step: Step, here: Position, visit: Turn) -> StepOutcome:
        """The step's body, once; for a matrix, with the leg's values in scope."""
        path = here.path_of(step.id)
        kind, asked = _describe(step)
        self.parts.note(visit, StepStarted(path, kind, asked, step.name, here.always))
        body = step.body
        match body:
            case Run():
                ended = run_step(self.parts, here, step, body, visit)
            case Upload() | Download() | Diff() | Remove() | Build():
                # Each does all of its work again, and gets the same.
                ended = run_action(self.parts, here, step, body)
            case Repeat():
                ended = self._retried(step, here, visit, lambda _: self._repeat(body, here, path, visit, step.fails_as))
            case Parallel():
                ended = self._retried(step, here, visit, lambda _: self._parallel(body, here, path))
            case _:
                assert_never(body)
        if step.fails_as and ended.outcome not in PASSING:
            ended = replace(ended, fails_as=step.fails_as)
        return ended

    def _retried(self, step: Step, here: Position, visit: Turn, attempt: Callable[[int], StepOutcome]) -> StepOutcome:
        return with_retries(self.parts, here, here.path_of(step.id), step.retry, attempt, visit)

    def _repeat(self, body: Repeat, here: Position, path: str, visit: Turn, fails_as: str | None) -> StepOutcome:
        most = number_of(body.max, here.scope)
        assert most is not None
        levels_of(self.parts, body.steps, here)
        number, rounds = 0, int(most)
        while number < rounds:
            number += 1
            self.parts.note(visit, RoundStarted(path, number, rounds))
            inside = replace(here.inside(f"{path}[{number}]", here.scope.in_round(number)), in_round=True)
            ended = self.sequence(body.steps, inside)
            if ended.help is InputState.WANTED:
                return ended
            if ended.help is InputState.GIVEN:
                # Nothing was finished for others to judge: the next round is this one's second try.
                rounds += 1
                continue
            if ended.outcome is not Outcome.SUCCEEDED:
                return named(ended, f" in round {number}")
            if body.until is not None and body.until.evaluate(inside.scope.names):
                here.scope.forged.extend(unattested_condition(inside.scope, body.until))
                return ended
        if body.until is None:
            return StepOutcome(Outcome.SUCCEEDED)
        return StepOutcome(Outcome.FAILED, message=not_reached(body, fails_as, rounds, here.scope.steps), at="")

    def _parallel(self, body: Parallel, here: Position, path: str) -> StepOutcome:
        inside = here.inside(path)
        jobs = [(step, lambda step=step: self.step(step, inside)) for step in body.steps]
        return self._side_by_side(jobs, inside, body.max_parallel)

    def _matrix(self, step: Step, here: Position) -> StepOutcome:
        legs = [dict(zip(step.matrix, values, strict=True)) for values in itertools.product(*step.matrix.values())]
        jobs = [
            (of_leg, lambda of_leg=of_leg, leg=leg: self._matrix_leg(of_leg, here, leg))
            for of_leg, leg in ((_of_leg(step, leg), leg) for leg in legs)
        ]
        return self._side_by_side(jobs, here, step.matrix_parallel)

    def _matrix_leg(self, of_leg: Step, here: Position, leg: dict[str, Json]) -> StepOutcome:
        return self._until_helped(here, lambda: self._leg_turn(of_leg, here, leg))

    def _leg_turn(self, of_leg: Step, here: Position, leg: dict[str, Json]) -> StepOutcome:
        began = time.monotonic()
        visit = self.parts.past.visit(here.path_of(of_leg.id))
        inside = replace(here, scope=here.scope.in_leg(leg))
        if visit.ended and not _has_inner(of_leg):
            return self._end(of_leg, inside, visit, self._remembered(of_leg, visit, visit.ended), began)
        try:
            ended = self._leg(of_leg, inside, visit)
        except PccpipeError as error:
            ended = StepOutcome(Outcome.FAILED, message=str(error))
        return self._end(of_leg, inside, visit, ended, began)

    def _side_by_side(
        self, jobs: Sequence[tuple[Step, Callable[[], StepOutcome]]], here: Position, at_once: int
    ) -> StepOutcome:
        """Run all jobs to their ends, `at_once` side by side; the first in order that did not pass decides."""

        def unless_barred(job: tuple[Step, Callable[[], StepOutcome]]) -> StepOutcome:
            step, run = job
            return self._barred(step, here) or run()

        levels = levels_of(self.parts, [step for step, _ in jobs], here)
        if at_once == 1:
            ends = [unless_barred(job) for job in jobs]
        else:
            pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="pccpipe-step")
            with self.parts.exposure.expecting(levels), pool:
                ends = list(pool.map(unless_barred, jobs))
        for wanted in (InputState.WANTED, InputState.GIVEN):
            asking = next((ended for ended in ends if ended.help is wanted), None)
            if asking:
                return asking
        for (step, _), ended in zip(jobs, ends, strict=True):
            if not self._goes_on(step, ended):
                return replace(ended, message=f"{step.id}: {ended.message}", result=None, result_path=None)
        return StepOutcome(Outcome.SUCCEEDED)

    def _goes_on(self, step: Step, ended: StepOutcome) -> bool:
        if ended.outcome in PASSING or ended.ignored:
            return True
        # A place of the run stays away, is another run's, or has processes left: the run stops and keeps what it has.
        stops = ended.outcome is Outcome.UNAVAILABLE and (
            ended.reason in {Reason.PROCESSES_LEFT, Reason.VM_BUSY} or is_away(self.parts, ended.reason)
        )
        return step.continue_on_error and not stops and ended.outcome is not Outcome.CANCELLED

    def _end(self, step: Step, here: Position, visit: Turn, ended: StepOutcome, began: float) -> StepOutcome:
        if ended.help is InputState.WANTED:
            return ended  # a group that is not over
        fenced = self.parts.targets.fenced
        if fenced and not visit.ended and ended.outcome in {Outcome.UNAVAILABLE, Outcome.LOST}:
            raise LeftOpen(fenced)
        ignored = ended.outcome not in PASSING and self._goes_on(step, ended)
        seconds = time.time() - visit.began_at if visit.began_at else time.monotonic() - began
        if not visit.ended:
            self.parts.journal.append(
                StepEnded(
                    here.path_of(step.id),
                    ended.outcome,
                    seconds,
                    ended.exit_code,
                    ended.reason,
                    ended.message,
                    ended.result,
                    ended.result_path,
                    ignored,
                    ended.code,
                    ended.unattested,
                )
            )
        if step.id in here.scope.steps:
            here.scope.steps[step.id] = _view(ended, here.scope.steps[step.id])
        if isinstance(step.body, Run) and not step.matrix and not here.always:
            return self._with_help(step, here, visit, ended)
        return ended

    def _with_help(self, step: Step, here: Position, visit: Turn, ended: StepOutcome) -> StepOutcome:
        """The end of a step whose agent may have asked a person for help."""
        path = here.path_of(step.id)
        if ended.outcome is not Outcome.SUCCEEDED or self.parts.cancel.requested:
            return ended
        plea = unmarked_plea(ended.result)
        if plea and not visit.ended:
            self.parts.journal.append(
                Warned(f"its agent asks for something without saying how to give it: {plea}", path)
            )
        wanted = help_wanted(ended.result)
        if wanted is None:
            return ended
        if not visit.asked:
            self.parts.journal.append(InputAsked(path, wanted.tried, wanted.needed, wanted.inputs))
        if any(key not in visit.answers for key in wanted.inputs):
            return replace(ended, help=InputState.WANTED, message=f"{path} needs {wanted.needed}")
        # A leg of a matrix is `unit[node=20]`, and known to expressions as `unit`.
        name = step.id.partition("[")[0]
        view = here.scope.steps[name]
        here.scope.steps[name] = replace(view, answers=view.answers.with_more(visit.answers))
        return replace(ended, help=InputState.GIVEN)


def _has_inner(step: Step) -> bool:
    """Whether a step has turns of other steps inside; those are walked through also when it has ended."""
    return bool(step.matrix) or isinstance(step.body, Repeat | Parallel)


def _of_leg(step: Step, leg: Mapping[str, Json]) -> Step:
    label = ",".join(f"{key}={value}" for key, value in leg.items())
    return replace(step, id=f"{step.id}[{label}]", matrix={}, fails_as=None)


def _describe(step: Step) -> tuple[str, Place | None]:
    body = step.body
    match body:
        case Run():
            return "run", body.where.on
        case Upload() | Download() | Diff() | Remove() | Build():
            return kind_of(body), None
        case Repeat() | Parallel():
            return type(body).__name__.lower(), None
        case _:
            assert_never(body)


def _view(ended: StepOutcome, before: StepView) -> StepView:
    # A result counts only if the step succeeded; the file of a failed one is in the run's folder for people.
    has_result = ended.outcome is Outcome.SUCCEEDED and ended.result_path
    result = lenient(ended.result) if has_result else NoResult()
    last = before.last_result if isinstance(result, NoResult) else result
    logs = ended.logs
    read_log = (lambda which: _log_end(logs, which)) if logs else None
    kept = ended.unattested or (before.unattested and isinstance(result, NoResult))
    return StepView(ended.outcome.value, ended.exit_code, result, last, before.answers, kept, read_log)


def _log_end(logs: tuple[Path, Path], which: str) -> str:
    stdout, stderr = logs
    match which:
        case "stdout":
            return tail(stdout, limits.STEP_OUTPUT.most)
        case "stderr":
            return tail(stderr, limits.STEP_OUTPUT.most)
        case _:
            return "\n".join(
                part for part in (tail(stdout, limits.STEP_OUTPUT.most), tail(stderr, limits.STEP_OUTPUT.most)) if part
            )
