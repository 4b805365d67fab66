"""Hold the calls of a model by a step to its budgets, and ask a person to raise one that is used up."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.executor.numbers import number_of, whole_number_of
from pccpipe.executor.replay import Turn
from pccpipe.outcome import Code, Outcome
from pccpipe.record.agent_events import ModelUsed
from pccpipe.record.events import InputAsked, Warned
from pccpipe.secrets.prices import MICROS, micros
from pccpipe.secrets.proxy.accounts import BudgetAccount, SpendLimits
from pccpipe.secrets.proxy.meter import Meter, ModelUse, fix_of
from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.spec.model import Budget, Run
from pccpipe.words import money as in_words


class StepBudget:
    """The tokens and the money that one turn of a step may use, over all of its attempts.

    Each use is in the journal.

    Args:
        limit: the turn's `max_tokens`.
        used: the use of this turn in an earlier process of the run.
        account: of all turns of the step.
        budget: as the pipeline has it.
    """

    def __init__(
        self,
        context: RunContext,
        path: str,
        limit: int | None,
        used: ModelUsed | None,
        account: BudgetAccount,
        budget: Budget | None,
    ) -> None:
        self._context = context
        self._path = path
        self._has_warned = bool(used and used.refused)
        self._account = account
        self._budget = budget
        accounts = context.replay.accounts
        shared = (account, accounts.run, *([accounts.day] if accounts.day else []))
        before = _before(used) if used else ModelUse()
        self.meter = Meter(limit, before, self._record_use, shared, accounts.lock, context.prices)
        if before.reserved or before.reserved_micros:
            self._record_use(self.meter.used)  # the killed process can no longer settle its calls

    def explain(self, ended: StepOutcome, step_id: str) -> StepOutcome:
        """Return the outcome with the budget as its cause, if the model refused calls for it."""
        how = f" ({ended.message})" if ended.message else ""
        used = self.meter.used
        if used.refused and ended.outcome is not Outcome.SUCCEEDED:
            code = caused_by(ended, Code.BUDGET_EXCEEDED) if ended.outcome is Outcome.FAILED else ended.code
            calls = f"{used.refused} call{'s' if used.refused > 1 else ''} of the model refused: {self.meter.account}"
            words = f"stopped by its budget: {calls}; {fix_of(used.refused_by, step_id)}{how}"
            return replace(ended, message=words, code=code)
        return ended

    def warn_if_overdrawn(self) -> None:
        """Warn of a last call that took more than was left."""
        if not self.meter.used.refused and self.meter.is_overdrawn:
            self.warn(f"its last call took more than its budget had left: {self.meter.account}")

    def warn(self, words: str) -> None:
        self._context.journal.append(Warned(words, self._path))

    def ask(self, ended: StepOutcome) -> StepOutcome:
        """Return the end of an attempt that stopped at the step's budget: the run waits for a person to raise it."""
        unit = self.meter.used.refused_by.removeprefix("step.")
        if (
            not self._budget
            or not self._budget.asks
            or ended.code is not Code.BUDGET_EXCEEDED
            or unit not in {"tokens", "usd"}
            or self._context.cancel.requested
        ):
            return ended
        question = self._question(unit)
        if question is None:
            return ended
        self._context.journal.append(question)
        return wants_budget(ended, question)

    def _question(self, unit: str) -> InputAsked | None:
        """Return the question for a higher budget; None if a policy allows no higher one."""
        assert self._budget
        used, limits = self._account.used + self._account.reserved, self._account.limits
        tried = f"its calls of a model: {self.meter.account}"
        if unit == "tokens":
            least: float = max(limits.tokens or 0, used.tokens)
            most: float | None = self._budget.most_tokens
            key, needed, label = "budget", "a higher budget of tokens", f"tokens in all rounds, above {least:,}"
        else:
            least, most = max(limits.micros or 0, used.micros) / MICROS, self._budget.most_usd
            key, needed, label = "usd", "a higher budget of money", f"USD in all rounds, above {in_words(least)}"
        if most is not None and most <= least:
            return None
        up_to = "" if most is None else f", at most {most:,} by the policy"
        return InputAsked(self._path, tried, needed, {key: label + up_to}, {key: least})

    def _record_use(self, used: ModelUse) -> None:
        if used.refused and not self._has_warned:
            self._has_warned = True
            self.warn(f"calls of the model are refused (budget_exceeded): {self.meter.account}")
        tokens, step, run = used.tokens, self._account, self._context.replay.accounts.run
        spent = step.used + step.reserved
        self._context.journal.append(
            ModelUsed(
                self._path,
                used.calls,
                used.refused,
                tokens.input,
                tokens.cached_input,
                tokens.output,
                tokens.estimated,
                self.meter.limit,
                used.reserved,
                step.limits.tokens,
                spent.tokens,
                cache_write_tokens=tokens.cache_write_input,
                usd=_usd(used.micros),
                reserved_usd=used.reserved_micros / MICROS,
                budget_usd=_usd(step.limits.micros),
                budget_used_usd=spent.micros / MICROS,
                refused_by=used.refused_by,
                run_budget_tokens=run.limits.tokens,
                run_budget_usd=_usd(run.limits.micros),
            )
        )


def wants_budget(ended: StepOutcome, question: InputAsked) -> StepOutcome:
    """Return the end of an attempt that waits for a person to raise its budget."""
    return replace(ended, input=InputState.WANTED, message=f"{question.step} needs {question.needed}: {question.tried}")


def caused_by(ended: StepOutcome, code: Code) -> Code:
    """Return the code of a failed step whose command could not use its model: that is why it left no good result."""
    effects = {Code.NO_RESULT, Code.BAD_RESULT, Code.OUTPUT_LOST}
    return code if ended.code is None or ended.code in effects else ended.code


def budget_of(context: RunContext, position: WalkPosition, path: str, body: Run, turn: Turn) -> StepBudget:
    """Return the budget of a step's turn. Raises ExpressionError, PccpipeError."""
    names = position.scope.names
    budget = body.budget or Budget()
    most = SpendLimits(budget.most_tokens, _micros(budget.most_usd))
    account = context.replay.accounts.of_step(path, limits_of(budget, names), most)
    limit = whole_number_of(body.max_tokens, names, "max_tokens")
    return StepBudget(context, path, limit, turn.used, account, body.budget)


def limits_of(budget: Budget | None, names: Mapping[str, object]) -> SpendLimits:
    """Evaluate a budget. Raises ExpressionError, PccpipeError."""
    if budget is None:
        return SpendLimits()
    money = number_of(budget.usd, names, "usd")
    tokens = whole_number_of(budget.tokens, names, "budget")
    return SpendLimits(tokens, _micros(money))


def _before(used: ModelUsed) -> ModelUse:
    tokens = Tokens(
        max(0, used.input_tokens),
        max(0, used.cached_input_tokens),
        max(0, used.output_tokens),
        max(0, used.estimated_tokens),
        cache_write_input=max(0, used.cache_write_tokens),
    )
    spent = None if used.usd is None and tokens.total else micros(used.usd or 0.0)
    reserved = max(0, used.reserved_tokens)
    return ModelUse(used.calls, used.refused, tokens, spent, reserved, micros(used.reserved_usd), used.refused_by)


def _micros(money: float | None) -> int | None:
    return None if money is None else micros(money)


def _usd(amount: int | None) -> float | None:
    return None if amount is None else amount / MICROS
