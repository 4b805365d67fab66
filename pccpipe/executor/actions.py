"""Do the built-in actions: upload, download, diff, remove, build."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pccpipe.cancel import Cancel, Halt
from pccpipe.errors import ActionError, Halted, PccpipeError, Unavailable
from pccpipe.executor.context import LeftOpen, RunContext, StepOutcome, WalkPosition, halted
from pccpipe.executor.exposure import Level
from pccpipe.executor.replay import Turn
from pccpipe.executor.result import result_target
from pccpipe.executor.retry import with_retries
from pccpipe.executor.run_step import ACCEPT
from pccpipe.executor.waiting import Wait, wait_for_place
from pccpipe.layout import ARTIFACTS, LOGS, SystemDir
from pccpipe.outcome import MAY_FALL_BACK, Code, IsolationMode, Outcome, Place, Reason
from pccpipe.record.events import ActionDone, StepDowngraded, TargetUnavailable, Warned
from pccpipe.spec.downloads import wrong_path
from pccpipe.spec.model import Build, Diff, Download, Remove, Step, Upload
from pccpipe.values import Json
from pccpipe.workspace.allowed import shown
from pccpipe.workspace.base import Sent

Action = Upload | Download | Diff | Remove | Build


def run_action(context: RunContext, position: WalkPosition, step: Step, body: Action) -> StepOutcome:
    """Do a built-in action, and retry it as `retry:` says."""
    path = position.path_of(step.id)
    place = Place.VM if context.project.isolation_mode is IsolationMode.VM else Place.LOCAL
    # A cancel does not interrupt a removal under way, but it ends the wait for a VM that is unreachable.
    halt = Halt(Cancel() if isinstance(body, Remove) else context.cancel, position.deadline)

    def attempt(number: int) -> StepOutcome:
        try:
            wait = Wait(place, path, position.deadline, consented=step.id in context.accepted_fallbacks)
            done = wait_for_place(context, wait, lambda: _act(context, position, path, body, halt))
        except Halted:
            return halted(halt)
        except Unavailable as unavailable:
            if context.targets.fenced:
                raise LeftOpen(context.targets.fenced) from unavailable
            context.journal.append(
                TargetUnavailable(path, number, place, unavailable.reason, unavailable.words, unavailable.hint)
            )
            if context.cancel.requested:
                return StepOutcome(Outcome.CANCELLED, message=f"cancelled; {unavailable.words}")
            return StepOutcome(Outcome.UNAVAILABLE, reason=unavailable.reason, message=unavailable.words)
        except PccpipeError as error:
            context.room.leave_if_full(error)
            if context.targets.fenced:
                raise LeftOpen(context.targets.fenced) from error
            code = error.code if isinstance(error, ActionError) else None
            return StepOutcome(Outcome.FAILED, code=code, message=str(error))
        context.journal.append(ActionDone(path, kind_of(body), done.facts))
        if isinstance(body, Upload) and place is Place.VM:
            context.used.add(place)
        if done.leaks:
            message = f"a secret's value appears in files from the VM; it is masked in {', '.join(done.leaks)}"
            return StepOutcome(Outcome.FAILED, code=Code.SECRET_IN_OUTPUT, message=message)
        if done.lacks:
            return StepOutcome(Outcome.FAILED, code=Code.FILES_MISSING, message=_lacks(done))
        return StepOutcome(Outcome.SUCCEEDED)

    ended = with_retries(context, position, path, step.retry, attempt, Turn())
    if isinstance(body, Remove) and ended.outcome is Outcome.UNAVAILABLE and (vm := context.project.vm):
        left = f"{SystemDir.on_vm(vm.root).workspace(context.run_id)} and perhaps a running command are still there"
        context.journal.append(Warned(f"the VM could not be cleaned up: {left}; later: pccpipe gc", path))
    if isinstance(body, Upload) and ended.outcome is Outcome.UNAVAILABLE and _may_stay_local(context, body):
        assert ended.reason is not None
        if ended.reason not in MAY_FALL_BACK:
            return ended
        if refused := _refuse_fallback(context, step):
            last = max(step.retry.attempts, 1) + 1
            context.journal.append(
                TargetUnavailable(path, last, Place.LOCAL, refused.reason, refused.words, refused.hint)
            )
            return replace(ended, reason=refused.reason, message=f"{ended.message} ({ended.reason}); {refused.words}")
        context.journal.append(StepDowngraded(path, place, Place.LOCAL, ended.reason, ended.message))
        # The upload made the local copy before it connected to the VM.
        return StepOutcome(Outcome.SUCCEEDED)
    return ended


def _refuse_fallback(context: RunContext, step: Step) -> Unavailable | None:
    """Return why an upload may not fall back: all steps after it would move to the controller. None: it may."""
    if step.id in context.accepted_fallbacks:
        return None
    hint = ACCEPT.format(run=context.run_id, step=step.id)
    if context.exposure.forbids(Level.LOCAL):
        words = "an agent's code may have run already, so the upload does not fall back"
        return Unavailable(Reason.AFTER_UNTRUSTED_CODE, words, hint)
    if earlier := context.targets.vm_history:
        return Unavailable(Reason.VM_NOT_TRUSTED, f"{earlier}, so the upload does not fall back", hint)
    return None


def kind_of(body: Action) -> str:
    """Return the word for an action in events: its key in the pipeline."""
    return type(body).__name__.lower()


def _may_stay_local(context: RunContext, body: Upload) -> bool:
    return body.fall_back_locally and context.fallback_allowed and not body.isolation_required


class _Done(Struct, frozen=True):
    facts: Mapping[str, Json]
    """The facts for the event of the action."""
    leaks: Sequence[str] = ()
    """The files that secrets were found in."""
    lacks: Sequence[str] = ()
    """The paths that brought no file, though they are required."""


def _lacks(done: _Done) -> str:
    named = ", ".join(map(shown, done.lacks[:_LACKS_NAMED]))
    more = f" and {len(done.lacks) - _LACKS_NAMED} more" if len(done.lacks) > _LACKS_NAMED else ""
    why = "; its files were refused" if done.facts.get("refused") and not done.facts.get("missing") else ""
    fix = "let an earlier step make it, or leave out `required: true`"
    return f"no file came for {named}{more}{why}; fix: {fix}"


_LACKS_NAMED = 10
"""The paths without a file that a message names; `facts.missing` has all."""


def _act(context: RunContext, position: WalkPosition, path: str, body: Action, halt: Halt) -> _Done:
    """Do the action."""
    names = position.scope.names
    match body:
        case Upload():
            return _Done(_sent(context.workspace.upload(body.exclude, halt, with_git=body.with_git)))
        case Download():
            began = time.monotonic()
            into = context.run_dir / ARTIFACTS / context.workspace.label
            paths = _named_files(body, position)
            brought = context.workspace.download(paths, into, halt, exclude=body.exclude, by_name=body.by_name)
            more = [f"{brought.more_masked} more"] if brought.more_masked else []
            facts: Mapping[str, Json] = {
                "files": brought.files,
                "bytes": brought.bytes,
                "seconds": round(time.monotonic() - began, 3),
                "missing": list(brought.missing),
                "refused": list(brought.refused),
                **_masked([*brought.masked, *more]),
            }
            lacks = brought.without_files if body.required else ()
            place = into.relative_to(context.run_dir)
            return _Done(facts, [*(f"{place}/{name}" for name in brought.masked), *more], lacks)
        case Diff():
            name = body.path.render(names)
            changed = context.workspace.diff(result_target(name, context.run_dir), halt)
            lines = {"files": changed.files, "insertions": changed.insertions, "deletions": changed.deletions}
            facts = {"path": name, **lines, **_refused(changed.refused), **_masked(changed.masked)}
            return _Done(facts, changed.masked)
        case Remove():
            return _Done(_refused(context.workspace.remove(halt)))
        case Build():
            for each in (body.context, body.dockerfile):
                context.readable.check(each)
            image = body.image.render(names)
            args = {name: template.render(names) for name, template in body.args.items()}
            log = context.run_dir / LOGS / f"{path}-{context.serials.next(path)}.build.log"
            began = time.monotonic()
            built = context.images.build(body, image, args, log, halt)
            return _Done({"image": image, "built": built, "seconds": round(time.monotonic() - began, 3)})


def _named_files(body: Download, position: WalkPosition) -> list[str]:
    """Return the paths to download. Raises ActionError if an expression gave one that no author may write."""
    paths = []
    for template in body.paths:
        paths.append(template.render(position.scope.names))
        if not template.is_plain and not body.by_name and (words := wrong_path(paths[-1])):
            raise ActionError(f"download {paths[-1]!r}: {words[0]}", words[1])
    return paths


def _refused(names: Sequence[str]) -> Mapping[str, Json]:
    return {"refused": list(names)} if names else {}


def _masked(names: Sequence[str]) -> Mapping[str, Json]:
    return {"masked": list(names)} if names else {}


def _sent(sent: Sent) -> Mapping[str, Json]:
    return {"files": sent.files, "bytes": sent.bytes, "method": sent.method, "seconds": round(sent.seconds, 3)}
