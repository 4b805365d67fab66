"""Use the real VM by hand: python -m tests.real_vm COMMAND.

build          make its disk, and that of a bare VM (two to six minutes, once)
up             boot it; the tests use it and leave it up
ssh COMMAND    run a command in it, as root
cut-power      end it at once; boot: start it again on the same disk
down           end it, and discard its changes

bare COMMAND   the same for the bare VM, which is like a cloud's new VM
"""

from __future__ import annotations

import sys

from tests.real_vm import disk
from tests.real_vm.machine import RealVM
from tests.testbed.place import BedError


def main(argv: list[str]) -> int:
    """Do one command, and return the exit status."""
    if argv[:1] == ["bare"]:
        return _do(RealVM(bare=True), argv[1:])
    return _do(RealVM(), argv)


def _do(vm: RealVM, argv: list[str]) -> int:
    match argv:
        case ["build"]:
            if missing := disk.lacks():
                raise BedError(f"lacks {', '.join(missing)}")
            RealVM().down()
            RealVM(bare=True).down()
            disk.build()
        case ["up"]:
            vm.up()
        case ["boot"]:
            vm.boot()
        case ["cut-power"]:
            vm.cut_power()
        case ["down"]:
            vm.down()
        case ["ssh", *words] if words:
            done = vm.sh(" ".join(words), check=False)
            print(done.stdout, end="")
            print(done.stderr, end="", file=sys.stderr)
            return done.returncode
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BedError as error:
        sys.exit(f"real_vm: {error}")
