"""The end of a run, for the caller."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from pccpipe.outcome import Outcome
from pccpipe.record.state import RunState


class RunResult(Struct, frozen=True):
    """The end of a run. `record` is its folder.

    `status` is the outcome's word, the `fails_as` of the step that ended it, or `vm_busy`.

    A run that waits for a model has no outcome yet, its status is `waiting_for_model`, and `state.due` says until when.
    A run that waits for a person has none either. Its status is `waiting_for_input`; `state.open_questions` has what
    `answer` needs, and `resume` continues it. A stopped run (`state.stopped`) is `unavailable` and keeps its workspace;
    `resume` continues it too.
    """

    record: Path
    state: RunState

    @property
    def run_id(self) -> str:
        return self.state.run_id

    @property
    def outcome(self) -> Outcome | None:
        return self.state.outcome

    @property
    def status(self) -> str:
        return self.state.status

    @property
    def message(self) -> str:
        return self.state.message

    @property
    def downgraded(self) -> bool:
        return self.state.downgraded

    @property
    def exit_status(self) -> int:
        """The command's exit status: 0, 1 failed or timed out, 3 unavailable or lost, 5 waiting, 130, 143 cancelled."""
        match self.outcome:
            case None:
                return 5
            case Outcome.SUCCEEDED | Outcome.SKIPPED:
                return 0
            case Outcome.FAILED | Outcome.TIMED_OUT:
                return 1
            case Outcome.UNAVAILABLE | Outcome.LOST:
                return 3
            case Outcome.CANCELLED:
                return 143 if self.state.cancelled_by == "TERM" else 130
