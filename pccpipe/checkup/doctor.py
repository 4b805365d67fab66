"""Runs all checks on a machine, side by side, and fixes what is safe to fix."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pccpipe.checkup.check import (
    Check,
    CheckResult,
    CheckVerdict,
    DoctorReport,
    Finding,
    Fix,
    FixPlace,
    FixResult,
    skipped,
    wrong,
)
from pccpipe.checkup.checks import all_checks
from pccpipe.checkup.context import HOLDER, CheckContext, CheckupOptions
from pccpipe.errors import PccpipeError, Unavailable, VmBusy
from pccpipe.machine.lease import Lease

SIDE_BY_SIDE = 5
"""Checks at a time: each takes one or two of the connection's nine sessions."""
ROUNDS = 5
"""Rounds of checks and fixes: an engine that was started shows that its image is missing."""
FIX_TIMEOUT = 600.0

OnChecked = Callable[[CheckResult], object]
OnFixed = Callable[[FixResult], object]


def examine(
    options: CheckupOptions, *, fix: bool, on_checked: OnChecked = lambda _: None, on_fixed: OnFixed = lambda _: None
) -> DoctorReport:
    """Run all checks; with `fix`, do the safe fixes, and check again.

    Args:
        on_checked: called with each result; after a fix, with all results again.
        on_fixed: called with each fix that was tried.
    """
    context = CheckContext(options)
    checks = all_checks(options.project.isolation_mode, options.pipeline)
    fixes: list[FixResult] = []
    try:
        for left in range(ROUNDS, 0, -1):
            results = run_checks(checks, context, on_checked)
            done = _fix(context, results, {each.name for each in fixes}, on_fixed) if fix and left > 1 else []
            fixes += done
            if not any(each.succeeded for each in done):
                break
            context.forget()
        reachable = context.login_refusal is None
        return DoctorReport(context.subject, tuple(results), tuple(fixes), reachable, context.vm is not None)
    finally:
        context.close()


def run_checks(
    checks: Sequence[Check], context: CheckContext, on_checked: OnChecked = lambda _: None
) -> list[CheckResult]:
    """Return the checks' results, in their order. A check that takes too long is wrong, and nothing waits for it."""
    done: dict[str, CheckResult] = {}
    answers: queue.SimpleQueue[CheckResult | BaseException] = queue.SimpleQueue()
    deadlines: dict[str, float] = {}
    waiting = list(checks)

    def finish(result: CheckResult) -> None:
        deadlines.pop(result.name, None)
        if result.name not in done:
            done[result.name] = result
            on_checked(result)

    while waiting or deadlines:
        for check in list(waiting):
            if any(need not in done for need in check.needs):
                continue
            lacks = [need for need in check.needs if not done[need].is_fine]
            if lacks:
                waiting.remove(check)
                finish(
                    CheckResult(check.name, skipped(f"skipped until {lacks[0]} is ok", needs=_cause(lacks[0], done)))
                )
            elif len(deadlines) < SIDE_BY_SIDE:
                waiting.remove(check)
                deadlines[check.name] = time.monotonic() + check.limit
                threading.Thread(
                    target=_answer, args=(check, context, answers), name=f"doctor-{check.name}", daemon=True
                ).start()
        if not deadlines:
            continue
        first = min(deadlines, key=lambda name: deadlines[name])
        try:
            answer = answers.get(timeout=max(0.0, deadlines[first] - time.monotonic()))
        except queue.Empty:
            limit = next(check.limit for check in checks if check.name == first)
            finish(CheckResult(first, wrong(f"no answer in {limit:g} s"), limit))
        else:
            if isinstance(answer, BaseException):
                raise answer
            finish(answer)
    return [done[check.name] for check in checks]


def _cause(name: str, done: Mapping[str, CheckResult]) -> str:
    """Return the name of the wrong check for which this one was skipped."""
    return done[name].finding.needs or name


def _answer(check: Check, context: CheckContext, answers: queue.SimpleQueue[CheckResult | BaseException]) -> None:
    began = time.monotonic()
    try:
        finding = _found(check, context)
    except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
        answers.put(error)
    else:
        answers.put(CheckResult(check.name, finding, round(time.monotonic() - began, 3)))


def _found(check: Check, context: CheckContext) -> Finding:
    try:
        return check.look(context)
    except Unavailable as error:
        return wrong(f"{error}{f'; {error.hint}' if error.hint else ''}")
    except (PccpipeError, OSError) as error:
        return wrong(str(error) or type(error).__name__)


def _fix(context: CheckContext, results: Sequence[CheckResult], tried: set[str], on_fixed: OnFixed) -> list[FixResult]:
    """Do the safe fixes of checks not `tried` before, each once, in the order of the checks."""
    to_do: dict[str, tuple[str, Fix]] = {}
    for each in results:
        fix = each.finding.fix
        if fix and fix.is_safe and each.name not in tried and each.finding.verdict is not CheckVerdict.OK:
            to_do.setdefault(fix.command, (each.name, fix))
    done = []
    if to_do:
        with _alone_on_vm(context) as busy:
            for name, fix in to_do.values():
                done.append(FixResult(name, fix.command, busy, False) if busy else _fixed(context, name, fix))
                on_fixed(done[-1])
    return done


def _fixed(context: CheckContext, name: str, fix: Fix) -> FixResult:
    try:
        if fix.do:
            return FixResult(name, fix.command, fix.do(context), True)
        assert fix.where is FixPlace.THERE, "a command for this machine must not run on the VM"
        done = context.run(fix.command, FIX_TIMEOUT)
    except (PccpipeError, OSError) as error:
        return FixResult(name, fix.command, str(error), False)
    said = (done.stderr or done.stdout).decode(errors="replace").strip().rpartition("\n")[2]
    return FixResult(name, fix.command, said if done.code else "", done.code == 0)


@contextlib.contextmanager
def _alone_on_vm(context: CheckContext) -> Iterator[str]:
    """Keep runs from the VM within the block; yields a sentence if a run has it, else an empty string."""
    if context.vm is None:
        yield ""
        return
    lease = Lease(context.machine, context.root, HOLDER, holder=f"{socket.gethostname()} pid {os.getpid()}")
    try:
        lease.acquire(0, lambda: True, lambda _: None)
    except VmBusy as error:
        yield f"nothing was fixed: {error.message}"
    except Unavailable:
        # A folder that can't be written has no lease, so no run has the VM.
        yield ""
    else:
        try:
            yield ""
        finally:
            lease.release()
