"""Take the variables that a command left in `$PCC_ENV` for later steps."""

from __future__ import annotations

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import Halted, Lost, ResultError, ResultMissing, Unavailable
from pccpipe.executor.attestation import origin_of, receiver_of
from pccpipe.executor.context import StepOutcome
from pccpipe.executor.exports import read_exports, wants_exports
from pccpipe.executor.run_step import RunStep
from pccpipe.outcome import Code, Outcome, Place
from pccpipe.record.events import Warned
from pccpipe.record.exported import Exported
from pccpipe.spec.model import Host
from pccpipe.target import EXPORTS, Running


def take_exports(step: RunStep, running: Running, ended: StepOutcome, where: Host, place: Place) -> StepOutcome:
    """Return the outcome with the exported variables; a succeeded step fails if its file is refused.

    A step that failed exports too: a cleanup needs the name of what it began.
    """
    if step.body.agent or not wants_exports(where) or ended.outcome not in {Outcome.SUCCEEDED, Outcome.FAILED}:
        return ended
    context = step.context
    try:
        data = unless_halted(Halt(context.cancel), lambda: running.fetch(EXPORTS, limits.EXPORTED_BYTES.most))
        found = read_exports(data, where, context.pipeline, context.masker)
    except ResultMissing:
        return ended
    except ResultError as error:
        if ended.outcome is Outcome.FAILED:
            context.journal.append(Warned(f"it exports nothing: {error.message}", step.path))
            return ended
        message = error.message if error.code else f"its file $PCC_ENV cannot be taken: {error.message}"
        return replace(ended, outcome=Outcome.FAILED, code=error.code or Code.EXPORT_REFUSED, message=message)
    except (Unavailable, Lost, Halted) as error:
        if ended.outcome is Outcome.FAILED:
            return ended
        return replace(ended, outcome=Outcome.LOST, message=f"its variables could not be fetched: {error}")
    if not found:
        return ended
    origin = origin_of(context, step.body, place)
    return replace(ended, exports=Exported(found, origin, step.is_unattested(place)))


def warn_of_withheld(step: RunStep, where: Host, place: Place) -> None:
    """Warn of variables that a step's script names, and that must not reach its place."""
    if step.body.agent:
        return
    for words in step.position.exports.withheld(receiver_of(step.context, step.body, place), where.run.source):
        step.context.journal.append(Warned(words, step.path))
