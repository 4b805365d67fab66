"""The files of a run's containers, on the machine of their engine: laid out before a start, removed at the end."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from pathlib import PurePosixPath

from pccpipe.detached.programs import RunDir, make_folder, write_files
from pccpipe.docker_api import holder, relay
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.hidden import Hidden
from pccpipe.docker_api.hidden import parse as parse_hidden
from pccpipe.docker_api.hidden import script as hidden_script
from pccpipe.docker_api.prologue import SCRIPT
from pccpipe.docker_api.settings import Paths
from pccpipe.errors import ActionError, Nonsense, Unavailable
from pccpipe.layout import COMMANDS, IO, PROXY, STATES, WORKSPACES, SystemDir
from pccpipe.machine.account import Account
from pccpipe.machine.answers import IDS, df_column, number, number_or_none
from pccpipe.machine.base import MAKE_ROOM, left_there, refused
from pccpipe.machine.entering import GONE, LINK, base_of, check_entered, replaced
from pccpipe.machine.retry import DISCONNECTED, UNREACHABLE
from pccpipe.outcome import Reason
from pccpipe.target import Command

LEAST_FREE = 50 * 1024
"""In kB. With less, an agent would find the disk full in the middle of its work."""
LEAST_INODES = 2000


class ContainerFiles:
    """Lays out each command's files, and removes them.

    Args:
        account: who runs in the containers, and whose the workspace is; None: the user who has that.
        root: the machine's folder for projects, if it has one; the workspace is pccpipe's own then.
        has_workspace: whether the run's copy of the code is there, so that none is to be made.
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
        """Return where a command's folders are."""
        return Paths(
            workspace,
            # Without the gate, a container that was made before it was removed does not start.
            self._run_dir.reached(self._run_dir.file_of(command.id, "in")),
            self._run_dir.file_of(command.id, "out"),
            f"{self._run_dir.state}/{PROXY}",
            self._run_dir.file_of(command.id, "cover"),
        )

    def lay_out(self, command: Command, name: str, paths: Paths) -> tuple[int, int]:
        """Write the script and the files there, and start what holds its deadline; who owns the workspace."""
        # Its own, from a try that failed or was cut off, as well.
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
        # An account's workspace is there. What is mounted is for it alone to see, as the folders above are the login's.
        opened = f"chmod -R a+rX {shlex.quote(paths.files)} && chmod 777 {out}" if self._account else ":"
        mode = "711" if self._account else "700"
        script = "\n".join(
            [
                f"export LC_ALL=C; {holder.functions(self._engine.socket)}",
                holder.let_go(self._run_dir, litter),
                f"{self._emptied(*outs)}rm -rf {shlex.join(folders)}",
                f"{write_files(self._run_dir, files_in, files)} && {make_folder(out_by_gate)} && {opened} || exit",
                *([f"mkdir -p {proxy} && chmod {mode} {proxy} || exit"] if command.is_proxied else []),
                self._looked_at(paths.workspace),
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
            raise replaced(self._machine.host, paths.workspace, "a container does not get what it leads to")
        check_entered(self._machine.host, paths.workspace, done.code)
        if done.code:
            raise refused(self._machine.host, done.stderr.decode(errors="replace").strip())
        owner, *free = done.stdout.decode(errors="replace").splitlines() or [""]
        self._check_room(paths.workspace, free)
        if self._account:
            return self._account.uid, self._account.gid
        return self._owner_of(owner)

    def hide(self, paths: Paths) -> tuple[Hidden, ...]:
        """Make the covers; what they are to lie over. Raises ActionError if that cannot be done for all of it."""
        become = self._account.become if self._account else ()
        try:
            done = self._machine.run(hidden_script(paths.workspace, paths.cover, become))
        except TimeoutError as error:
            # The workspace's doing, so no reason for another place.
            words = "the search for files that agents take for instructions took too long"
            raise ActionError(words, "remove what no reviewer needs") from error
        except ConnectionError as error:
            raise Unavailable(Reason.SSH_CLOSED, f"{self._machine.host}: {error}") from error
        if done.code:
            raise refused(self._machine.host, done.stderr.decode(errors="replace").strip())
        return parse_hidden(done.stdout, done.stderr.decode(errors="replace"))

    def remove(self) -> list[str]:
        """Remove what the machine has of the commands but their own processes' files, which are not ours."""
        state = shlex.quote(self._run_dir.state)
        let_go = f"{holder.functions(self._engine.socket)}{holder.let_all_go(self._run_dir)}"
        empty = self._emptied(f"{self._run_dir.state}/{COMMANDS}/*.out")
        folders = f"{state}/{COMMANDS} {state}/{PROXY}"
        open_up = f"{{ chmod -R u+rwX {folders}; rm -rf {folders}; }}"
        remove = f"{{ rm -rf {folders} || {open_up}; rmdir {state}; }} 2>/dev/null; [ ! -e {state}/{COMMANDS} ]"
        if self._machine.run(f"{let_go}\n{empty}{remove}").code == 0:
            return []
        what, fix = f"the folder {self._run_dir.state}", f"sudo rm -rf {state}, there"
        return [left_there(self._machine.host, what, "another user's files are in it", fix)]

    def _emptied(self, *outs: str) -> str:
        """A line that empties these folders: what the account made in one of its own is only for itself to remove."""
        if self._account is None or not outs:
            return ""
        # By the current folder, as the account reaches none of them by its path.
        find = "find . -mindepth 1 -delete"
        # What is made read-only is in the way only of who does not own it.
        become = shlex.join([*self._account.become, "sh", "-c", f"{find} || {{ chmod -R u+rwX .; {find}; }}"])
        folders = " ".join(shlex.quote(out.removesuffix("*.out")) + ("*.out" if "*" in out else "") for out in outs)
        return f'for out in {folders}; do (cd "$out" 2>/dev/null && {become} 2>/dev/null </dev/null); done\n'

    def _looked_at(self, workspace: str) -> str:
        """Give lines that set `made` to the workspace, which the engine would mount whatever it is."""
        made = f"made={shlex.quote(workspace)}"
        if self._root is None:  # a user's own folder, which may be a link; the run's copy was looked at before
            return f'{made}; mkdir -p "$made" || exit'
        base, inner = base_of(workspace)
        # The engine makes an empty folder where none is: that would look like the code. Only the first step of a run
        # that uploads nothing gets one.
        is_there = (
            f'[ -d "$made" ] || exit {GONE}' if self._has_workspace() or self._account else 'mkdir -p "$made" || exit'
        )
        parts = [base, *PurePosixPath(inner).parts]
        folders = " ".join(shlex.quote(str(PurePosixPath(*parts[: end + 1]))) for end in range(1, len(parts)))
        return f'{made}; for part in {folders}; do [ ! -L "$part" ] || exit {LINK}; done; {is_there}'

    def _owner_of(self, listed: str) -> tuple[int, int]:
        """The uid and gid in a line of `ls -n`. Raises Nonsense."""
        host = self._machine.host
        match listed.split():
            case [_, _, uid, gid, *_]:
                return number(host, "owner of the workspace", uid, IDS), number(
                    host, "owner of the workspace", gid, IDS
                )
            case _:
                raise Nonsense(host, "owner of the workspace", listed)

    def _check_room(self, folder: str, free: list[str]) -> None:
        """Raises `Unavailable` where an agent would soon find the disk full. `free` is what df says, with its heads."""
        needs = (("available", LEAST_FREE, "kB"), ("ifree", LEAST_INODES, "inodes"))
        for (head, line), (column, least, unit) in itertools.product(zip(free[::2], free[1::2], strict=False), needs):
            needed = f"{least // 1024} MB" if unit == "kB" else f"{least} inodes"
            left = df_column(head, line, column)
            if left is not None and left < least:
                words = f"{self._machine.host}: {left} {unit} free for {folder}, {needed} needed{self._largest()}"
                raise Unavailable(Reason.NO_DISK_SPACE, words, MAKE_ROOM)

    def _largest(self) -> str:
        """Name what takes most of pccpipe's own folder there, if that can be counted in a moment."""
        if self._root is None:
            return ""
        system = SystemDir.on_vm(self._root).path
        # Of names that a run's code can have made, none is asked for.
        count = f"timeout 5 du -sk {WORKSPACES} {STATES} {IO} 2>/dev/null | sort -n | tail -n 1"
        try:
            said = self._machine.run(f"cd {shlex.quote(system)} && {count}", timeout=15).stdout
        except UNREACHABLE:
            return ""
        match said.decode(errors="replace").split():
            case [kilobytes, name] if name in (WORKSPACES, STATES, IO) and (size := number_or_none(kilobytes)):
                return f"; largest: {system}/{name} ({size / 1000:.1f} MB)"
            case _:
                return ""
