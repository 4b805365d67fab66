"""The files of a run's containers, on the machine of their engine: laid out before a start, removed at the end."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from pccpipe.detached.programs import RunDir, make_folder, write_files
from pccpipe.docker_api import holder, relay
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.hidden import NAMES, PATHS, Hidden
from pccpipe.docker_api.hidden import parse as parse_hidden
from pccpipe.docker_api.hidden import script as hidden_script
from pccpipe.docker_api.prologue import SCRIPT
from pccpipe.docker_api.settings import Paths
from pccpipe.errors import ActionError, Nonsense, Unavailable
from pccpipe.layout import COMMANDS, COPIES, IO, PROXY, STATES, WORKSPACES, SystemDir
from pccpipe.machine.account import Account
from pccpipe.machine.answers import IDS, df_column, number, number_or_none
from pccpipe.machine.base import MAKE_ROOM, cannot_write, left_there
from pccpipe.machine.entering import GONE, LINK, base_of, check_entered, replaced
from pccpipe.machine.retry import DISCONNECTED, UNREACHABLE
from pccpipe.outcome import Reason
from pccpipe.record.fence import GIT
from pccpipe.target import Command

LEAST_FREE = 50 * 1024
"""In kB. With less, an agent would find the disk full in the middle of its work."""
LEAST_INODES = 2000


class ContainerFiles:
    """Lays out each command's files, and removes them.

    Args:
        account: the user in the containers, and the workspace's owner; None: the workspace's owner.
        root: the machine's folder for projects, if it has one; the workspace is pccpipe's own then.
        has_workspace: whether the run's copy of the code is there already.
        kill_after: seconds between TERM and KILL when a command's own limit passes.
    """

    def __init__(
        self,
        engine: DockerEngine,
        run_dir: RunDir,
        account: Account | None,
        root: str | None,
        has_workspace: Callable[[], bool],
        kill_after: float,
    ) -> None:
        self._machine = engine.machine
        self._engine = engine
        self._run_dir = run_dir
        self._account = account
        self._root = root
        self._has_workspace = has_workspace
        self._kill_after = kill_after
        self.litter: list[str] = []
        """The ids of commands whose files the next call may remove."""

    def paths(self, command: Command, workspace: str) -> Paths:
        """Return the folders of a command."""
        return Paths(
            workspace,
            # When another run removes the gate, a container that was made before cannot start.
            self._run_dir.reached(self._run_dir.file_of(command.id, "in")),
            self._run_dir.file_of(command.id, "out"),
            f"{self._run_dir.state}/{PROXY}",
            self._run_dir.file_of(command.id, "cover"),
        )

    def lay_out(self, command: Command, name: str, paths: Paths) -> tuple[int, int]:
        """Write a command's script and files, start its holder, and return the workspace's uid and gid.

        Raises `Unavailable`, WorkspaceGone.
        """
        # Also what an earlier start of this command left.
        litter = [command.id, *(self.litter.pop() for _ in range(len(self.litter)))]
        proxy = shlex.quote(paths.proxy)
        folders = [
            self._run_dir.reached(self._run_dir.file_of(command_id, kind))
            for command_id in litter
            for kind in ("in", "out", "cover", holder.KIND)
        ]
        files = {**command.files, SCRIPT: command.script.encode(errors="surrogateescape")}
        if command.is_proxied:
            files |= relay.files()
        files_in = self._run_dir.file_of(command.id, "in")
        out_by_gate = self._run_dir.reached(paths.out)
        outs = [self._run_dir.file_of(command_id, "out") for command_id in litter]
        out = shlex.quote(paths.out)
        # The folders above are the login's, so only what is mounted is opened to the account.
        opened = f"chmod -R a+rX {shlex.quote(paths.files)} && chmod 777 {out}" if self._account else ":"
        mode = "711" if self._account else "700"
        script = "\n".join(
            [
                f"export LC_ALL=C; {holder.functions(self._engine.socket)}",
                holder.let_go(self._run_dir, litter),
                f"{self._emptied(*outs)}rm -rf {shlex.join(folders)}",
                f"{write_files(self._run_dir, files_in, files)} && {make_folder(out_by_gate)} && {opened} || exit",
                *([f"mkdir -p {proxy} && chmod {mode} {proxy} || exit"] if command.is_proxied else []),
                self._check_workspace(paths.workspace),
                f"{holder.start(self._run_dir, command.id, name, command.limit, self._kill_after)} || exit",
                'ls -nd "$made" || exit',
                # Not every df knows inodes.
                'df -Pk "$made" 2>/dev/null; df -Pi "$made" 2>/dev/null; true',
            ]
        )
        try:
            done = self._machine.run(script)
        except DISCONNECTED as error:
            raise Unavailable(Reason.SSH_CLOSED, f"{self._machine.host}: {error}") from error
        if done.code == LINK:
            raise replaced(self._machine.host, paths.workspace, "no container gets its target")
        check_entered(self._machine.host, paths.workspace, done.code)
        if done.code:
            raise cannot_write(self._machine.host, done.stderr.decode(errors="replace").strip())
        owner, *free = done.stdout.decode(errors="replace").splitlines() or [""]
        self._check_room(paths.workspace, free)
        if self._account:
            return self._account.uid, self._account.gid
        return self._owner_of(owner)

    def hide(self, command: Command, paths: Paths) -> tuple[Hidden, ...]:
        """Make the covers, and return what to hide. Raises `Unavailable`, ActionError if something cannot be hidden."""
        is_read_only = command.container is not None and command.container.read_only_workspace
        names = (*(NAMES if is_read_only else ()), *command.hides)
        if not names:
            return ()
        become = self._account.become if self._account else ()
        script = hidden_script(paths.workspace, paths.cover, become, names=names, paths=PATHS if is_read_only else ())
        try:
            done = self._machine.run(script)
        except TimeoutError as error:
            # The workspace is the cause, and it would be the same at another place.
            words = "the search for files that agents take for instructions took too long"
            raise ActionError(words, "remove what no agent needs") from error
        except ConnectionError as error:
            raise Unavailable(Reason.SSH_CLOSED, f"{self._machine.host}: {error}") from error
        if done.code:
            raise cannot_write(self._machine.host, done.stderr.decode(errors="replace").strip())
        return parse_hidden(done.stdout, done.stderr.decode(errors="replace"))

    def has_git(self, command: Command, paths: Paths, hidden: Sequence[Hidden]) -> bool:
        """Say whether pccpipe's git repository is there, and visible. Raises `Unavailable`."""
        if not command.has_git or any(each.path == GIT for each in hidden):
            return False
        workspace = shlex.quote(paths.workspace)
        # A step outside of a container may have put a link there, which the engine would follow.
        look = f"cd {workspace} && [ ! -L {GIT} ] && [ -f {GIT}/HEAD ]"
        become = self._account.become if self._account else ()
        try:
            done = self._machine.run(f"cd / && exec {shlex.join([*become, 'sh', '-c', look])}")
        except DISCONNECTED as error:
            raise Unavailable(Reason.SSH_CLOSED, f"{self._machine.host}: {error}") from error
        return done.code == 0

    def remove(self) -> list[str]:
        """Remove all of the commands' files; return, in words, the folder that another user's files keep."""
        state = shlex.quote(self._run_dir.state)
        end_holders = f"{holder.functions(self._engine.socket)}{holder.let_all_go(self._run_dir)}"
        empty = self._emptied(f"{self._run_dir.state}/{COMMANDS}/*.out")
        folders = f"{state}/{COMMANDS} {state}/{PROXY}"
        open_up = f"{{ chmod -R u+rwX {folders}; rm -rf {folders}; }}"
        remove = f"{{ rm -rf {folders} || {open_up}; rmdir {state}; }} 2>/dev/null; [ ! -e {state}/{COMMANDS} ]"
        if self._machine.run(f"{end_holders}\n{empty}{remove}").code == 0:
            return []
        what, fix = f"the folder {self._run_dir.state}", f"sudo rm -rf {state}, there"
        return [left_there(self._machine.host, what, "another user's files are in it", fix)]

    def _emptied(self, *outs: str) -> str:
        """Return a line that empties folders as the account: it alone can remove what it made in its own folders."""
        if self._account is None or not outs:
            return ""
        # From inside, as the account cannot reach the folders by their paths.
        find = "find . -mindepth 1 -delete"
        # The account may have made folders read-only; they are its own, so it can change that.
        become = shlex.join([*self._account.become, "sh", "-c", f"{find} || {{ chmod -R u+rwX .; {find}; }}"])
        folders = " ".join(shlex.quote(out.removesuffix("*.out")) + ("*.out" if "*" in out else "") for out in outs)
        return f'for out in {folders}; do (cd "$out" 2>/dev/null && {become} 2>/dev/null </dev/null); done\n'

    def _check_workspace(self, workspace: str) -> str:
        """Return lines that set `made` to the workspace, and refuse a link, which the engine would mount."""
        made = f"made={shlex.quote(workspace)}"
        if self._root is None:  # a user's own folder, which may be a link
            return f'{made}; mkdir -p "$made" || exit'
        base, inner = base_of(workspace)
        # An empty folder would look like the code: only the first step of a run that uploads nothing gets one.
        check = (
            f'[ -d "$made" ] || exit {GONE}' if self._has_workspace() or self._account else 'mkdir -p "$made" || exit'
        )
        steps = [base, *PurePosixPath(inner).parts]
        folders = " ".join(shlex.quote(str(PurePosixPath(*steps[: end + 1]))) for end in range(1, len(steps)))
        return f'{made}; for part in {folders}; do [ ! -L "$part" ] || exit {LINK}; done; {check}'

    def _owner_of(self, listed: str) -> tuple[int, int]:
        """Read the uid and gid in a line of `ls -n`. Raises Nonsense."""
        host, what = self._machine.host, "owner of the workspace"
        match listed.split():
            case [_, _, uid, gid, *_]:
                return number(host, what, uid, IDS), number(host, what, gid, IDS)
            case _:
                raise Nonsense(host, what, listed)

    def _check_room(self, folder: str, free: list[str]) -> None:
        """Raise `Unavailable` if an agent would soon fill the disk. `free` has the lines of df, with their heads."""
        needs = (("available", LEAST_FREE, "kB"), ("ifree", LEAST_INODES, "inodes"))
        for (head, line), (column, least, unit) in itertools.product(zip(free[::2], free[1::2], strict=False), needs):
            needed = f"{least // 1024} MB" if unit == "kB" else f"{least} inodes"
            left = df_column(head, line, column)
            if left is not None and left < least:
                words = f"{self._machine.host}: {left} {unit} free for {folder}, {needed} needed{self._largest()}"
                raise Unavailable(Reason.NO_DISK_SPACE, words, MAKE_ROOM)

    def _largest(self) -> str:
        """Name the largest part of pccpipe's own folder there, if du can count it within 5 s."""
        if self._root is None:
            return ""
        system = SystemDir.on_vm(self._root).path
        # These names are pccpipe's own: a run's code can have made none of them.
        count = f"timeout 5 du -sk {WORKSPACES} {COPIES} {STATES} {IO} 2>/dev/null | sort -n | tail -n 1"
        try:
            said = self._machine.run(f"cd {shlex.quote(system)} && {count}", timeout=15).stdout
        except UNREACHABLE:
            return ""
        match said.decode(errors="replace").split():
            case [kilobytes, name] if name in (WORKSPACES, COPIES, STATES, IO) and (size := number_or_none(kilobytes)):
                return f"; largest: {system}/{name} ({size / 1000:.1f} MB)"
            case _:
                return ""
