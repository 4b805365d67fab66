"""Remembers the VMs on which code of an agent ran outside of a container, in runs of this controller.

One small file a VM, beside the runs: on the VM, that code could remove it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from pccpipe.errors import PccpipeError
from pccpipe.layout import VM_HISTORY
from pccpipe.record.files import write_atomically


class VmHistory:
    """The history of one VM.

    Args:
        runs_dir: where the records of runs are.
        vm: its address and port, as the project file has them.
        run_id: the run that asks.
        resumes: True if an earlier process of the run may have remembered the VM. A new run may have the id of one
            whose record is gone.
    """

    def __init__(self, runs_dir: Path, vm: str, run_id: str, *, resumes: bool) -> None:
        self._vm = vm
        self._run_id = run_id
        self._may_be_own = resumes
        self._file = runs_dir / VM_HISTORY / f"{hashlib.sha256(vm.encode()).hexdigest()[:16]}.json"

    def earlier(self) -> str | None:
        """Return a sentence that names an earlier run whose agent ran on the VM itself; None if none is known."""
        try:
            data = json.loads(self._file.read_bytes())
            first, at = str(data["run_id"]), str(data["at"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError):
            # An unreadable file gives no reason to trust the VM.
            first, at = "an unknown run", "an unknown time"
        if self._may_be_own and first == self._run_id:
            return None
        return (
            f"code of an agent ran on the VM {self._vm} itself, in {first} at {at}, and may have changed it "
            f"(after rebuilding the VM, remove {self._file})"
        )

    def remember(self) -> None:
        """Record that code of an agent is about to run there. The file keeps the first run. Raises PccpipeError."""
        if self._file.exists():
            return
        self._may_be_own = True
        entry = {"vm": self._vm, "run_id": self._run_id, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            self._file.parent.mkdir(exist_ok=True, mode=0o700)
            write_atomically(self._file, json.dumps(entry).encode())
        except OSError as error:
            raise PccpipeError(f"cannot write {self._file}: {error.strerror}") from error
