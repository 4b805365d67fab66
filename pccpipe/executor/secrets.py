"""Give a step's secrets to its command: the values themselves, or tokens for the proxy in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.executor.budget import StepBudget, caused_by
from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.outcome import Code, Outcome, Place
from pccpipe.record.events import SecretsGiven
from pccpipe.secrets.proxy.grant import Api, Grant
from pccpipe.secrets.proxy.provider_limits import ProviderLimit, ProviderLimits
from pccpipe.secrets.proxy.proxy import EGRESS, digest
from pccpipe.secrets.proxy.request import Rules
from pccpipe.spec.model import Host, Run
from pccpipe.spec.secret import Secret, Via
from pccpipe.values import Json


class StepSecrets:
    """The secrets of one attempt; `close` revokes its tokens.

    Args:
        hands_over: whether another agent, or a later process, takes over after a provider's limit.
    """

    def __init__(
        self,
        context: RunContext,
        modes: Mapping[str, Via],
        grant: Grant | None,
        budget: StepBudget,
        *,
        hands_over: bool = False,
    ) -> None:
        self._context = context
        self._modes = modes
        self._grant = grant
        self._budget = budget
        self._hands_over = hands_over
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
    def limit(self) -> ProviderLimit | None:
        """The provider's limit that lasts too long, as the last answer of the model's API said."""
        return self._grant.provider_limits.beyond if self._grant else None

    @property
    def quiet(self) -> float:
        """The seconds since the last call of a model through the proxy; infinite without a proxy."""
        return self._grant.open_calls.quiet if self._grant else math.inf

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
        grant = self._grant if self._hands_over and ended.outcome is Outcome.FAILED else None
        if grant and (limit := grant.provider_limits.conclude()):
            code = caused_by(ended, Code.MODEL_LIMITED)
            return replace(ended, message=f"{limit.sentence} ({ended.message})", code=code)
        if self._grant and self._grant.trouble and ended.outcome is Outcome.FAILED:
            code = caused_by(ended, Code.MODEL_UNAVAILABLE)
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


def step_secrets(
    context: RunContext,
    position: WalkPosition,
    body: Run,
    where: Host,
    place: Place,
    budget: StepBudget,
    upstreams: Mapping[str, str],
    provider_limits: ProviderLimits,
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
    grant = Grant(apis, egress, budget.meter, budget.warn, provider_limits) if apis or egress else None
    modes = {name: secret.via for name, secret in declared.items()}
    return StepSecrets(context, modes, grant, budget, hands_over=body.agent is not None)


def _rules(secret: Secret, names: Mapping[str, object]) -> Rules:
    return Rules(secret.hosted_tools, tuple(model.render(names) for model in secret.models), secret.service_tiers)
