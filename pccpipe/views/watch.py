"""Keeps what the views of a running run share: its state, and the last lines of each step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pccpipe.outcome import ActionKind, Outcome, Stream
from pccpipe.record.agent_events import Activity, ModelUsed
from pccpipe.record.events import CommandEnded, CommandStarted, Event, Output, StepEnded
from pccpipe.record.state import RunState
from pccpipe.record.step_state import StepState
from pccpipe.views.activity import QUIET, AgentWatch, activity_text, end_text, used_text
from pccpipe.views.text import Lines, output_line
from pccpipe.words import duration, limit

TAIL = 20
"""Lines kept of each step's output for a view; the log has all of them."""


class Watch:
    """Fold events into the run's state, and pieces of output into lines.

    Of a step with `agent:`, the agent's actions are its lines; the JSON on its stdout is not shown.
    `earlier` are the events from before a resume, which are not shown again.
    """

    def __init__(self, earlier: Iterable[Event] = ()) -> None:
        self.state = RunState()
        self._agents: dict[str, AgentWatch] = {}
        for event in earlier:
            self._fold(event)
        self._tails: dict[str, deque[str]] = {}
        self._lines: dict[str, dict[Stream, Lines]] = {}
        self._running: dict[str, str] = {}
        """The id of the command that a step's last line shows as running."""

    def feed(self, event: Event) -> str:
        """Fold an event; returns the lines of output that it completes, not harmless yet, each with its newline."""
        self._fold(event)
        match event.what:
            case Output(step=step, stream=Stream.STDOUT) if step in self._agents:
                return ""
            case Output(step, stream, text):
                lines = self._lines.setdefault(step, {each: Lines() for each in Stream})[stream]
                return self._keep(step, lines.feed(text))
            case Activity():
                return self._action(event.what)
            case CommandEnded(step=step):
                pending = self._lines.pop(step, {})
                return "".join(self._keep(step, lines.finish()) for lines in pending.values())
            case StepEnded(step=step, outcome=outcome):
                self._agents.pop(step, None)
                if outcome in {Outcome.SUCCEEDED, Outcome.SKIPPED}:
                    self._tails.pop(step, None)
            case _:
                pass
        return ""

    def tail(self, step: str, most: int = TAIL) -> list[str]:
        """Return the last lines of a step, harmless; also the incomplete one."""
        rests = [lines.rest for lines in self._lines.get(step, {}).values() if lines.rest]
        kept = [*self._tails.get(step, ()), *rests]
        return [output_line(line) for line in kept[max(0, len(kept) - most) :]]

    def live_tail(self, step: str, most: int, now: float) -> list[str]:
        """Return the lines below a running step: of an agent, its work in numbers and its last actions."""
        agent, state = self._agents.get(step), self.state.steps.get(step)
        if agent is None or state is None or most <= 0:
            return self.tail(step, most)
        head = [line for line in (_work(agent, now), _limits(state, now)) if line]
        return [*head[:most], *agent.tail(most - len(head), now)][:most]

    def _fold(self, event: Event) -> None:
        self.state.apply(event)
        match event.what:
            case CommandStarted(step=step, agent=name) if name:
                self._agents[step] = AgentWatch(last=event.time)
            case Activity(step=step) if step in self._agents:
                self._agents[step].feed(event.what, event.time)
            case Output(step=step) | ModelUsed(step=step) if step in self._agents:
                self._agents[step].last = event.time
            case _:
                pass

    def _action(self, what: Activity) -> str:
        """Return an action as a line; the end of the command in the line before is short."""
        running = self._running.pop(what.step, None)
        text = activity_text(what)
        if what.kind is ActionKind.COMMAND:
            self._running[what.step] = what.id
        elif what.kind is ActionKind.COMMAND_END and running == what.id:
            text = f"  {end_text(what)}"
        return self._keep(what.step, f"{text}\n") if text else ""

    def _keep(self, step: str, lines: str) -> str:
        tail = self._tails.setdefault(step, deque(maxlen=TAIL))
        if lines:
            start = len(lines) - 1
            for _ in range(TAIL):
                start = lines.rfind("\n", 0, max(0, start))
            tail.extend(lines[start + 1 : -1].split("\n"))
        return lines


def _work(agent: AgentWatch, now: float) -> str:
    quiet = now - agent.last
    parts = [agent.work(), f"quiet for {duration(quiet)}" if quiet >= QUIET else ""]
    return " · ".join(part for part in parts if part)


def _limits(step: StepState, now: float) -> str:
    """Say how much of its budget and of its time a step has used."""
    parts = [used_text(step.model) if step.model else ""]
    if step.timeout is not None and step.started_at is not None:
        parts.append(f"{duration(now - step.started_at)} of {limit(step.timeout)}")
    return " · ".join(part for part in parts if part)
