"""Pass a step from one of its agents to the next when a provider's limit lasts too long; at the end, let the run wait.

Only the proxy's account of the API's answers decides that: no text of an agent, and no exit code.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from msgspec.structs import replace

from pccpipe.executor.context import StepOutcome, halted
from pccpipe.executor.input_request import InputState
from pccpipe.executor.run_step import RunStep
from pccpipe.outcome import Code, Outcome
from pccpipe.record.agent_events import AgentChanged, ModelLimited, StepWaiting
from pccpipe.secrets.proxy.provider_limits import ProviderLimit, ProviderLimits

FIRST_WAIT = 300.0
"""Seconds that a run waits for a limit whose end the API does not state; each further wait is twice as long."""
LONGEST_WAIT = 3600.0
SHORTEST_WAIT = 60.0
"""Seconds that a run waits at least: a provider that is limited again at once is not asked in a loop."""


def with_agents(step: RunStep, run: Callable[[], StepOutcome]) -> StepOutcome:
    """Call `run` for the step's first agent, and for the next one after each provider's limit.

    After the last one, the run waits; the process that resumes it begins with the first agent again.
    """
    whole, turn = step.body, step.turn
    if whole.agent is None:
        return run()
    agents = whole.agent.agents
    for waits in itertools.count():
        limits: list[ModelLimited | None] = []
        for agent, following in itertools.zip_longest(agents, agents[1:]):
            step.body = whole.by(agent)
            ended = run()
            limits.append(turn.limits.get(step.attempts))
            if ended.code is not Code.MODEL_LIMITED:
                return ended
            if _is_over(step):
                return _halted(step, ended)
            if following:
                changed = AgentChanged(step.path, step.attempts + 1, following.name, agent.name, ended.message)
                step.context.record_once(turn, changed)
        is_new = turn.consume(StepWaiting) is None
        if not is_new and _is_over(step):
            return _halted(step, ended)
        if is_new:
            # The steps under `always:` end a run; they do not wait.
            return ended if step.position.always else _waiting(step, ended, _due(limits, waits))
    raise AssertionError


def _is_over(step: RunStep) -> bool:
    """Say whether no agent may begin any more, and the record has none that began."""
    return step.halt.requested and not step.turn.recorded


def _halted(step: RunStep, ended: StepOutcome) -> StepOutcome:
    over = halted(step.halt)
    return replace(over, message=f"{over.message}; {ended.message}")


def _waiting(step: RunStep, ended: StepOutcome, due: float) -> StepOutcome:
    step.context.journal.append(StepWaiting(step.path, ended.message, due))
    # Its turn has not ended, and the `retry:` of a group around must not repeat it.
    words = f"{step.path} waits for its model: {ended.message}"
    return StepOutcome(Outcome.SUCCEEDED, message=words, input=InputState.WANTED, due=due)


def _due(limits: list[ModelLimited | None], waits: int) -> float:
    """Return the time of the next try: when the first limit passes that the providers stated, else after a while."""
    now = time.time()
    stated = [limit.until for limit in limits if limit and limit.until is not None]
    if len(stated) < len(limits):
        stated.append(now + min(FIRST_WAIT * 2 ** min(waits, 10), LONGEST_WAIT))
    return max(min(stated), now + SHORTEST_WAIT)


def provider_limits(step: RunStep, number: int) -> ProviderLimits:
    """Return the account of the limits that an attempt meets, with one that an earlier process of the run recorded."""
    if step.body.agent is None:
        return ProviderLimits(step.position.deadline)
    turn = step.turn

    def record(limit: ProviderLimit) -> None:
        turn.limits[number] = ModelLimited(step.path, number, limit.words, limit.until)
        step.context.journal.append(turn.limits[number])

    known = turn.limits.get(number)
    return ProviderLimits(step.position.deadline, record, ProviderLimit(known.message, known.until) if known else None)
