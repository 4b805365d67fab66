"""Keeps in a run's record which copies of the workspace exist, and which one is the newest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from pccpipe.layout import OWN_COPIES, SYNC_STATE
from pccpipe.record.files import write_atomically
from pccpipe.workspace.base import Side


class WorkspaceState(Struct):
    exclude: list[str]
    """The patterns of the last upload."""
    has_copy: bool = False
    """The run has a copy of its own. Locally that may be the archive alone, which nothing unpacked yet."""
    on_vm: bool = False
    newest: Side | None = None
    """The copy that is newer than the other; None if they are the same."""
    last_patch: str = hashlib.sha256(b"").hexdigest()
    """The digest of the last diff."""
    stale_patch: bool = False
    """The local copy may have changes that are not in the last diff."""
    git: bool = False
    """The copies have a git repository with what was uploaded."""
    is_disposable: bool = False
    """Nobody needs its changes after its step: it is a copy of a step without an agent."""

    def save(self, file: Path) -> None:
        write_atomically(file, json.dumps(asdict(self)).encode())

    @staticmethod
    def load(file: Path) -> WorkspaceState:
        """Read the state of a run. Raises OSError, ValueError, LookupError."""
        kept = json.loads(file.read_bytes())
        newest = Side(kept["newest"]) if kept["newest"] else None
        return WorkspaceState(
            *(kept["exclude"], kept["has_copy"], kept["on_vm"], newest, kept["last_patch"], kept["stale_patch"]),
            # Older records have none.
            git=kept.get("git", False),
            is_disposable=kept.get("is_disposable", False),
        )


def has_only_copy_on_vm(record: Path) -> bool:
    """Say whether the VM may have changes of a run's workspaces that were never fetched; True if unknown."""
    return any(map(_is_only_copy, (record / SYNC_STATE, *record.glob(f"{OWN_COPIES}/*/{SYNC_STATE}"))))


def _is_only_copy(file: Path) -> bool:
    try:
        state = WorkspaceState.load(file)
    except FileNotFoundError:
        return False  # nothing was ever uploaded
    except (OSError, ValueError, LookupError, TypeError):
        return True
    return bool(state.has_copy and state.on_vm and state.newest is Side.VM and not state.is_disposable)
