"""What the engine asks of a run's workspace. `pccpipe.workspace.sync` does it; tests may play it.

The workspace is the run's copy of the code. Before `upload`, steps on this machine run in the user's own folder, and
the copy on the VM is an empty folder. From `upload` on there is a copy at home and, in a project with a VM, one there;
a step sees the workspace as the steps before it left it, wherever they ran: `prepare` brings the newer copy over when
the place changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from pccpipe.cancel import Halt


class Side(StrEnum):
    """Which copy of the workspace."""

    HOME = "home"
    VM = "vm"


class Sent(Struct, frozen=True):
    files: int
    bytes: int
    method: str
    """`tar`, or `copy` when nothing was sent anywhere."""
    seconds: float
    refused: tuple[str, ...] = ()
    """Of what would have come home: names that were not taken, each with its reason."""
    stale: bool = False
    """Nothing could be brought: the copy is as it was last known, because the VM with the newer one is away."""


class Brought(Struct, frozen=True):
    files: int
    bytes: int
    missing: tuple[str, ...]
    """Asked for and not there."""
    refused: tuple[str, ...]
    """There, and not taken: links out of the tree, devices, names that no file may have; each with its reason."""
    masked: tuple[str, ...] = ()
    """Files in which a secret's value stood; they are kept masked."""
    more_masked: int = 0
    """Further ones, which are counted only."""


class Changed(Struct, frozen=True):
    """What `diff` found: counts of files and lines."""

    files: int
    insertions: int
    deletions: int
    refused: tuple[str, ...] = ()
    """Files that are no part of it, each with its reason."""
    masked: tuple[str, ...] = ()
    """Files with a secret's value in what changed: the patch is masked, and cannot be applied."""


class Workspace(Protocol):
    """All calls raise `Unavailable` when the VM is needed and not to be had, `ActionError` when it is had and the work
    fails, `Halted` when they were halted.

    Only one call runs at a time; the implementation sees to it.
    """

    @property
    def home(self) -> Path:
        """Where steps on this machine run now: the user's folder, or the run's copy once there is one."""
        ...

    def has_untold_changes(self, halt: Halt | None = None) -> bool:
        """Whether a copy may hold changes that no `diff` has: then nobody may throw it away."""
        ...

    def take_up(self) -> None:
        """Go on where a process that was killed left off."""
        ...

    def upload(self, exclude: Sequence[str], halt: Halt) -> Sent:
        """Take what is in the user's folder as the run's copy, and bring it to the project's VM, if there is one,
        deletions too. Should that fail, the copy at home is there.
        """
        ...

    def prepare(self, side: Side, halt: Halt, *, or_last_known: bool = False) -> Sent | None:
        """Make the copy on `side` the newest, before a step runs there; None if it was already.

        With `or_last_known`, the copy here is enough as it was last known while the VM is away.
        """
        ...

    def lay_out(self, halt: Halt) -> bool:
        """See to it that the copy here is there, however old; whether there is a newer one."""
        ...

    def touched(self, side: Side) -> None:
        """A step that may write has begun on `side`: from now on that copy is the newest."""
        ...

    def download(self, paths: Sequence[str], into: Path, halt: Halt) -> Brought:
        """Bring files and folders of the newest copy into a folder at home, as data that is not trusted."""
        ...

    def diff(self, patch: Path, halt: Halt) -> Changed:
        """Write what changed since `upload` as a patch that `git apply` takes; made here, from what was sent and what
        came back. Secrets are masked before it is written.
        """
        ...

    def remove(self, halt: Halt) -> tuple[str, ...]:
        """Remove the copy on the VM, if there is one; what is only there comes home first. Gives what was not taken."""
        ...
