"""Names every folder and file of a run: in its record, beside that on this machine, and on the VM.

    .system/                      around the records, or in their folder; on the VM in `vm.root`
        runs/RUN/                 the record, on this machine only
        run-state/RUN/commands/   files of the run's commands
        run-state/RUN/lane-*/     a lane's spools, on the VM
        run-workspaces/RUN/       the run's copy of the code, on the VM
        run-copies/RUN/           copies of that for steps with a workspace of their own, on the VM
        run-io/RUN/steps/         files of the commands that run as the account, on the VM
        gates/N  lease/  provisioned.json   on the VM

The scripts of sh write these names too; tests/test_layout.py compares them with this module.
"""

# The supervisor loads this module, and starts with each run: no import that takes time.
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = ".system"
RUNS = f"{SYSTEM}/runs"
"""The folder of records that a command uses without `--runs-dir`."""

STATES = "run-state"
"""In `SYSTEM`: the files of runs' commands."""
WORKSPACES = "run-workspaces"
COPIES = "run-copies"
"""In `SYSTEM`: the copies of steps with `workspace: own`, on the VM."""
IO = "run-io"
GATES = "gates"
LEASE = "lease"
PROVISIONED = "provisioned.json"
"""The record of `provision` on the VM. The login owns it, mode 0600."""

COMMANDS = "commands"
LANE = "lane-"
"""The beginning of a lane's folder."""
PROXY = "proxy"
"""The folder of the proxy's socket, for containers."""
PROXY_PORT = "proxy-port"
SUPERVISOR = "supervisor"
"""The socket of the supervisor of local commands."""
SUPERVISOR_LOCK = "supervisor.lock"

EVENTS = "events.jsonl"
RUN_JSON = "run.json"
LOCK = "lock"
CANCEL_REQUESTS = "cancel-requests"
PIPELINE = "pipeline.yaml"
"""The pipeline as the run began with it; its own files are in `PIPELINE_FILES`."""
PIPELINE_FILES = "pipeline-files"
LOGS = "logs"
ARTIFACTS = "artifacts"
COPY = "workspace"
"""The run's copy of the workspace, on this machine; on the VM, the account's part of the run's folder."""
OWN_COPIES = "own-workspaces"
"""The copies of steps with `workspace: own`, on this machine; on the VM, the account's part of the run's `COPIES`."""
SENT = "workspace-sent"
"""The files that were sent to the VM, for the diff."""
SYNC_STATE = "workspace.json"
"""Says which side has the newest copy of the workspace."""
SESSIONS = "sessions"
"""The transcripts of agents' sessions, for the next turn of their step. No view shows them, and nothing copies them."""
DIFFED = ".diff-"
"""The beginning of a folder that exists while a diff is made."""

OF_RECORD = frozenset(
    {
        *(EVENTS, RUN_JSON, LOCK, CANCEL_REQUESTS, PIPELINE, PIPELINE_FILES),
        *(LOGS, ARTIFACTS, COPY, OWN_COPIES, SENT, SYNC_STATE, SESSIONS),
    }
)
"""Names in a record that no step may write to."""
WITHOUT_LOGS = frozenset({COPY, OWN_COPIES, SENT, ARTIFACTS, PIPELINE_FILES, SESSIONS})
"""Folders of a record that have no logs of commands, and any number of files."""

VM_HISTORY = ".vms"
"""Beside the records: on which VMs code of an agent has run."""
ENDED_RUNS = ".ended-runs"
"""Beside the records: what a list of runs needs of those that ended. A cache."""
SPENT = ".spent"
"""Beside the records: what the runs of each project took of models, a file a day."""
REMOVED = ".removed-"
"""Beside the records: the beginning of the name of a record whose removal has begun."""
KEPT = ".kept-"
"""In the name of a workspace on a VM that an earlier run of the same id left there."""


class SystemDir:
    """The folder `.system` of a machine. Paths are the machine's own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.states = f"{path}/{STATES}"
        self.workspaces = f"{path}/{WORKSPACES}"
        self.gates = f"{path}/{GATES}"
        self.lease = f"{path}/{LEASE}"
        self.provisioned = f"{path}/{PROVISIONED}"

    @staticmethod
    def on_vm(root: str) -> SystemDir:
        """Return that of a VM whose folder for projects is `root`."""
        return SystemDir(f"{root}/{SYSTEM}")

    def state(self, run_id: str) -> str:
        """Return the folder for all that is kept of a run's commands."""
        return f"{self.states}/{run_id}"

    def workspace(self, run_id: str, *, of_account: bool = False) -> str:
        """Return the run's copy of the code; with `of_account`, the part that the account owns."""
        folder = f"{self.workspaces}/{run_id}"
        return f"{folder}/{COPY}" if of_account else folder

    def copies(self, run_id: str, *, of_account: bool = False) -> str:
        """Return the folder of the run's own copies of steps; with `of_account`, the part that the account owns."""
        folder = f"{self.path}/{COPIES}/{run_id}"
        return f"{folder}/{OWN_COPIES}" if of_account else folder

    def account_files(self, run_id: str) -> str:
        """Return the folder for the files of commands that run as the account."""
        return f"{self.path}/{IO}/{run_id}/steps"


def system_folder(runs_dir: Path) -> Path:
    """Return `.system` of this machine for the runs whose records are in `runs_dir`: around it, or in it."""
    return runs_dir.parent if runs_dir.parent.name == SYSTEM else runs_dir / SYSTEM
