"""Makes the folder for runs before the pipeline provision.yaml begins, and records the VM's state after it."""

from __future__ import annotations

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.shell.provisioned import Provisioned, read_provisioned, write_provisioned
from pccpipe.vm.check import Verdict
from pccpipe.vm.checks import system
from pccpipe.vm.patient import IMAGE, Chart, Patient
from pccpipe.vm.startup import startup_files


def make_folder(chart: Chart) -> None:
    """Make the VM's folder for projects, and give it to the user. Raises `Unavailable`."""
    patient = Patient(chart)
    try:
        if patient.login_refusal:
            raise patient.login_refusal
        finding = system.folder(patient)
        if finding.verdict is Verdict.OK or finding.mend is None:
            return
        done = patient.run(finding.mend.command)
        if done.code:
            said = done.stderr.decode(errors="replace").strip()
            raise Unavailable(
                Reason.WORKSPACE_REFUSED, f"{finding.words}; {finding.mend.command}: {said}", finding.mend.command
            )
    finally:
        patient.close()


def write_down(chart: Chart) -> None:
    """Write on the VM what provision left there. Raises `Unavailable`.

    A start-up file that changed since an earlier provision keeps the hash that it had: the doctor goes on naming it.
    """
    patient = Patient(chart)
    try:
        before = read_provisioned(patient.machine, patient.root)
        images = dict(before.images) if before else {}
        identity = patient.engine.image_id(IMAGE)
        if identity:
            images[IMAGE] = identity
        known = {} if before is None else before.startup_files
        now = Provisioned(images, {**startup_files(patient.machine), **known})
        if now != before:
            write_provisioned(patient.machine, patient.root, now)
    finally:
        patient.close()
