"""Defines the workspace as the executor sees it: `pccpipe.workspace.sync` implements it, and tests have their own.

The workspace is the run's copy of the code. Before `upload`, local steps run in the user's own folder, and the copy on
the VM is an empty folder. From `upload` on there is a local copy and, in a project with a VM, one on the VM. A step
sees the workspace as the steps before it left it, wherever they ran: `prepare` transfers the newer copy when the place
changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from pccpipe.cancel import Halt


class Side(StrEnum):
    """One of the two copies of the workspace."""

    LOCAL = "home"
    """The value is that of `workspace.json`, also in older records."""
    VM = "vm"


COPIED = "own"
"""The method of `Sent` when `prepare` made a step's own copy."""


class Sent(Struct, frozen=True):
    files: int
    bytes: int
    method: str
    """`tar`, or `copy` when nothing was sent anywhere."""
    seconds: float
    refused: tuple[str, ...] = ()
    """Names on the VM that were not fetched, each with its reason."""
    stale: bool = False
    """Nothing was fetched: the VM with the newer copy is unavailable, so the local copy is the last known one."""


class Downloaded(Struct, frozen=True):
    files: int
    bytes: int
    missing: tuple[str, ...]
    """Paths that were asked for and do not exist, and patterns that match nothing."""
    refused: tuple[str, ...]
    """Links out of the tree, devices, and names that no file may have; each with its reason."""
    masked: tuple[str, ...] = ()
    """Files that contained a secret's value; they are kept masked."""
    more_masked: int = 0
    """The number of such files beyond those."""
    without_files: tuple[str, ...] = ()
    """Paths that brought no file: missing ones, and those whose files were all refused."""


class Changed(Struct, frozen=True):
    """The counts of files and lines that a `diff` found."""

    files: int
    insertions: int
    deletions: int
    refused: tuple[str, ...] = ()
    """Files that the diff leaves out, each with its reason."""
    masked: tuple[str, ...] = ()
    """Files with a secret's value in their changes: the patch is masked, so nobody can apply it."""


class Workspace(Protocol):
    """Each call raises `Unavailable` if it needs the VM and cannot reach it.

    It raises `ActionError` if the work fails, and `Halted` at a halt. The implementation runs one call at a time.
    """

    @property
    def local_folder(self) -> Path:
        """The folder in which local steps run now: the user's, or the run's copy as soon as there is one."""
        ...

    @property
    def has_git(self) -> bool:
        """The copies have a git repository of pccpipe's."""
        ...

    @property
    def label(self) -> str:
        """The folder in `artifacts/` for downloads of a step's own copy; "" for the run's workspace."""
        ...

    def folder_on(self, side: Side) -> str:
        """Return the folder of a step's own copy on `side`, as its machine names it; "" for the run's workspace."""
        ...

    def own(self, name: str, *, is_disposable: bool) -> OwnWorkspace:
        """Return the copy of this workspace for a step that has one of its own; the first command makes it.

        Args:
            name: the same after a resume, and unique in the run.
            is_disposable: nobody needs its changes after the step.
        """
        ...

    def has_undiffed_changes(self, halt: Halt | None = None) -> bool:
        """Say whether the local copy may have changes that are in no diff; such a copy must not be deleted."""
        ...

    def resume(self) -> None:
        """Continue where a killed process stopped."""
        ...

    def upload(self, exclude: Sequence[str], halt: Halt, *, with_git: bool = False) -> Sent:
        """Make the user's folder the run's copy, and send it to the project's VM if there is one, deletions too.

        With `with_git`, the copies get a git repository with one commit of what was sent. It never comes back.

        If sending fails, the local copy remains.
        """
        ...

    def prepare(self, side: Side, halt: Halt, *, or_last_known: bool = False) -> Sent | None:
        """Make the copy on `side` the newest, before a step runs there; None if it was already.

        With `or_last_known`, an old local copy suffices while the VM is unavailable.
        """
        ...

    def ensure_local(self, halt: Halt) -> bool:
        """Make sure that there is a local copy, however old; return whether there is a newer one."""
        ...

    def mark_changed(self, side: Side) -> None:
        """Record that a step that may write has begun on `side`: from now on that copy is the newest."""
        ...

    def download(
        self, paths: Sequence[str], into: Path, halt: Halt, *, exclude: Sequence[str] = (), by_name: bool = False
    ) -> Downloaded:
        """Copy files and folders of the newest copy into a local folder, as untrusted data.

        Args:
            paths: names and patterns.
            exclude: patterns of what to leave out.
            by_name: no path is a pattern.
        """
        ...

    def diff(self, patch: Path, halt: Halt) -> Changed:
        """Write the changes since `upload` as a patch for `git apply`, made locally from the two trees.

        Masks secrets before it writes.
        """
        ...

    def remove(self, halt: Halt) -> tuple[str, ...]:
        """Remove the copy on the VM, if there is one, after fetching what exists only there.

        Returns the names that were not fetched.
        """
        ...


class CopyEnd(Struct, frozen=True):
    """The end of a step's own workspace."""

    kept: Path | None = None
    """Its local folder, if that has an agent's work that no diff has."""
    refused: tuple[str, ...] = ()
    """Names that did not come back from the VM, each with its reason."""


class OwnWorkspace(Workspace, Protocol):
    """The workspace of a step with `workspace: own`."""

    def end(self, halt: Halt) -> CopyEnd:
        """Remove the copy, after fetching an agent's work; keep a local copy of work that no diff has."""
        ...
