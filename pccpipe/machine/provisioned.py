"""Records on a VM what `provision` left there, so that a later check can name what changed since."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

from pccpipe import limits
from pccpipe.layout import PROVISIONED, SystemDir
from pccpipe.machine.base import Machine, cannot_write
from pccpipe.machine.retry import reconnecting

TIMEOUT = 15.0


class Provisioned(Struct, frozen=True):
    """The state of a VM when `provision` ended.

    Attributes:
        images: the id of each image, by its name: `pcc-runner:latest`.
        startup_files: the SHA-256 of each start-up file of the login, by its path below HOME; "" for an absent one.
        problem: the reason why the file is invalid, in words; the rest is then empty.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    startup_files: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def read_provisioned(machine: Machine, root: str) -> Provisioned | None:
    """Read the record of the VM whose folder for projects (`vm.root`) is `root`; return None if it has none.

    Raises `Unavailable`.
    """
    file = shlex.quote(SystemDir.on_vm(root).provisioned)
    # provision did not write a file that another user owns, or that others may write.
    script = f"""
        [ -e {file} ] || [ -L {file} ] || exit 3
        [ -f {file} ] && [ ! -L {file} ] && [ -O {file} ] || exit 4
        case $(stat -c %a {file}) in *00) ;; *) exit 4 ;; esac
        head -c {limits.PROVISIONED.most + 1} {file}"""
    done = reconnecting(machine, lambda: machine.run(script, TIMEOUT))
    match done.code:
        case 0:
            return _decoded(done.stdout)
        case 3:
            return None
        case _:
            return Provisioned(problem="it is not a file that only the login user may read and write")


def write_provisioned(machine: Machine, root: str, provisioned: Provisioned) -> None:
    """Write the record, or replace it. Raises `Unavailable`."""
    folder = shlex.quote(SystemDir.on_vm(root).path)
    text = shlex.quote(msgspec.json.encode(provisioned).decode())
    script = f"""
        export LC_ALL=C
        umask 077
        mkdir -p {folder} && cd -P {folder} || exit
        new=$(mktemp ./.{PROVISIONED}.XXXXXX) || exit
        printf %s {text} >"$new" && mv -f -T -- "$new" {PROVISIONED} || {{ rm -f -- "$new"; exit 1; }}"""
    done = reconnecting(machine, lambda: machine.run(script, TIMEOUT))
    if done.code:
        raise cannot_write(machine.host, done.stderr.decode(errors="replace").strip() or f"{folder} cannot be written")


def _decoded(data: bytes) -> Provisioned:
    if len(data) > limits.PROVISIONED.most:
        return Provisioned(problem=f"it is larger than {limits.PROVISIONED.most >> 10} KiB")
    try:
        return msgspec.json.decode(data, type=Provisioned)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Provisioned(problem=f"it is not a record of provision: {error}")
