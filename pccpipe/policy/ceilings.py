"""Gives a pipeline the ceilings of a policy where it sets no limit of its own."""

from __future__ import annotations

from msgspec.structs import replace

from pccpipe.policy.policy import Ceilings
from pccpipe.spec.model import Budget, Group, Parallel, Pipeline, Repeat, Run, Step, Value
from pccpipe.spec.secret import Via


def with_ceilings(pipeline: Pipeline, ceilings: Ceilings) -> Pipeline:
    """Return the pipeline with a limit wherever the policy has a ceiling and the pipeline has none."""
    proxied = frozenset(name for name, secret in pipeline.secrets.items() if secret.via is Via.PROXY)
    timeout = pipeline.timeout
    if timeout is None and ceilings.timeout is not None:
        timeout = Value(known=ceilings.timeout)
    return replace(
        pipeline,
        timeout=timeout,
        budget=_budget(pipeline.budget, ceilings.run_tokens, ceilings.run_usd) if proxied else pipeline.budget,
        steps=tuple(_held(step, ceilings, proxied) for step in pipeline.steps),
        always=tuple(_held(step, ceilings, proxied) for step in pipeline.always),
    )


def _budget(budget: Budget | None, tokens: int | None, usd: float | None) -> Budget | None:
    """Return the budget with a limit for each ceiling; a person may raise it up to that."""
    if tokens is None and usd is None:
        return budget
    budget = budget or Budget()
    return replace(
        budget,
        tokens=Value(known=tokens) if budget.tokens is None and tokens is not None else budget.tokens,
        usd=Value(known=usd) if budget.usd is None and usd is not None else budget.usd,
        most_tokens=tokens,
        most_usd=usd,
    )


def _held(step: Step, ceilings: Ceilings, proxied: frozenset[str]) -> Step:
    body = step.body
    match body:
        case Repeat() | Parallel() | Group():
            body = replace(body, steps=tuple(_held(inner, ceilings, proxied) for inner in body.steps))
        case Run():
            if ceilings.log is not None:
                body = replace(body, log_limit=min(body.log_limit, ceilings.log))
            agents = body.agent.agents if body.agent else ()
            if proxied.intersection((*body.secrets, *(agent.secret for agent in agents if agent.secret))):
                body = replace(body, budget=_budget(body.budget, ceilings.tokens, ceilings.usd))
        case _:
            pass
    return replace(step, body=body, always=tuple(_held(inner, ceilings, proxied) for inner in step.always))
