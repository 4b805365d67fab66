"""One run step: its places in turn, its attempts at each, and what came of them.

The rule that everything here serves: a step goes on to its fallback only when `Target.start` (or what must come before
it) raised `Unavailable`, which says that the command certainly never began, for a reason that is the place's own state,
and before code of an agent could have caused it. No text, no exit code, no log is looked at for that.
"""

from __future__ import annotations

import contextlib

from msgspec import Struct
from msgspec.structs import replace

from pccpipe.errors import PccpipeError
from pccpipe.executor.attempt import Attempt
from pccpipe.executor.context import Position, RunContext, StepOutcome
from pccpipe.executor.judge import replayed
from pccpipe.executor.replay import Turn
from pccpipe.executor.retry import with_retries
from pccpipe.executor.run_step import RunStep
from pccpipe.executor.secrets import StepSecrets, TokenBudget, budget_of, step_secrets
from pccpipe.outcome import MAY_FALL_BACK, Outcome, Place
from pccpipe.record.events import (
    CommandEnded,
    CommandStarted,
    MayHaveBegun,
    StepDowngraded,
    StepRetrying,
    TargetUnavailable,
)
from pccpipe.spec.model import Host, Run, Step


def run_step(context: RunContext, position: Position, step: Step, body: Run, turn: Turn) -> StepOutcome:
    """Run a step's command: at the place it asks for, or where the project leads that; else at its fallback."""
    return _Tries(RunStep(context, position, step, body, turn), is_replay=turn.began_at is not None).run()


class _Tries(Struct):
    step: RunStep
    attempts: int = 0
    """How many were made so far, at all places."""
    budget: TokenBudget | None = None
    is_replay: bool = False
    """Whether the attempts still come from the record."""

    def run(self) -> StepOutcome:
        step, context = self.step, self.step.context
        place, where = step.first
        ended = self._tries(place, where)
        following = step.following(place)
        if ended.outcome is not Outcome.UNAVAILABLE or following is None or context.cancel.requested:
            return ended
        assert ended.reason is not None
        asked, fallback = step.body.where.on, following[0]
        # Refused before, it may have a person's consent now.
        was_refused = step.turn.consume(TargetUnavailable) is not None
        if step.turn.peek(StepDowngraded) is None:
            if ended.reason not in MAY_FALL_BACK:
                return replace(ended, message=f"{ended.message} (no reason to fall back)")
            if no := step.refuse_fallback(fallback):
                context.serials.next(step.spec.id)
                if not was_refused:
                    number = self.attempts + 1
                    step.unavailable(TargetUnavailable(step.path, number, fallback, no.reason, no.words, no.hint))
                return replace(ended, reason=no.reason, message=f"{ended.reason}: {ended.message}; {no.words}")
        context.record_once(step.turn, StepDowngraded(step.path, asked, fallback, ended.reason, ended.message))
        return self._tries(*following)

    def _tries(self, place: Place, where: Host) -> StepOutcome:
        step = self.step
        attempt, first = lambda number: self._attempt(number, place, where), self.attempts + 1
        return with_retries(step.context, step.position, step.path, step.spec.retry, attempt, step.turn, first)

    def _attempt(self, number: int, place: Place, where: Host) -> StepOutcome:
        step, turn = self.step, self.step.turn
        self.attempts = number
        serial = step.context.serials.next(step.spec.id)
        may_have_begun = turn.consume(MayHaveBegun) is not None
        if gone := turn.consume(TargetUnavailable):
            return StepOutcome(Outcome.UNAVAILABLE, reason=gone.reason, message=gone.words)
        if again := turn.peek(StepRetrying):
            # As above: the attempt that was under way is one that comes later.
            return StepOutcome(again.after)  # it failed before anything could begin
        started = turn.consume(CommandStarted)
        in_doubt, self.is_replay = self.is_replay and started is None, False
        if started and (over := turn.consume(CommandEnded)):
            # What was noted goes on to the attempt that was under way.
            self.is_replay = True
            if self._is_begun_again:
                return self._attempt(number, place, where)
            return replayed(step, started, over, place)
        in_doubt = in_doubt and place is not Place.LOCAL and (may_have_begun or not self._says_before(place))
        try:
            if self.budget is None:
                self.budget = budget_of(step.context, step.position, step.path, step.body, turn)
            secrets = self._access(number, place, where, self.budget)
        except PccpipeError as error:
            return StepOutcome(Outcome.FAILED, message=str(error))
        attempt = Attempt(step, number, place, where, serial, secrets, self.budget, in_doubt, may_have_begun)
        try:
            with contextlib.closing(secrets):
                return attempt.run(started)
        finally:
            step.context.exposure.settle(step.path)

    def _says_before(self, place: Place) -> bool:
        """Say whether the record has a word of its command before this begins, at `place`."""
        return self.step.context.replay.tells_agents and (place is Place.CONTAINER or self.step.is_agent)

    @property
    def _is_begun_again(self) -> bool:
        """Say whether an attempt whose command is over has another one, since its place became unusable."""
        turn = self.step.turn
        if turn.is_reopened and not turn.recorded:
            turn.is_reopened = self.is_replay = False
            return True
        return turn.peek(MayHaveBegun) is not None or turn.peek(CommandStarted) is not None

    def _access(self, number: int, place: Place, where: Host, budget: TokenBudget) -> StepSecrets:
        """The attempt's secrets, with the tokens that an earlier process has given to its command."""
        step = self.step
        secrets = step_secrets(step.context, step.position, step.body, where, place, budget)
        for given in step.turn.given:
            if given.attempt == number:
                secrets.take_up(given)
        return secrets
