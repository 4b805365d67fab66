"""Follow an agent at its work: its actions go to the views and into the record, their sum into the attempt's end."""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.agents.stream import Action, AgentReader
from pccpipe.executor.context import RunContext
from pccpipe.executor.run_step import RunStep
from pccpipe.outcome import ActionKind
from pccpipe.record.activity import ActivityLog, activity_name
from pccpipe.record.agent_events import Activity
from pccpipe.record.agent_report import AgentReport, EditedFile
from pccpipe.record.events import Event
from pccpipe.record.logs import CommandLog
from pccpipe.target import Running

MORE = "more than the limit of an agent's actions: no more is shown; the attempt's report counts them"


def agent_output(step: RunStep, running: Running, log: CommandLog) -> AgentOutput | None:
    """Return what follows the agent of a step; None for a step without one."""
    if step.body.agent is None:
        return None
    about = step.body.agent.agent.description
    folder = running.isolation.workspace or ""
    reader = AgentReader(about.events, about.result, usage_adds_up=about.usage_adds_up, folder=folder)
    file = step.context.run_dir / activity_name(log.stdout_name)
    return AgentOutput(step.context, step.path, reader, ActivityLog(file, step.context.room))


class AgentOutput:
    """Pass the actions in an agent's masked stdout on. A reader that attached comes to the earlier ones again.

    Args:
        log: the file of the actions; closed by `finish`.
    """

    def __init__(self, context: RunContext, path: str, reader: AgentReader, log: ActivityLog) -> None:
        self._context = context
        self._path = path
        self._log = log
        self._earlier = list(reversed(log.earlier))
        self._began: dict[str, float] = {}
        self._more = Activity(path, ActionKind.OUTPUT, MORE)
        self._is_full = self._earlier[:1] == [self._more]
        self.reader = reader
        self.had_secret = False
        """A secret was masked in its stdout."""

    def feed(self, data: bytes) -> None:
        self._pass_on(self.reader.feed(data))

    def skip(self) -> None:
        """Note a gap in the output."""
        self.reader.skip()

    def finish(self) -> None:
        self._pass_on(self.reader.finish())
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._log.close()

    def report(self) -> AgentReport:
        """Return the sum of the agent's work."""
        counts, usage, mask = self.reader.counts, self.reader.usage, self._context.masker.message
        last = self.reader.last_message.strip()
        cut = last if len(last) <= limits.AGENT_TEXT.most else f"{last[: limits.AGENT_TEXT.most]}..."
        return AgentReport(
            commands=counts.commands,
            failed_commands=counts.failed_commands,
            files=tuple(EditedFile(mask(name), file.added, file.removed) for name, file in counts.files.items()),
            more_files=counts.more_files,
            messages=counts.messages,
            last_message=mask(cut),
            retries=counts.retries,
            error=mask(self.reader.error),
            input_tokens=usage.input_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
            usd=usage.usd,
        )

    def _pass_on(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if self._is_full and not self._earlier:
                continue
            activity = self._activity(action)
            if self._is_known(activity):
                self._context.journal.append(self._earlier.pop())
            elif not self._is_full:
                self._is_full = not self._log.write(Event(0, time.time(), activity))
                if self._is_full:
                    self._log.write(Event(0, time.time(), self._more), is_last=True)
                self._context.journal.append(self._more if self._is_full else activity)

    def _is_known(self, activity: Activity) -> bool:
        """Say whether an earlier process recorded it; once one differs, none of the later ones counts as known."""
        if not self._earlier:
            return False
        if replace(self._earlier[-1], seconds=None) == replace(activity, seconds=None):
            return True
        self._earlier.clear()
        return False

    def _activity(self, action: Action) -> Activity:
        now, seconds = time.monotonic(), None
        if action.kind is ActionKind.COMMAND and len(self._began) < limits.AGENT_COMMANDS.most:
            self._began[action.id] = now
        elif action.kind is ActionKind.COMMAND_END and (began := self._began.pop(action.id, None)) is not None:
            seconds = round(now - began, 3)
        mask = self._context.masker.message
        return Activity(
            self._path,
            action.kind,
            mask(action.text),
            mask(action.id),
            action.exit_code,
            action.failed,
            seconds,
            action.added,
            action.removed,
        )
