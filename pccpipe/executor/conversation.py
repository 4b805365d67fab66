"""Continue an agent's session in the step's next container, and keep it from there for the one after it.

A session goes only from a container to a container, of the same step and the same agent. It starts cold, with a
warning, if anything about its transcripts is odd: that never fails the step.
"""

from __future__ import annotations

import contextlib

from msgspec import Struct
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import Halted, Lost, ResultError, Unavailable
from pccpipe.executor.agent import keeps_session
from pccpipe.executor.context import StepOutcome
from pccpipe.executor.repair import is_repairable
from pccpipe.executor.replay import SessionKey, session_key
from pccpipe.executor.run_step import RunStep
from pccpipe.executor.transcripts import NotKept, pack, read_transcripts
from pccpipe.layout import SESSIONS
from pccpipe.outcome import Outcome, Place
from pccpipe.record.agent_events import SessionKept
from pccpipe.record.events import CommandStarted, Warned
from pccpipe.record.files import write_atomically
from pccpipe.target import PACKED, Command, HomeFiles, Running

SESSION = "PCC_SESSION"
_COMPLETE = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT})
_BY_SIGNAL = 128
"""The exit code of a shell whose command a signal ended is above it."""
_MEMORY_EACH = 12
"""Bytes of memory that a shell takes at most, for each byte of an archive that it unpacks."""


def conversation_of(step: RunStep, attempt: int, place: Place) -> Conversation | None:
    """Return the session of an attempt's agent; None if there is nothing to continue or to keep."""
    task = step.body.agent
    if task is None:
        return None
    if not keeps_session(step.body, place):
        if task.session and place is not Place.CONTAINER:
            words = f"the session {task.session!r} starts cold: it stays in containers, and this attempt runs elsewhere"
            step.context.journal.append(Warned(words, step.path))
        return None
    files = task.agent.description.session
    assert files is not None
    keeps = HomeFiles(files.folder, files.files, limits.TRANSCRIPTS.most)
    return Conversation(step, attempt, task.agent.name, task.session or "", keeps)


class Conversation(Struct):
    """The session of an agent in one attempt of a step.

    Attributes:
        name: as `session:` names it; empty for one that only a repair continues.
        id: the agent's own id of what the command continues; empty for a cold start.
        command: the id of the command.
    """

    step: RunStep
    attempt: int
    agent: str
    name: str
    keeps: HomeFiles
    id: str = ""
    command: str = ""

    @property
    def _key(self) -> SessionKey:
        return session_key(self.step.path, self.attempt, SessionKept(self.name, self.agent))

    def continued_by(self, command: Command, *, is_repair: bool) -> Command:
        """Return the command with the session that it continues, and with the order to pack it."""
        self.id, self.command = "", command.id
        archive = self._archive(command) if self.name or is_repair else b""
        return replace(command, env={**command.env, SESSION: self.id}, memory=archive, keeps=self.keeps)

    def attach(self, started: CommandStarted) -> None:
        """Take over the command that an earlier process began."""
        self.id, self.command = started.session, started.command

    def _archive(self, command: Command) -> bytes:
        kept = self.step.context.replay.sessions.get(self._key)
        if kept is None or not kept.file:
            return b""
        try:
            archive = (self.step.context.run_dir / kept.file).read_bytes()
        except OSError as error:
            self._warn(f"{kept.file} cannot be read: {error.strerror}")
            return b""
        # The last bytes of a gzip file have the size that it unpacks to.
        unpacked = int.from_bytes(archive[-4:], "little")
        box = command.container
        if box and (box.home_size < 2 * unpacked or (box.memory or 1 << 62) < unpacked + _MEMORY_EACH * len(archive)):
            self._warn("the container has too little memory for it")
            return b""
        self.id = kept.id
        return archive

    def keep(self, running: Running, ended: StepOutcome, agent_id: str) -> SessionKept | None:
        """Keep the session that a command left; None if it left none, so that the one before it still counts.

        Args:
            agent_id: the id that the agent reported for it; empty if it reported none.
        """
        if ended.exit_code is None or ended.outcome not in _COMPLETE or not (self.name or is_repairable(ended)):
            return None
        if self.id and agent_id and agent_id != self.id:
            words = f"the agent did not continue its session {self.id}: it began {agent_id}"
            self.step.context.journal.append(Warned(words, self.step.path))
        cold = SessionKept(self.name, self.agent)
        if self.id and not agent_id and 0 < ended.exit_code < _BY_SIGNAL:
            # Kept, a damaged session would fail every turn from now on.
            self._warn("the agent ended with an error before it continued it")
            return cold
        try:
            packed = self._fetched(running)
            files = read_transcripts(packed, self.keeps, self.step.context.masker) if packed else {}
            if not files:
                return None
            if not (known := agent_id or self.id):
                raise NotKept("the agent did not report its id")
            kept = replace(cold, id=known, file=f"{SESSIONS}/{self.command}.tgz")
            target = self.step.context.run_dir / kept.file
            target.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(target, pack(files))
        except NotKept as error:
            self._warn(f"{error}")
            return cold
        except OSError as error:
            self._warn(f"its transcripts cannot be written: {error.strerror}")
            return cold
        return kept

    def use(self, kept: SessionKept) -> None:
        """Let the next turn continue this session, and remove the one before. Call it once the record has it."""
        sessions = self.step.context.replay.sessions
        before, sessions[self._key] = sessions.get(self._key), kept
        if before and before.file and before.file != kept.file:
            with contextlib.suppress(OSError):
                (self.step.context.run_dir / before.file).unlink(missing_ok=True)

    def _fetched(self, running: Running) -> bytes:
        """Return the archive that the container packed; empty if it packed none, or is unreachable now."""
        most = self.keeps.most + limits.TRANSCRIPT_HEADS.most
        try:
            return unless_halted(Halt(self.step.context.cancel), lambda: running.fetch(PACKED, most))
        except (ResultError, Unavailable, Lost, Halted):
            return b""

    def _warn(self, why: str) -> None:
        whose = f"the session {self.name!r}" if self.name else "its session"
        self.step.context.journal.append(Warned(f"{whose} starts cold: {why}", self.step.path))
