"""Makes the folder for runs before the pipeline provision.yaml begins, and records the VM's state after it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.checkup.check import CheckVerdict
from pccpipe.checkup.checks import system
from pccpipe.checkup.patient import ACCOUNT, IMAGE, Chart, Patient
from pccpipe.errors import Unavailable
from pccpipe.machine.provisioned import Provisioned, read_provisioned, write_provisioned
from pccpipe.machine.startup import startup_files
from pccpipe.outcome import Reason
from pccpipe.spec.model import Project


def make_folder(chart: Chart) -> None:
    """Make the VM's folder for projects, and give it to the user. Raises `Unavailable`."""
    patient = Patient(chart)
    try:
        if patient.login_refusal:
            raise patient.login_refusal
        finding = system.folder(patient)
        if finding.verdict is CheckVerdict.OK or finding.mend is None:
            return
        done = patient.run(finding.mend.command)
        if done.code:
            said = done.stderr.decode(errors="replace").strip()
            raise Unavailable(
                Reason.WORKSPACE_REFUSED, f"{finding.words}; {finding.mend.command}: {said}", finding.mend.command
            )
    finally:
        patient.close()


def as_login(project: Project) -> Project:
    """The project without its account: what makes a VM fit needs the login's rights."""
    return replace(project, vm=replace(project.vm, run_as=None)) if project.vm else project


def inputs_of(chart: Chart) -> Mapping[str, str]:
    """The inputs of provision.yaml for a project and its VM. Raises `Unavailable`."""
    patient = Patient(chart)
    try:
        before = read_provisioned(patient.machine, patient.root)
    finally:
        patient.close()
    run_as = chart.project.vm.run_as if chart.project.vm else None
    return {"account": run_as or ACCOUNT, "image_id": before.images.get(IMAGE, "") if before else ""}


def write_down(chart: Chart) -> None:
    """Write on the VM what provision left there. Raises `Unavailable`.

    A start-up file that changed since an earlier provision keeps the hash that it had: the doctor goes on naming it.
    """
    patient = Patient(chart)
    try:
        _shut(patient)
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


def _shut(patient: Patient) -> None:
    """Give the runs' folders the modes that keep the account for workspace code out."""
    done = patient.run(f"""
        umask 077
        cd -P {shlex.quote(patient.root)}/.system || exit
        pcc_mode() {{ # FOLDER MODE
          mkdir -p "$1" && [ ! -L "$1" ] && {{ [ "$(stat -c %a "$1")" = "$2" ] || chmod "$2" "$1"; }}
        }}
        pcc_mode run-state 700 && pcc_mode run-workspaces 711""")
    if done.code:
        raise Unavailable(
            Reason.WORKSPACE_REFUSED, done.stderr.decode(errors="replace").strip() or "a folder is a link"
        )
