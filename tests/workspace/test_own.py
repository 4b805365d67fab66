"""A step's own copy of the workspace, on a real VM and here: what it has, what it never touches, when it goes."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.cancel import Cancel, Halt
from pccpipe.errors import ActionError, Halted, Unavailable
from pccpipe.layout import OWN_COPIES
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import Reason
from pccpipe.spec.project_model import Vm
from pccpipe.ssh.connection import Connection
from pccpipe.workspace.base import COPIED, Side
from pccpipe.workspace.own import OwnCopy
from pccpipe.workspace.state import has_only_copy_on_vm
from pccpipe.workspace.sync import Copies, WorkspaceSync
from pccpipe.workspace.tree_copy import copy_tree
from tests.disk import SmallDisk
from tests.disk import small_disk as small_disk
from tests.e2e.control import wait_until
from tests.testbed.vm import VM
from tests.workspace.halts import NeverHalted

NEVER = NeverHalted()


@pytest.fixture
def connection(vm: VM) -> Iterator[Connection]:
    made = Connection(Vm(vm.host, vm.user, key_path=vm.key, known_hosts=vm.known_hosts))
    yield made
    made.close()


class Run:
    """A run's workspace, in a record, with or without a VM."""

    def __init__(self, record: Path, connection: Connection | None = None) -> None:
        self.record, self.connection = record, connection
        self.user = record / "user"
        self.user.mkdir()
        (self.user / "a.txt").write_text("a\n")
        self.system = "/home/project/.system"
        self.copies = f"{self.system}/run-copies/{record.name}"
        self.sync = self.again()

    def again(self) -> WorkspaceSync:
        """Return the workspace as a process that resumes the run has it."""
        sync = WorkspaceSync(
            self.user,
            self.record / "workspace",
            self.record / "sent",
            (lambda: self.connection) if self.connection else None,  # type: ignore[arg-type,return-value]
            f"{self.system}/run-workspaces/{self.record.name}",
            self.record / "workspace.json",
            copies=Copies(self.copies),
        )
        sync.resume()
        return sync

    def there(self, script: str) -> str:
        assert self.connection
        done = self.connection.run(f"cd {self.system} && {script}")
        return done.stdout.decode() + done.stderr.decode()

    @property
    def homes(self) -> list[str]:
        folder = self.record / OWN_COPIES
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def here(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.sync.upload([], NEVER)
    run.sync.prepare(Side.LOCAL, NEVER)
    return run


@pytest.fixture
def on_vm(tmp_path: Path, connection: Connection) -> Run:
    run = Run(tmp_path, connection)
    run.sync.upload([], NEVER)
    return run


def leg(run: Run, name: str = "leg-1", *, agent: bool = False) -> OwnCopy:
    return run.sync.own(name, is_disposable=not agent)


def test_legs_on_the_vm_see_nothing_of_each_other(on_vm: Run) -> None:
    on_vm.there(f"cd run-workspaces/{on_vm.record.name} && mkdir node_modules && echo dep >node_modules/dep")
    on_vm.sync.mark_changed(Side.VM)
    one, two = leg(on_vm, "one-1"), leg(on_vm, "two-1")
    for each in (one, two):
        sent = each.prepare(Side.VM, NEVER)
        assert sent
        assert sent.method == COPIED
        # A second command of the leg works in the same copy.
        assert each.prepare(Side.VM, NEVER) is None
    on_vm.there(f"cd {one.folder_on(Side.VM)} && echo changed >a.txt && echo new >new.txt")
    one.mark_changed(Side.VM)
    assert on_vm.there(f"cat {two.folder_on(Side.VM)}/a.txt {two.folder_on(Side.VM)}/node_modules/dep") == "a\ndep\n"
    assert on_vm.there(f"cat run-workspaces/{on_vm.record.name}/a.txt") == "a\n"
    for each in (one, two):
        into = on_vm.record / "artifacts" / each.label
        each.download(["a.txt"], into, NEVER)
        each.diff(on_vm.record / f"{each.label}.patch", NEVER)
    assert (on_vm.record / "artifacts/one/a.txt").read_text() == "changed\n"
    assert (on_vm.record / "artifacts/two/a.txt").read_text() == "a\n"
    assert "+changed" in (on_vm.record / "one.patch").read_text()
    assert "a.txt" not in (on_vm.record / "two.patch").read_text()
    assert one.end(NEVER).kept is None
    assert two.end(NEVER).kept is None
    assert on_vm.there("ls -A run-copies") == ""
    assert on_vm.homes == []
    on_vm.sync.diff(on_vm.record / "run.patch", NEVER)
    assert "changed" not in (on_vm.record / "run.patch").read_text()


def test_a_leg_may_change_its_place(on_vm: Run) -> None:
    own = leg(on_vm)
    own.prepare(Side.VM, NEVER)
    on_vm.there(f"echo there >{own.folder_on(Side.VM)}/b.txt")
    own.mark_changed(Side.VM)
    own.prepare(Side.LOCAL, NEVER)
    assert (Path(own.folder_on(Side.LOCAL)) / "b.txt").read_text() == "there\n"
    (Path(own.folder_on(Side.LOCAL)) / "b.txt").write_text("here\n")
    own.mark_changed(Side.LOCAL)
    own.prepare(Side.VM, NEVER)
    assert on_vm.there(f"cat {own.folder_on(Side.VM)}/b.txt") == "here\n"
    own.end(NEVER)
    assert not (on_vm.record / "workspace/b.txt").exists()


def test_an_agents_work_comes_back_and_stays_unless_a_diff_has_it(on_vm: Run) -> None:
    lost, kept, diffed = leg(on_vm, "lost-1"), leg(on_vm, "kept-1", agent=True), leg(on_vm, "diffed-1", agent=True)
    for own in (lost, kept, diffed):
        own.prepare(Side.VM, NEVER)
        on_vm.there(f"echo work >{own.folder_on(Side.VM)}/a.txt")
        own.mark_changed(Side.VM)
    assert has_only_copy_on_vm(on_vm.record)
    diffed.diff(on_vm.record / "diffed.patch", NEVER)
    assert lost.end(NEVER).kept is None
    assert diffed.end(NEVER).kept is None
    folder = kept.end(NEVER).kept
    assert folder
    assert (folder / "a.txt").read_text() == "work\n"
    assert on_vm.homes == ["kept-1"]
    assert on_vm.there("ls -A run-copies") == ""
    assert not has_only_copy_on_vm(on_vm.record)


def test_only_the_copy_of_an_agents_step_counts_as_an_only_copy(on_vm: Run) -> None:
    own = leg(on_vm)
    own.prepare(Side.VM, NEVER)
    own.mark_changed(Side.VM)
    assert not has_only_copy_on_vm(on_vm.record)


def test_a_resumed_run_uses_a_finished_copy_and_makes_a_half_one_again(on_vm: Run) -> None:
    own = leg(on_vm)
    own.prepare(Side.VM, NEVER)
    on_vm.there(f"echo mine >{own.folder_on(Side.VM)}/mine.txt")
    own.mark_changed(Side.VM)
    on_vm.sync = on_vm.again()
    again = leg(on_vm)
    assert again.prepare(Side.VM, NEVER) is None
    assert on_vm.there(f"cat {again.folder_on(Side.VM)}/mine.txt") == "mine\n"
    # Killed while it copied: no command can have used that.
    state = on_vm.record / OWN_COPIES / "leg-1/workspace.json"
    state.write_text(state.read_text().replace('"has_copy": true', '"has_copy": false'))
    on_vm.there(f"mkdir run-copies/{on_vm.record.name}/.leg-1.0123456789abcdef")
    on_vm.sync = on_vm.again()
    once_more = leg(on_vm)
    sent = once_more.prepare(Side.VM, NEVER)
    assert sent
    assert sent.method == COPIED
    assert on_vm.there(f"ls -A run-copies/{on_vm.record.name}") == "leg-1\n"
    assert on_vm.there(f"ls -A {once_more.folder_on(Side.VM)}") == "a.txt\n"


def test_a_copy_has_modes_links_and_odd_files_and_follows_nothing(here: Run) -> None:
    copy = here.record / "workspace"
    (copy / "run.sh").write_text("#!/bin/sh\n")
    (copy / "run.sh").chmod(0o755)
    (copy / "hard").hardlink_to(copy / "run.sh")
    (copy / "out").symlink_to("/etc/passwd")
    (copy / "ro").mkdir()
    (copy / "ro/f").write_text("x")
    (copy / "ro").chmod(0o555)
    os.mkfifo(copy / "fifo")
    with (copy / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    own = leg(here)
    own.prepare(Side.LOCAL, NEVER)
    mine = Path(own.folder_on(Side.LOCAL))
    assert mine != copy
    assert (mine / "run.sh").stat().st_ino == (mine / "hard").stat().st_ino
    assert (mine / "run.sh").stat().st_ino != (copy / "run.sh").stat().st_ino
    assert (mine / "out").readlink() == Path("/etc/passwd")
    assert stat.S_ISFIFO((mine / "fifo").stat().st_mode)
    assert (mine / "sparse").stat().st_blocks < 1000
    assert stat.S_IMODE((mine / "ro").stat().st_mode) == 0o555
    own.end(NEVER)
    assert here.homes == []


def test_a_copy_of_a_copy_has_what_that_leg_changed(here: Run) -> None:
    outer = leg(here, "outer-1")
    outer.prepare(Side.LOCAL, NEVER)
    (Path(outer.folder_on(Side.LOCAL)) / "a.txt").write_text("outer\n")
    outer.mark_changed(Side.LOCAL)
    inner = outer.own("inner-1", is_disposable=True)
    inner.prepare(Side.LOCAL, NEVER)
    assert (Path(inner.folder_on(Side.LOCAL)) / "a.txt").read_text() == "outer\n"
    (Path(inner.folder_on(Side.LOCAL)) / "a.txt").write_text("inner\n")
    inner.end(NEVER)
    assert (Path(outer.folder_on(Side.LOCAL)) / "a.txt").read_text() == "outer\n"


def test_without_an_upload_there_is_nothing_to_copy(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(ActionError, match="no copy of the workspace yet"):
        leg(run).prepare(Side.LOCAL, NEVER)


def test_a_halt_ends_a_copy_and_its_cp(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = here.record / "bin"
    bin_.mkdir()
    (bin_ / "cp").write_text(f'#!/bin/sh\n[ "$1" = -a ] || exit 1\necho $$ >{bin_}/pid\nexec sleep 100\n')
    (bin_ / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    cancel = Cancel()

    def cancel_a_copy() -> None:
        wait_until((bin_ / "pid").exists)
        cancel.request()

    threading.Thread(target=cancel_a_copy).start()
    own = leg(here)
    with pytest.raises(Halted):
        own.prepare(Side.LOCAL, Halt(cancel))
    pid = (bin_ / "pid").read_text().strip()
    wait_until(lambda: not Path(f"/proc/{pid}/exe").exists())
    own.end(NEVER)
    assert here.homes == []


def test_a_full_disk_is_said_and_leaves_no_half_of_a_copy(tmp_path: Path, small_disk: SmallDisk) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(8 << 20))
    with pytest.raises(Unavailable) as full:
        copy_tree(LocalMachine(), str(source), str(small_disk.folder / "copies/leg-1"))
    assert full.value.reason is Reason.NO_DISK_SPACE
    assert list((small_disk.folder / "copies").iterdir()) == []
