"""Makes the folder for runs before the pipeline provision.yaml begins, and records the VM's state after it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.checkup.check import CheckVerdict
from pccpipe.checkup.checks import system
from pccpipe.checkup.context import ACCOUNT, IMAGE, CheckContext, CheckupOptions
from pccpipe.errors import Unavailable
from pccpipe.layout import STATES, WORKSPACES, SystemDir
from pccpipe.machine.provisioned import Provisioned, read_provisioned, write_provisioned
from pccpipe.machine.startup import startup_files
from pccpipe.outcome import Reason
from pccpipe.spec.project_model import Project


def make_folder(options: CheckupOptions) -> None:
    """Make the VM's folder for projects, and give it to the user. Raises `Unavailable`."""
    context = CheckContext(options)
    try:
        if context.login_refusal:
            raise context.login_refusal
        finding = system.folder(context)
        if finding.verdict is CheckVerdict.OK or finding.fix is None:
            return
        done = context.run(finding.fix.command)
        if done.code:
            said = done.stderr.decode(errors="replace").strip()
            raise Unavailable(
                Reason.WORKSPACE_REFUSED, f"{finding.words}; {finding.fix.command}: {said}", finding.fix.command
            )
    finally:
        context.close()


def as_login(project: Project) -> Project:
    """Return the project without its account: provisioning needs the login's rights."""
    return replace(project, vm=replace(project.vm, run_as=None)) if project.vm else project


def inputs_of(options: CheckupOptions) -> Mapping[str, str]:
    """Return the inputs of provision.yaml for a project and its VM. Raises `Unavailable`."""
    context = CheckContext(options)
    try:
        before = read_provisioned(context.machine, context.root)
    finally:
        context.close()
    run_as = options.project.vm.run_as if options.project.vm else None
    return {"account": run_as or ACCOUNT, "image_id": before.images.get(IMAGE, "") if before else ""}


def write_down(options: CheckupOptions) -> None:
    """Record on the VM what provision left there. Raises `Unavailable`.

    A start-up file that changed since an earlier provision keeps its old hash, so the doctor still reports it.
    """
    context = CheckContext(options)
    try:
        _shut(context)
        before = read_provisioned(context.machine, context.root)
        images = dict(before.images) if before else {}
        identity = context.engine.image_id(IMAGE)
        if identity:
            images[IMAGE] = identity
        known = {} if before is None else before.startup_files
        now = Provisioned(images, {**startup_files(context.machine), **known})
        if now != before:
            write_provisioned(context.machine, context.root, now)
    finally:
        context.close()


def _shut(context: CheckContext) -> None:
    """Give the runs' folders the modes that keep the account for workspace code out."""
    done = context.run(f"""
        umask 077
        cd -P {shlex.quote(SystemDir.on_vm(context.root).path)} || exit
        pcc_mode() {{ # FOLDER MODE
          mkdir -p "$1" && [ ! -L "$1" ] && {{ [ "$(stat -c %a "$1")" = "$2" ] || chmod "$2" "$1"; }}
        }}
        pcc_mode {STATES} 700 && pcc_mode {WORKSPACES} 711""")
    if done.code:
        raise Unavailable(
            Reason.WORKSPACE_REFUSED, done.stderr.decode(errors="replace").strip() or "a folder is a link"
        )
