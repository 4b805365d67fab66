"""What a bare VM needs before the pipeline provision.yaml can run on it: the folder without which no run can begin."""

from __future__ import annotations

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.vm.check import Verdict
from pccpipe.vm.checks import system
from pccpipe.vm.patient import Chart, Patient


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
