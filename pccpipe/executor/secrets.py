"""Give a step's secrets to its command: the values themselves, or tokens for the proxy in their place."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.numbers import whole_number_of
from pccpipe.executor.replay import Turn
from pccpipe.outcome import Code, Outcome, Place
from pccpipe.record.events import ModelUsed, SecretsGiven, Warned
from pccpipe.secrets.proxy.grant import Api, Grant, Meter, ModelUse, TokenPool
from pccpipe.secrets.proxy.proxy import EGRESS, digest
from pccpipe.secrets.proxy.request import Rules
from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.spec.model import Host, Run, Secret, Via
from pccpipe.values import Json


class TokenBudget:
    """The tokens that one turn of a step may use, over all of its attempts; each use is in the journal.

    Args:
        limit: the turn's `max_tokens`.
        used: the use of this turn in an earlier process of the run.
        pool: the budget of all turns of the step.
    """

    def __init__(
        self, context: RunContext, path: str, limit: int | None, used: ModelUsed | None, pool: TokenPool
    ) -> None:
        self._context = context
        self._path = path
        self._has_warned = bool(used and used.refused)
        before = ModelUse()
        if used:
            tokens = Tokens(used.input_tokens, used.cached_input_tokens, used.output_tokens, used.estimated_tokens)
            before = ModelUse(used.calls, used.refused, tokens, used.reserved_tokens)
        self.meter = Meter(limit, before, self._record_use, pool)

    def explain(self, ended: StepOutcome, step_id: str) -> StepOutcome:
        """Return the outcome with the budget as its cause, if the model refused calls for it."""
        how = f" ({ended.message})" if ended.message else ""
        refused = self.meter.used.refused
        if refused and ended.outcome is not Outcome.SUCCEEDED:
            code = _caused_by(ended, Code.BUDGET_EXCEEDED) if ended.outcome is Outcome.FAILED else ended.code
            calls = f"{refused} call{'s' if refused > 1 else ''} of the model refused: {self.meter.account}"
            words = f"stopped by its budget: {calls}; raise `{self.meter.binding}` of {step_id}{how}"
            return replace(ended, message=words, code=code)
        return ended

    def warn_if_overdrawn(self) -> None:
        """Warn of a last call that took more than was left."""
        if not self.meter.used.refused and self.meter.is_overdrawn:
            self.warn(f"its last call took more than its budget had left: {self.meter.account}")

    def warn(self, words: str) -> None:
        self._context.journal.append(Warned(words, self._path))

    def _record_use(self, used: ModelUse) -> None:
        tokens, pool = used.tokens, self.meter.pool
        if used.refused and not self._has_warned:
            self._has_warned = True
            self.warn(f"calls of the model are refused (budget_exceeded): {self.meter.account}")
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
                pool.limit,
                pool.used,
            )
        )


class StepSecrets:
    """The secrets of one attempt; `close` revokes its tokens."""

    def __init__(self, context: RunContext, modes: Mapping[str, Via], grant: Grant | None, budget: TokenBudget) -> None:
        self._context = context
        self._modes = modes
        self._grant = grant
        self._budget = budget
        self._tokens: dict[str, str] = {}
        self._masked: list[str] = []

    @property
    def values(self) -> dict[str, str]:
        """Return the values or tokens that the command gets, by variable."""
        values = self._context.secrets
        return {name: values[name] if via is Via.DIRECT else self._tokens[name] for name, via in self._modes.items()}

    @property
    def is_proxied(self) -> bool:
        return self._grant is not None

    @property
    def way_out(self) -> str:
        """Return the token for connections out of its container; empty if it has none."""
        return self._tokens.get(EGRESS, "")

    def restore(self, given: SecretsGiven) -> None:
        """Serve the tokens that an earlier process of the run issued for the attempt."""
        if self._grant:
            known = {name: value for name, value in given.tokens.items() if isinstance(value, str)}
            self._context.proxy.know(self._grant, known, self._learn)

    def issue(self, path: str, attempt: int) -> None:
        """Issue tokens for a command before it begins, and record how its secrets reach it."""
        if self._grant:
            self._tokens = self._context.proxy.issue(self._grant)
            for token in self._tokens.values():
                self._learn(token)
        if self._modes or self._tokens:
            modes: dict[str, Json] = {name: via.value for name, via in self._modes.items()}
            digests: dict[str, Json] = {name: digest(token) for name, token in self._tokens.items()}
            self._context.journal.append(SecretsGiven(path, attempt, modes, digests))

    def explain(self, ended: StepOutcome, step_id: str) -> StepOutcome:
        """Return the outcome with its cause, if that is the budget or the model's API."""
        explained = self._budget.explain(ended, step_id)
        if explained is not ended:
            return explained
        if self._grant and self._grant.trouble and ended.outcome is Outcome.FAILED:
            code = _caused_by(ended, Code.MODEL_UNAVAILABLE)
            return replace(ended, message=f"{self._grant.trouble} ({ended.message})", code=code)
        self._budget.warn_if_overdrawn()
        return ended

    def close(self) -> None:
        """Revoke the tokens, and stop masking them. Idempotent."""
        if self._grant:
            self._context.proxy.end(self._grant)
        masked, self._masked = self._masked, []
        self._context.masker.drop(masked)

    def _learn(self, token: str) -> None:
        self._context.masker.add([token])
        self._masked.append(token)


def _caused_by(ended: StepOutcome, code: Code) -> Code:
    """Return the code of a failed step whose command could not use its model: that is why it left no good result."""
    effects = {Code.NO_RESULT, Code.BAD_RESULT, Code.OUTPUT_LOST}
    return code if ended.code is None or ended.code in effects else ended.code


def budget_of(context: RunContext, position: WalkPosition, path: str, body: Run, turn: Turn) -> TokenBudget:
    """Return the budget of a step's turn. Raises ExpressionError, PccpipeError."""
    names = position.scope.names
    pool = context.replay.pool(path, whole_number_of(body.budget, names, "budget"))
    return TokenBudget(context, path, whole_number_of(body.max_tokens, names, "max_tokens"), turn.used, pool)


def step_secrets(
    context: RunContext,
    position: WalkPosition,
    body: Run,
    where: Host,
    place: Place,
    budget: TokenBudget,
    upstreams: Mapping[str, str],
) -> StepSecrets:
    """Return the secrets of an attempt at a place, before tokens are issued. Raises ExpressionError, UsageError.

    Args:
        upstreams: base URLs that replace those of the pipeline.
    """
    declared = {name: context.pipeline.secrets[name] for name in body.secrets}
    names = position.scope.on(place.value).names
    apis = tuple(
        Api.at(
            name,
            context.secrets[name],
            upstreams.get(name) or secret.upstream.render(names),
            secret.allow,
            _rules(secret, names),
            secret.api,
        )
        for name, secret in declared.items()
        if secret.upstream and secret.api
    )
    egress = where.container.egress if where.container and place is Place.CONTAINER else ()
    grant = Grant(apis, egress, budget.meter, budget.warn) if apis or egress else None
    return StepSecrets(context, {name: secret.via for name, secret in declared.items()}, grant, budget)


def _rules(secret: Secret, names: Mapping[str, object]) -> Rules:
    return Rules(secret.hosted_tools, tuple(model.render(names) for model in secret.models), secret.service_tiers)
