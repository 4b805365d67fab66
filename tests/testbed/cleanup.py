"""Remove VMs and engines whose process was killed, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.testbed.engine import remove_engine
from tests.testbed.network import remove_rules
from tests.testbed.place import ENGINES, VMS, is_alive, locked
from tests.testbed.vm import KEPT, remove_vm


def sweep() -> None:
    """Remove VMs and engines whose owner is gone."""
    _remove("vms", VMS, remove_vm, everything=False)
    _remove("engines", ENGINES, remove_engine, everything=False)


def down_all() -> None:
    """Remove every VM and engine, and the rules on this machine. The cache stays."""
    _remove("vms", VMS, remove_vm, everything=True)
    _remove("engines", ENGINES, remove_engine, everything=True)
    remove_rules()


def _remove(lock: str, folder: Path, remove: Callable[[Path], None], *, everything: bool) -> None:
    with locked(lock):
        for state in sorted(folder.glob("*")):
            if everything or _is_left_over(state):
                remove(state)


def _is_left_over(state: Path) -> bool:
    # The lock held here also covers writing the owner, so a VM without one was never finished.
    owner = state / "owner"
    if not owner.exists():
        return True
    return owner.read_text() != KEPT and not is_alive(owner.read_text())
