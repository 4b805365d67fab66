"""Find out when a background command is ready, with its `ready:` at the same place."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Cancel, Deadline
from pccpipe.errors import PccpipeError, RecordFull, Unavailable
from pccpipe.executor.background import Background
from pccpipe.executor.command import STOP_MARGIN, make_command
from pccpipe.executor.turn_end import running_view
from pccpipe.executor.waiting import Wait, wait_for_place
from pccpipe.record.events import BackgroundReady
from pccpipe.record.logs import CommandLog
from pccpipe.shells import dialect_of
from pccpipe.spec.ready import Ready
from pccpipe.target import Chunk, Command, Exit, Running

if TYPE_CHECKING:
    from pccpipe.executor.attempt import Attempt

SHOWN = 400
"""Characters of a failed check's output that its message shows."""
LOOK = 0.5
"""Seconds of one wait for the check's output."""
SHORTEST = 0.05
"""Seconds between two checks, at least."""


@contextlib.contextmanager
def until_ready(attempt: Attempt, log: CommandLog) -> Iterator[None]:
    """Find out beside the block, which follows a background command, when it is ready; do nothing for others."""
    background, ready = attempt.step.position.background, attempt.step.body.ready
    if background:
        background.followed.set()
        position, step_id = attempt.step.position, attempt.step.spec.id
        position.scope.steps[step_id] = running_view(log.stdout_path, log.stderr_path, position.scope.steps[step_id])
    if background and ready is None and not background.is_ready:
        attempt.context.journal.append(BackgroundReady(attempt.path, attempt.number))
        background.ready()
    if background is None or ready is None or background.is_ready:
        yield
        return
    with attempt.context.cancel.child() as over:
        check = _Check(attempt, background, ready, over)
        thread = threading.Thread(target=check.run, name="pccpipe-ready", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.request()
            thread.join()
    if check.error:
        raise check.error


class _Check:
    """Checks at the command's place that it is ready, until it is or its time is over."""

    def __init__(self, attempt: Attempt, background: Background, ready: Ready, over: Cancel) -> None:
        self._attempt = attempt
        self._background = background
        self._ready = ready
        self._over = over
        self._said = b""
        self.error: BaseException | None = None
        """Raised in the thread that follows the command."""

    def run(self) -> None:
        """Check, in a thread of its own."""
        try:
            self._check()
        except Unavailable as error:
            # Of a fenced run, the command itself ends in the same way.
            if self._attempt.context.targets.fenced is None:
                self._background.fail(f"not ready: {error.words}")
        except RecordFull as error:
            self.error = error
        except (PccpipeError, OSError) as error:
            self._background.fail(f"not ready: {error}")
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that follows the command
            self.error = error
            self._background.fail("pccpipe itself failed")

    def _check(self) -> None:
        began = time.monotonic()
        context, deadline = self._attempt.context, Deadline.after(self._ready.timeout, "ready")
        running = self._begun(deadline)
        with self._over.watched_by(lambda _: running.stop(0.0)):
            exit_ = self._followed(running, deadline)
        if exit_ and exit_.code == 0 and not self._over.requested:
            seconds = round(time.monotonic() - began, 3)
            ready = BackgroundReady(self._attempt.path, self._attempt.number, seconds)
            context.journal.append(ready, when_synced=running.discard)
            self._background.ready()
            return
        running.discard()
        if exit_ and not self._over.requested:
            self._fail(f"(exit code {exit_.code})")

    def _fail(self, why: str) -> None:
        lines = self._attempt.context.masker.data(self._said).decode("utf-8", "replace").split("\n")
        said = " ".join([line.strip() for line in lines if line.strip()][-2:])[-SHOWN:]
        self._background.fail(f"not ready {why}; its check says: {said}" if said else f"not ready {why}")

    def _begun(self, deadline: Deadline) -> Running:
        attempt, command = self._attempt, self._command()
        wait = Wait(attempt.place, attempt.path, deadline)
        return wait_for_place(attempt.context, wait, lambda: attempt.begun_beside(command))

    def _followed(self, running: Running, deadline: Deadline) -> Exit | None:
        """Read the check to its end; return None if its time was over before. Raises Lost."""
        is_late = False
        while not isinstance(read := running.read(LOOK if is_late else min(LOOK, deadline.left)), Exit):
            if isinstance(read, Chunk):
                self._said = (self._said + read.data)[-limits.READY_OUTPUT.most :]
            if deadline.passed and not is_late:
                is_late = True
                self._fail(f"within {self._ready.timeout:g} s")
                running.stop(0.0)
        return None if is_late else read

    def _command(self) -> Command:
        """Make one command of all attempts: each costs no round trip to the VM."""
        attempt, step = self._attempt, self._attempt.step
        command = make_command(
            step.context, step.position, step.spec, step.body, attempt.where, attempt.place, attempt.serial, None
        )
        check = self._ready.run.render_for_shell(step.position.scope.on(attempt.place.value).names)
        shell = command.shell if dialect_of(command.shell) else "sh -e"
        pause = max(self._ready.every, SHORTEST)
        return replace(
            command,
            id=f"{command.id}.ready",
            script=f'until {shell} -c {shlex.quote(check)}; do echo "(exit code $?)" >&2; sleep {pause:g}; done\n',
            shell="sh",
            wants_out=False,
            has_exports=False,
            limit=self._ready.timeout + attempt.context.project.lost_after + STOP_MARGIN,
        )
