"""The workspace in both directions, between this machine and a real VM."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pccpipe.errors import ActionError, Halted, Unavailable
from pccpipe.secrets.values import Secrets
from pccpipe.spec.project_model import Vm
from pccpipe.ssh.connection import Connection
from pccpipe.workspace.base import Side
from pccpipe.workspace.intake import Limits
from pccpipe.workspace.sync import WorkspaceSync
from tests.testbed.vm import VM
from tests.workspace.halts import NeverHalted

NEVER = NeverHalted()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class Pair:
    """A local workspace and its copy on the VM."""

    def __init__(
        self,
        folder: Path,
        connection: Connection,
        *,
        limits: Limits | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.user = folder / "user"
        self.user.mkdir()
        self.folder = folder
        self.connection = connection
        self.remote = f"/home/project/.system/run-workspaces/{folder.name}"
        self.sync = WorkspaceSync(
            self.user,
            folder / "copy",
            folder / "sent",
            lambda: connection,
            self.remote,
            folder / "workspace.json",
            Secrets({value: value for value in secrets}),
            limits,
        )

    def there(self, script: str) -> str:
        done = self.connection.run(f"cd {self.remote} && {script}")
        assert done.code == 0, done.stderr
        return done.stdout.decode("utf-8", "surrogateescape")

    def change_there(self, script: str) -> None:
        self.there(script)
        self.sync.mark_changed(Side.VM)

    def listed(self) -> set[str]:
        return {name.removeprefix("./") for name in self.there("find . -mindepth 1 -print0").split("\0") if name}


@pytest.fixture
def connection(vm: VM) -> Iterator[Connection]:
    made = Connection(Vm(vm.host, vm.user, key_path=vm.key, known_hosts=vm.known_hosts))
    yield made
    made.close()


@pytest.fixture
def pair(tmp_path: Path, connection: Connection) -> Pair:
    return Pair(tmp_path, connection)


def test_everything_is_uploaded_except_private_names(pair: Pair) -> None:
    for name in (
        "a.txt",
        "d/x y'z\n$(id).txt",
        ".env",
        ".env.local",
        ".git/config",
        ".GIT/config",
        "d/git~1",
        ".ENV",
        "d/.Env.Local",
        ".Control-Secrets/key",
        "node_modules/m/i.js",
        "Node_Modules/m/i.js",
        "id_rsa",
        "d/Id_RSA",
        ".DS_Store",
        "d/._x y'z",
        "keep.pem",
    ):
        path = pair.user / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (pair.user / "link").symlink_to("a.txt")
    (pair.user / "run.sh").write_text("#!/bin/sh\n")
    (pair.user / "run.sh").chmod(0o755)
    (pair.user / "big.log").write_text("x")
    pair.sync.upload(["*.log"], NEVER)
    assert pair.listed() == {"a.txt", "d", "d/x y'z\n$(id).txt", "keep.pem", "link", "run.sh"}
    assert pair.there("readlink link; [ -x run.sh ] && echo x") == "a.txt\nx\n"


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("pattern", "name"), [(NFC, NFD), (NFD, NFC), (f"{NFC}/*.log", f"{NFD}/x.log")])
def test_a_pattern_matches_a_name_in_any_spelling_of_a_disk(pair: Pair, pattern: str, name: str) -> None:
    (pair.user / name).parent.mkdir(exist_ok=True)
    (pair.user / name).write_text("x")
    (pair.user / "a").write_text("x")
    pair.sync.upload([pattern], NEVER)
    assert not pair.listed() & {name}
    assert "a" in pair.listed()


@pytest.mark.parametrize(("path", "name"), [(NFC, NFD), (NFD, NFC), (f"d/{NFC}", f"d/{NFD}")])
def test_a_download_finds_a_name_in_any_spelling_of_a_disk(pair: Pair, tmp_path: Path, path: str, name: str) -> None:
    pair.sync.upload([], NEVER)
    pair.change_there(f"mkdir -p d && echo x >{name} && echo y >other")
    downloaded = pair.sync.download([path, "other", "none"], tmp_path / "got", NEVER)
    assert downloaded.missing == ("none",)
    assert {file.name for file in (tmp_path / "got").rglob("*") if file.is_file()} == {name.removeprefix("d/"), "other"}


def test_a_name_that_is_let_in_is_uploaded_in_any_case(pair: Pair) -> None:
    for name in (".env.example", ".ENV.Example", ".ENV.secret"):
        (pair.user / name).write_text("x")
    pair.sync.upload(["!.env.example"], NEVER)
    assert pair.listed() == {".env.example", ".ENV.Example"}


def test_a_second_upload_sends_changes_and_deletions_and_keeps_excluded_files(pair: Pair) -> None:
    (pair.user / "old/deep").mkdir(parents=True)
    (pair.user / "old/deep/f").write_text("1")
    (pair.user / "same").write_text("1")
    pair.sync.upload([], NEVER)
    pair.there("mkdir -p node_modules/m && echo 1 > node_modules/m/f && echo stray > stray")
    shutil.rmtree(pair.user / "old")
    (pair.user / "same").write_text("22")
    pair.sync.upload([], NEVER)
    assert pair.listed() == {"same", "node_modules", "node_modules/m", "node_modules/m/f"}
    assert pair.there("cat same") == "22"


def test_a_step_sees_the_changes_of_the_step_before_wherever_it_ran(pair: Pair) -> None:
    (pair.user / "a").write_text("one\n")
    pair.sync.upload([], NEVER)
    pair.change_there("echo two >> a; rm -f gone; mkdir -p n && echo new > n/f")
    assert pair.sync.prepare(Side.LOCAL, NEVER)
    assert (pair.sync.local_folder / "a").read_text() == "one\ntwo\n"
    assert pair.sync.prepare(Side.LOCAL, NEVER) is None
    (pair.sync.local_folder / "a").write_text("home\n")
    shutil.rmtree(pair.sync.local_folder / "n")
    pair.sync.mark_changed(Side.LOCAL)
    assert pair.sync.prepare(Side.VM, NEVER)
    assert pair.there("cat a; ls") == "home\na\n"
    assert (pair.user / "a").read_text() == "one\n"


def test_the_diff_applied_to_the_upload_gives_the_fetched_tree(pair: Pair, tmp_path: Path) -> None:
    (pair.user / "text").write_text("a\nb\nc\n")
    (pair.user / "binary").write_bytes(bytes(range(256)))
    (pair.user / "gone").write_text("g")
    (pair.user / "mode").write_text("m")
    (pair.user / ".gitignore").write_text("build/\n*.o\n")
    (pair.user / ".gitattributes").write_text("* text=auto eol=crlf diff=evil\n")
    pair.sync.upload([], NEVER)
    pair.change_there(
        "printf 'a\\nB\\r\\nc' > text; printf '\\0\\1\\2' > binary; rm gone; chmod 755 mode; ln -s text link;"
        " mkdir -p 'n w' build; echo n > 'n w/ü\"q'; echo o > build/x; echo o > y.o"
    )
    changed = pair.sync.diff(tmp_path / "diff.patch", NEVER)
    assert (changed.files, changed.deletions) == (6, 3)
    shutil.copytree(pair.user, tmp_path / "applied", symlinks=True)
    subprocess.run(["git", "apply", "-p1", str(tmp_path / "diff.patch")], cwd=tmp_path / "applied", check=True)
    shutil.rmtree(pair.sync.local_folder / "build")
    (pair.sync.local_folder / "y.o").unlink()
    difference = subprocess.run(
        ["diff", "-r", "--no-dereference", str(tmp_path / "applied"), str(pair.sync.local_folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert difference.stdout == ""
    assert (tmp_path / "applied/mode").stat().st_mode & 0o111


HOSTILE = """
    ln -s /etc d; ln -s ../../../etc/passwd up; ln -s d/../.. loop; ln -s text ok; mkfifo fifo
    echo t > text; ln text twin
    mkdir -p sub/deep; ln -s ../text sub/fine; ln -s ../../out sub/out
    ln -s ../.. sub/deep/top; ln -s top/../../x sub/deep/escape
    truncate -s 50G sparse; mkdir git; mkdir git/.git; echo '[core]' > git/.git/config
    touch -- "$(printf 'two\\nlines')" "$(printf '\\033[2Jclear')" "$(printf 'latin-\\344')" 'back\\slash' '-rf'
    sudo -n mknod node c 1 3 2>/dev/null || true
    chmod u+s text
"""


def test_hostile_files_are_not_fetched(pair: Pair, tmp_path: Path) -> None:
    (pair.user / "d").mkdir()
    (pair.user / "d/f").write_text("mine\n")
    pair.sync.upload([], NEVER)
    pair.change_there(f"rm -r d; {HOSTILE}")
    began = time.monotonic()
    sent = pair.sync.prepare(Side.LOCAL, NEVER)
    assert time.monotonic() - began < 10
    home = pair.sync.local_folder
    fine = ["\x1b[2Jclear", "-rf", "back\\slash", "git", "latin-\udce4", "ok", "sub", "text", "twin", "two\nlines"]
    assert names(home) == fine
    assert names(home / "git") == []
    assert names(home / "sub") == ["deep", "fine"]
    assert names(home / "sub/deep") == ["top"]
    assert (home / "sub/fine").readlink() == Path("../text")
    assert (home / "twin").read_text() == "t\n"
    assert (home / "text").stat().st_nlink == 1
    assert (home / "text").stat().st_mode & 0o7000 == 0
    assert sent
    refused = "\n".join(sent.refused)
    for name in ("'d'", "'up'", "'loop'", "'fifo'", "'sub/out'", "'sub/deep/escape'", "'sparse'"):
        assert f"{name}: " in refused
    assert "50 GiB is over the limit of a file, 2 GiB; exclude it by name" in refused
    # The fetched tree is sent back and fetched again: nothing of it changes.
    pair.sync.mark_changed(Side.LOCAL)
    pair.sync.prepare(Side.VM, NEVER)
    pair.change_there("echo more >> text")
    pair.sync.prepare(Side.LOCAL, NEVER)
    assert names(pair.sync.local_folder) == fine
    assert (pair.sync.local_folder / "text").read_text() == "t\nmore\n"


def test_hostile_files_are_not_downloaded(pair: Pair, tmp_path: Path) -> None:
    pair.sync.upload([], NEVER)
    pair.change_there(f"mkdir all; cd all; {HOSTILE}")
    downloaded = pair.sync.download(["all/", "all/sub/deep"], tmp_path / "artifacts", NEVER)
    home = tmp_path / "artifacts/all"
    assert names(home) == sorted(
        ["-rf", "\x1b[2Jclear", "back\\slash", "git", "latin-\udce4", "ok", "sub", "text", "twin", "two\nlines"]
    )
    assert names(home / "git") == []
    assert len(downloaded.refused) >= 7
    assert not any("\n" in line or "\x1b" in line for line in downloaded.refused)
    assert not any(str(path.resolve()).startswith("/etc") for path in tmp_path.rglob("*"))


def test_patterns_take_the_same_files_from_the_vm_and_from_here(pair: Pair, tmp_path: Path) -> None:
    pair.sync.upload([], NEVER)
    pair.change_there(
        "mkdir -p dist/a 'p [x]/y'; touch dist/1.whl dist/a/2.whl dist/a/2.map 'p [x]/y/page.tsx'; ln -s /etc p/etc;"
        f" ln -s /etc dist/out; echo x >{NFD}.log; mkdir locked; touch locked/3.whl; chmod 0 locked;"
        f" mkdir all; cd all; {HOSTILE}"
    )
    paths = ["dist/**/*.whl", "p [[]x]/*/page.tsx", f"{NFC}.*", "none*", "locked/*.whl", "dist/out/*", "all/*"]
    for place in ("vm", "here"):
        if place == "here":
            pair.sync.prepare(Side.LOCAL, NEVER)
            pair.sync.mark_changed(Side.LOCAL)
        got = pair.sync.download(paths, tmp_path / place, NEVER, exclude=["*.map", "all/sub"])
        assert got.missing == ("none*", "dist/out/*")
        assert got.without_files == got.missing
        assert bool(got.refused) is (place == "vm")
        assert not any("\n" in line or "\x1b" in line for line in got.refused)
        assert names(tmp_path / place) == sorted(["dist", "p [x]", f"{NFD}.log", "locked", "all"])
        assert names(tmp_path / place / "dist") == ["1.whl", "a"]
        assert names(tmp_path / place / "locked") == ["3.whl"]
        assert not any(str(path.resolve()).startswith("/etc") for path in (tmp_path / place).rglob("*"))


def test_an_uploaded_link_that_leads_out_is_kept(pair: Pair, tmp_path: Path) -> None:
    (pair.user / "python").symlink_to("/usr/bin/python3")
    pair.sync.upload([], NEVER)
    pair.change_there("echo > new")
    changed = pair.sync.diff(tmp_path / "diff.patch", NEVER)
    assert (changed.files, changed.refused) == (1, ())
    assert (pair.sync.local_folder / "python").readlink() == Path("/usr/bin/python3")
    pair.change_there("ln -sf /etc/passwd python")
    assert "out of the tree" in pair.sync.diff(tmp_path / "diff.patch", NEVER).refused[0]


@pytest.mark.parametrize(
    ("limits", "makes", "says"),
    [
        (Limits(files=30), "seq 1 1000 | xargs touch", "over 30 files would be fetched"),
        (Limits(bytes=10_000), "for i in 1 2 3 4 5 6; do truncate -s 2000 f$i; done", "over 9.8 KiB would be fetched"),
    ],
)
def test_a_tree_over_the_limits_is_refused(
    tmp_path: Path, connection: Connection, limits: Limits, makes: str, says: str
) -> None:
    pair = Pair(tmp_path, connection, limits=limits)
    (pair.user / "a").write_text("x")
    pair.sync.upload([], NEVER)
    pair.change_there(f"mkdir m && cd m && {makes}")
    with pytest.raises(ActionError, match=says) as raised:
        pair.sync.prepare(Side.LOCAL, NEVER)
    assert "exclude" in str(raised.value)
    with pytest.raises(ActionError, match=says):
        pair.sync.download(["m"], tmp_path / "artifacts", NEVER)
    assert names(tmp_path) == ["sent", "user", "workspace.json"]


def test_a_download_copies_files_and_names_missing_and_linked_ones(pair: Pair, tmp_path: Path) -> None:
    pair.sync.upload([], NEVER)
    pair.change_there("mkdir -p test-results/deep; echo r > test-results/deep/r; ln -s /etc out; echo one > one")
    downloaded = pair.sync.download(
        ["test-results/", "one", "nothing/", "out/passwd", "out"], tmp_path / "artifacts", NEVER
    )
    assert set(downloaded.missing) == {"nothing", "out/passwd"}
    assert len(downloaded.refused) == 1
    assert (tmp_path / "artifacts/test-results/deep/r").read_text() == "r\n"
    assert names(tmp_path / "artifacts") == ["one", "test-results"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ""])
def test_a_path_outside_the_workspace_is_refused(pair: Pair, tmp_path: Path, path: str) -> None:
    pair.sync.upload([], NEVER)
    with pytest.raises(ActionError):
        pair.sync.download([path], tmp_path / "artifacts", NEVER)


def test_removing_the_copy_first_fetches_changes_that_exist_only_there(pair: Pair, tmp_path: Path) -> None:
    (pair.user / "a").write_text("one\n")
    pair.sync.upload([], NEVER)
    pair.change_there("echo finished work > work")
    pair.sync.remove(NEVER)
    assert pair.connection.run(f"[ -e {pair.remote} ]").code == 1
    assert (pair.sync.local_folder / "work").read_text() == "finished work\n"
    assert pair.sync.has_undiffed_changes()
    pair.sync.diff(tmp_path / "diff.patch", NEVER)
    assert not pair.sync.has_undiffed_changes()


def test_an_unreadable_file_is_named_and_no_partial_copy_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    user.mkdir()
    (user / "a").write_text("x")

    opened = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "a":
            raise PermissionError(13, "Permission denied", path)
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    sync = WorkspaceSync(user, tmp_path / "copy", tmp_path / "sent", None, "", tmp_path / "workspace.json")
    with pytest.raises(ActionError, match="user/a: Permission denied"):
        sync.upload([], NEVER)
    assert names(tmp_path) == ["user"]


def test_a_connection_that_breaks_is_unavailable_and_a_second_try_is_complete(tmp_path: Path, fresh_vm: VM) -> None:
    connection = Connection(Vm(fresh_vm.host, fresh_vm.user, key_path=fresh_vm.key, known_hosts=fresh_vm.known_hosts))
    pair = Pair(tmp_path, connection)
    for number in range(50):
        (pair.user / f"f{number}").write_bytes(os.urandom(2_000_000))
    connection.run("true")
    killer = threading.Timer(0.3, fresh_vm.kill_sessions)
    killer.start()
    try:
        pair.sync.upload([], NEVER)
    except (Unavailable, ActionError):
        pair.sync.upload([], NEVER)
    killer.join()
    assert (
        pair.there("cat f* | sha256sum")
        == subprocess.run(
            "cat f* | sha256sum", shell=True, cwd=pair.user, capture_output=True, text=True, check=True
        ).stdout
    )
    connection.close()


class After(NeverHalted):
    """A halt that is requested after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._event = threading.Event()
        self._seconds = seconds

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        if self.requested:
            raise Halted("halted")

    def wait(self, seconds: float) -> None:
        self._event.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def watched_by(self, watcher: Callable[[], None]) -> Iterator[None]:
        def come() -> None:
            self._event.set()
            watcher()

        timer = threading.Timer(self._seconds, come)
        timer.start()
        yield
        timer.cancel()


def test_a_halt_ends_a_transfer_that_waits_for_a_silent_vm(tmp_path: Path, fresh_vm: VM) -> None:
    connection = Connection(Vm(fresh_vm.host, fresh_vm.user, key_path=fresh_vm.key, known_hosts=fresh_vm.known_hosts))
    pair = Pair(tmp_path, connection)
    pair.sync.upload([], NEVER)
    (pair.user / "big").write_bytes(os.urandom(50_000_000))
    fresh_vm.cut()
    began = time.monotonic()
    with pytest.raises(Halted):
        pair.sync.upload([], After(1))
    assert time.monotonic() - began < 6
    fresh_vm.heal()
    pair.sync.upload([], NEVER)
    assert "big" in pair.listed()
    pair.change_there("rm big; head -c 50000000 /dev/urandom > big")
    fresh_vm.cut()
    with pytest.raises(Halted):
        pair.sync.prepare(Side.LOCAL, After(1))
    fresh_vm.heal()
    assert pair.sync.prepare(Side.LOCAL, NEVER)
    connection.close()


def test_only_changed_files_are_sent_again_and_never_through_a_link(pair: Pair) -> None:
    for name in ("same", "edited", "touched there", "d/e/f", "d/kind", "gone/f"):
        path = pair.user / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    pair.sync.upload([], NEVER)
    inode = pair.there("stat -c %i same d/e/f")
    (pair.user / "edited").write_text("e2")
    pair.change_there(
        "printf 'touched HERE!' >'touched there'; rm d/kind; mkdir d/kind; touch d/kind/x;"
        " mkdir ../elsewhere; mv gone ../elsewhere; ln -s ../elsewhere/gone gone; echo stray >../elsewhere/gone/stray"
    )
    pair.sync.upload([], NEVER)
    assert pair.there("stat -c %i same d/e/f") == inode
    assert pair.listed() == {"same", "edited", "touched there", "d", "d/e", "d/e/f", "d/kind", "gone", "gone/f"}
    assert pair.there("cat edited 'touched there' d/kind gone/f") == "e2touched thered/kindgone/f"
    # The target of the link is unchanged.
    assert pair.there("[ ! -L gone ]; ls ../elsewhere/gone; rm -r ../elsewhere") == "f\nstray\n"


def test_a_cancel_ends_the_search_for_undiffed_changes(tmp_path: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    (user / "a").write_text("one\n")
    sync = WorkspaceSync(
        user_folder=user,
        local_copy=tmp_path / "copy",
        sent=tmp_path / "sent",
        machine=None,
        remote="",
        state=tmp_path / "workspace.json",
    )
    sync.upload([], NEVER)
    sync.prepare(Side.LOCAL, NEVER)
    (sync.local_folder / "a").write_text("two\n")
    sync.mark_changed(Side.LOCAL)
    assert sync.has_undiffed_changes(NEVER)

    class Cancelled(NeverHalted):
        def check(self) -> None:
            raise Halted

    with pytest.raises(Halted):
        sync.has_undiffed_changes(Cancelled())
