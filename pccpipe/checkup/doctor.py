"""Looks at a machine by all checks, side by side; and mends what can be mended without harm."""

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
    CheckVerdict,
    DoctorReport,
    Finding,
    Fix,
    Fixed,
    FixPlace,
    Looked,
    skipped,
    wrong,
)
from pccpipe.checkup.checks import all_checks
from pccpipe.checkup.patient import HOLDER, Chart, Patient
from pccpipe.errors import PccpipeError, Unavailable, VmBusy
from pccpipe.machine.lease import Lease

SIDE_BY_SIDE = 5
"""Checks at a time: each has a session of the connection's nine, some two."""
ROUNDS = 5
"""Of looking and mending: a mended engine shows that its image is missing."""
MEND_TIMEOUT = 600.0

OnLooked = Callable[[Looked], object]
OnMended = Callable[[Fixed], object]


def examine(
    chart: Chart, *, fix: bool, on_looked: OnLooked = lambda _: None, on_mended: OnMended = lambda _: None
) -> DoctorReport:
    """Look at everything; with `fix` mend what is safe to, and look again.

    Args:
        on_looked: told of each check when it is done; of all of them anew after something was mended.
        on_mended: told of each thing that was mended, or could not be.
    """
    patient = Patient(chart)
    checks = all_checks(chart.project.isolation_mode)
    mended: list[Fixed] = []
    try:
        for left in range(ROUNDS, 0, -1):
            looked = look(checks, patient, on_looked)
            done = _mend(patient, looked, {each.name for each in mended}, on_mended) if fix and left > 1 else []
            mended += done
            if not any(each.succeeded for each in done):
                break
            patient.forget()
        return DoctorReport(patient.subject, tuple(looked), tuple(mended), patient.login_refusal is None)
    finally:
        patient.close()


def look(checks: Sequence[Check], patient: Patient, on_looked: OnLooked = lambda _: None) -> list[Looked]:
    """What each check finds, in their order. One that takes too long is wrong, and waited for no longer."""
    done: dict[str, Looked] = {}
    answers: queue.SimpleQueue[Looked | BaseException] = queue.SimpleQueue()
    deadlines: dict[str, float] = {}
    waiting = list(checks)

    def finish(looked: Looked) -> None:
        deadlines.pop(looked.name, None)
        if looked.name not in done:
            done[looked.name] = looked
            on_looked(looked)

    while waiting or deadlines:
        for check in list(waiting):
            if any(need not in done for need in check.needs):
                continue
            lacks = [need for need in check.needs if not done[need].is_fine]
            if lacks:
                waiting.remove(check)
                finish(Looked(check.name, skipped(f"skipped until {lacks[0]} is ok", needs=_cause(lacks[0], done))))
            elif len(deadlines) < SIDE_BY_SIDE:
                waiting.remove(check)
                deadlines[check.name] = time.monotonic() + check.limit
                threading.Thread(
                    target=_answer, args=(check, patient, answers), name=f"doctor-{check.name}", daemon=True
                ).start()
        if not deadlines:
            continue
        first = min(deadlines, key=lambda name: deadlines[name])
        try:
            answer = answers.get(timeout=max(0.0, deadlines[first] - time.monotonic()))
        except queue.Empty:
            limit = next(check.limit for check in checks if check.name == first)
            finish(Looked(first, wrong(f"no answer in {limit:g} s"), limit))
        else:
            if isinstance(answer, BaseException):
                raise answer
            finish(answer)
    return [done[check.name] for check in checks]


def _cause(name: str, done: Mapping[str, Looked]) -> str:
    """The check that is wrong, behind one that was skipped for it."""
    return done[name].finding.needs or name


def _answer(check: Check, patient: Patient, answers: queue.SimpleQueue[Looked | BaseException]) -> None:
    began = time.monotonic()
    try:
        finding = _found(check, patient)
    except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
        answers.put(error)
    else:
        answers.put(Looked(check.name, finding, round(time.monotonic() - began, 3)))


def _found(check: Check, patient: Patient) -> Finding:
    try:
        return check.look(patient)
    except Unavailable as error:
        return wrong(f"{error}{f'; {error.hint}' if error.hint else ''}")
    except (PccpipeError, OSError) as error:
        return wrong(str(error) or type(error).__name__)


def _mend(patient: Patient, looked: Sequence[Looked], tried: set[str], on_mended: OnMended) -> list[Fixed]:
    """Do what is safe and was not tried before, each once, in the order of the checks."""
    to_do: dict[str, tuple[str, Fix]] = {}
    for each in looked:
        mend = each.finding.mend
        if mend and mend.is_safe and each.name not in tried and each.finding.verdict is not CheckVerdict.OK:
            to_do.setdefault(mend.command, (each.name, mend))
    done = []
    if to_do:
        with _vm_to_ourselves(patient) as busy:
            for name, mend in to_do.values():
                done.append(Fixed(name, mend.command, busy, False) if busy else _mended(patient, name, mend))
                on_mended(done[-1])
    return done


def _mended(patient: Patient, name: str, mend: Fix) -> Fixed:
    try:
        if mend.do:
            return Fixed(name, mend.command, mend.do(patient), True)
        assert mend.where is FixPlace.THERE, "what is to be typed here, no command there does"
        done = patient.run(mend.command, MEND_TIMEOUT)
    except (PccpipeError, OSError) as error:
        return Fixed(name, mend.command, str(error), False)
    said = (done.stderr or done.stdout).decode(errors="replace").strip().rpartition("\n")[2]
    return Fixed(name, mend.command, said if done.code else "", done.code == 0)


@contextlib.contextmanager
def _vm_to_ourselves(patient: Patient) -> Iterator[str]:
    """Within the block no run begins on the VM; gives a sentence instead if one has it."""
    if patient.vm is None:
        yield ""
        return
    lease = Lease(patient.machine, patient.root, HOLDER, holder=f"{socket.gethostname()} pid {os.getpid()}")
    try:
        lease.acquire(0, lambda: True, lambda _: None)
    except VmBusy as error:
        yield f"nothing was mended: {error.message}"
    except Unavailable:
        # Where it can't be written, no run has it.
        yield ""
    else:
        try:
            yield ""
        finally:
            lease.release()
