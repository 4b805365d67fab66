"""Runs each command in a fresh container of its own, on the engine of a machine: the VM's, or this one's."""

from __future__ import annotations

import itertools
import math
import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from msgspec.structs import replace

from pccpipe import layout, limits
from pccpipe.cancel import Halt
from pccpipe.detached.programs import KILL_AFTER, make_folder, write_files
from pccpipe.detached.programs import RunDir as StatePlace
from pccpipe.detached.running import LOST_AFTER
from pccpipe.docker_api import engine_vm, holder, relay
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.hidden import Hidden
from pccpipe.docker_api.hidden import parse as parse_hidden
from pccpipe.docker_api.hidden import script as hidden_script
from pccpipe.docker_api.isolation import isolation_of, part
from pccpipe.docker_api.problems import ApiCall, never_began
from pccpipe.docker_api.settings import (
    BEGUN,
    END_OF_PROLOGUE,
    HOME,
    IN,
    MARK_LABEL,
    NO_SHELL,
    OUT,
    PROXY,
    SHELL,
    SYSTEM_PATH,
    TORN,
    WORKSPACE,
    Paths,
    container_name,
    create_body,
)
from pccpipe.docker_api.stream import EngineAnswer
from pccpipe.errors import ActionError, Broken, Fenced, Lost, Nonsense, Refused, Unavailable
from pccpipe.layout import COMMANDS, IO, STATES, WORKSPACES, SystemDir
from pccpipe.machine.account import Account
from pccpipe.machine.answers import IDS, df_column, number, number_or_none
from pccpipe.machine.base import MAKE_ROOM, Listener, Machine, ProxyDoor, left_there, refused
from pccpipe.machine.entering import GONE, LINK, base_of, check_entered, replaced
from pccpipe.machine.gate import Gate, plain
from pccpipe.machine.haltable import until_halted
from pccpipe.machine.retry import DISCONNECTED, UNREACHABLE, retrying
from pccpipe.outcome import Reason
from pccpipe.paste import operands
from pccpipe.target import Command, ContainerSettings, Isolation, Running, Token
from pccpipe.targets.contained import Contained, ContainerRef
from pccpipe.targets.known_images import KnownImages
from pccpipe.targets.turns import CommandKind, TakingTurns, Turns
from pccpipe.values import Json

SCRIPT = ".script"
LEAST_FREE = 50 * 1024
"""In kB; an agent that finds the disk full in the midst of its work has worked in vain."""
LEAST_INODES = 2000
NO_REPOSITORY_BY_SHAPE = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.bareRepository",
    "GIT_CONFIG_VALUE_0": "explicit",
}
"""A folder that looks like a bare repository is none to git: its configuration could name programs to run."""
DOUBT_LIMIT = 60.0
"""Seconds to find out whether a container started, when the connection broke at that moment."""
BEGIN_LIMIT = 10.0
"""Seconds for which a start waits until the command begins; then it counts as begun."""
BUSY_LIMIT, BUSY_PAUSE = 4.0, 1.0
"""Seconds for which an engine is asked again to remove a container that it says is busy, and between two tries."""
CLOSE_LIMIT = 15.0
"""Seconds for which the engine may stay away at the end before what the run has there is left to `gc`."""


class ContainerTarget:
    """A `Target`. A container goes on without the connection, and is removed when its command is discarded.

    Args:
        machine: where the engine runs.
        state: the run's folder for all but the workspace, on that machine; `close` removes what was made in it.
        workspace: gives the workspace's folder, on that machine.
        socket: of the engine, on that machine; None: where that says that it is.
        lost_after: seconds for which the engine may stay away before a command counts as lost.
        kill_after: seconds between TERM and KILL when a command's own limit passes.
        door: serves a command that connects to the proxy.
        account: who runs in the containers, and whose the workspace is; None: the user who has that.
        turns: when a container may run; with an account.
        gate: what they begin by.
        root: the machine's folder for projects, if it has one; the workspace is pccpipe's own then.
        has_workspace: whether the run's copy of the code is there, so that none is to be made.
    """

    def __init__(
        self,
        machine: Machine,
        run_id: str,
        state: str,
        workspace: Callable[[], str],
        socket: str | None = None,
        lost_after: float = LOST_AFTER,
        kill_after: float = KILL_AFTER,
        door: ProxyDoor | None = None,
        account: Account | None = None,
        turns: Turns | None = None,
        gate: Gate | None = None,
        root: str | None = None,
        has_workspace: Callable[[], bool] = lambda: False,
    ) -> None:
        self._images = KnownImages(machine, root)
        self._root = root
        self._has_workspace = has_workspace
        self._account = account
        self._turns = turns
        self._machine = machine
        self._run_id = run_id
        self._place = StatePlace(run_id, state, gate=gate)
        self._workspace = workspace
        self._engine = DockerEngine(machine, socket)
        self._lost_after = lost_after
        self._kill_after = kill_after
        self._door = door
        self._door_lock = threading.Lock()
        self._served: Listener | None = None
        self._used = False
        self._is_closed = False
        self._litter: list[str] = []

    def open(self) -> None:
        self._engine.open()
        self._used = True

    def probe(self, container: ContainerSettings | None) -> None:
        assert container is not None
        self.open()
        if not self._engine.has_image(container.image):
            raise Unavailable(
                Reason.IMAGE_MISSING, f"the engine of {self._machine.host} has no image {container.image}"
            )

    def take_over(self) -> None:
        self._used = True

    def gives_sign(self) -> bool:
        """Ask the engine for a sign of life, and wait for that; whether one came."""
        return self._engine.gives_sign()

    def start(self, command: Command) -> Running:
        self._engine.open()
        if self._turns is None:
            return self._started(command)
        self._turns.begin(CommandKind.CONTAINER, command.id)
        try:
            return TakingTurns(self._started(command), self._turns, CommandKind.CONTAINER, command.id)
        except BaseException:
            self._turns.let_go(CommandKind.CONTAINER, command.id)
            raise

    def _started(self, command: Command) -> Running:
        assert command.container is not None
        if any("\0" in value for value in (*command.env.values(), *command.secrets.values())):
            raise Refused("a NUL byte in its environment: no shell can take that")
        paths = Paths(
            self._workspace(),
            # Without the gate, a container that was made before it was removed does not start.
            self._place.reached(self._place.file_of(command.id, "in")),
            self._place.file_of(command.id, "out"),
            f"{self._place.state}/{layout.PROXY}",
            self._place.file_of(command.id, "cover"),
        )
        name = container_name(self._run_id, command)
        try:
            owner = self._lay_out(command, name, paths)
            self._images.begin()
            if command.is_proxied:
                self._open_door()
            hidden = self._hide(paths) if command.container.read_only_workspace else ()
            body = self._body(command, owner, paths, hidden)
            self._check_open()
            container = self._create(name, command, body)
            if self._is_closed:
                self._remove_quietly(container)
            self._check_open()
            running = self._begin(container, name, command)
        except Unavailable:
            self._check_gate()
            # It may be tried again as the same command, side by side with one that removes the litter.
            raise
        except BaseException:
            self._litter.append(command.id)
            raise
        if self._place.gate:
            self._place.gate.begun()
        return running

    def _check_open(self) -> None:
        """Raise `Unavailable` for a start that nobody waits for any more: what it makes, nobody would remove."""
        if self._is_closed:
            raise Unavailable(Reason.START_REFUSED, "the run has ended")

    def _check_gate(self) -> None:
        """A start failed. Raises `Fenced` if that was because the machine is another's; never for another reason."""
        if self._place.gate is None:
            return
        try:
            if self._machine.run(self._place.gate.test).code:
                self._place.gate.check()
        except Fenced:
            raise
        except UNREACHABLE:
            return

    def find(self, command: Command) -> Running | None:
        self._engine.open()
        labels = {"pccpipe.run": self._run_id, "pccpipe.command": command.id}
        name, files = container_name(self._run_id, command), self._place.file_of(command.id, "in")
        for made, mounts in self._engine.listed(labels).items():
            found = self._engine.inspect(made) or {}
            # A label proves nothing; a name is one container's at a time.
            if found.get("Name") != f"/{name}" or plain(mounts.get(IN, "")) != files:
                continue
            if part(found, "State").get("Status") == "created":
                self._engine.remove(made)
                continue
            self._open_door(found)
            where = ContainerRef(self._engine, self._place, command.id, made, name, self._litter)
            running = self._followed(where, found)
            if self._why_never_began(running, where, command):
                continue  # it is removed, and a start says why
            return self._going_on(running, command.id)
        return None

    def attach(self, token: Token) -> Running:
        match token:
            case {"id": str(id_), "container": str(container), "name": str(name)}:
                pass
            case _:
                raise Lost(f"the record does not say in which container the command runs: {token}")
        found = self._engine.inspect(container)
        if found is None:
            raise Lost(f"the container {name} is gone from the engine of {self._machine.host}")
        self._open_door(found)
        where = ContainerRef(self._engine, self._place, id_, container, name, self._litter)
        return self._going_on(self._followed(where, found), id_)

    def _followed(self, where: ContainerRef, found: Mapping[str, Json]) -> Contained:
        """A container that the engine knows, from the first byte of its output."""
        is_marked = MARK_LABEL in part(found, "Config", "Labels")
        isolation = self._isolation(where.name, found)
        return Contained(where, isolation, None, self._lost_after, is_marked=is_marked)

    def _going_on(self, running: Running, command_id: str) -> Running:
        if self._turns is None:
            return running
        self._turns.go_on(CommandKind.CONTAINER, command_id)
        return TakingTurns(running, self._turns, CommandKind.CONTAINER, command_id)

    def running(self) -> list[str]:
        """The ids of the run's containers that run now. Raises `Unavailable`."""
        try:
            return list(self._engine.listed({"pccpipe.run": self._run_id}, running=True))
        except Unavailable as error:
            if error.reason is Reason.ENGINE_MISSING:
                return []
            raise

    def build_image(
        self,
        image: str,
        context: Path,
        dockerfile: Path,
        args: Mapping[str, str],
        *,
        only_if_missing: bool,
        on_output: Callable[[bytes], object],
        halt: Halt,
    ) -> bool:
        """Build an image from a folder here; False if it was there already and that is enough.

        Raises `Unavailable` without an engine, ActionError when the build fails, Halted.
        """
        if only_if_missing and self._engine.has_image(image):
            return False
        with until_halted(self._machine, halt) as machine:
            engine = DockerEngine(machine, self._engine.socket)
            engine.build(image, context.absolute(), dockerfile.absolute(), args, on_output)
            self._images.built.add(image)
        return True

    def leave(self) -> None:
        self._close_door()
        self._engine.close()

    def _close_door(self) -> None:
        with self._door_lock:
            if self._served is not None:
                self._served.close()
                self._served = None

    def close(self) -> tuple[str, ...]:
        self._is_closed = True
        self._close_door()
        try:
            return self._removed() if self._used else ()
        finally:
            self._engine.close()

    def _removed(self) -> tuple[str, ...]:
        """Remove all of the run; what is left, in words."""
        self._used = False
        try:
            return retrying(lambda: (*self._remove_containers(), *self._remove_files()), CLOSE_LIMIT)
        except Lost as lost:
            # `gc` goes by the containers' labels.
            return (left_there(self._machine.host, "what its containers left", lost.words, "pccpipe gc"),)

    def _remove_containers(self) -> list[str]:
        """Also those whose create call was answered to nobody; what stays, with the engine's words.

        Raises `Unavailable` while the engine is away, ConnectionError, TimeoutError.
        """
        until = time.monotonic() + BUSY_LIMIT
        while True:
            stays: dict[str, str] = {}
            for left, mounts in self._engine.listed({"pccpipe.run": self._run_id}).items():
                # Another project's run may have the same id on this engine.
                if not plain(mounts.get(IN, f"{self._place.state}/")).startswith(f"{self._place.state}/"):
                    continue
                try:
                    self._engine.remove(left)
                except Unavailable as error:
                    if error.reason is not Reason.ENGINE_ERROR:
                        raise
                    stays[left] = error.words
            if not stays or time.monotonic() >= until:
                host = self._machine.host
                return [
                    left_there(host, f"the container {self._name_of(left)}", words, f"docker rm -f {left[:12]}, there")
                    for left, words in stays.items()
                ]
            time.sleep(BUSY_PAUSE)

    def _name_of(self, container: str) -> str:
        try:
            name = (self._engine.inspect(container) or {}).get("Name")
        except UNREACHABLE:
            name = None
        return str(name or container[:12]).removeprefix("/")

    def _remove_files(self) -> list[str]:
        """Remove what the machine has of the commands but their own processes' files, which are not ours."""
        state = shlex.quote(self._place.state)
        let_go = f"{holder.functions(self._engine.socket)}{holder.let_all_go(self._place)}"
        empty = self._emptied(f"{self._place.state}/{COMMANDS}/*.out")
        folders = f"{state}/{COMMANDS} {state}/{layout.PROXY}"
        open_up = f"{{ chmod -R u+rwX {folders}; rm -rf {folders}; }}"
        remove = f"{{ rm -rf {folders} || {open_up}; rmdir {state}; }} 2>/dev/null; [ ! -e {state}/{COMMANDS} ]"
        if self._machine.run(f"{let_go}\n{empty}{remove}").code == 0:
            return []
        what, fix = f"the folder {self._place.state}", f"sudo rm -rf {state}, there"
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

    def _open_door(self, found: Mapping[str, Json] | None = None) -> None:
        """Take connections at the proxy's socket, if a container that is found has it mounted. Raises `Unavailable`."""
        if self._door is None or (found is not None and not _mounted(found, PROXY)):
            return
        with self._door_lock:
            if self._served is None:
                path = f"{self._place.state}/{layout.PROXY}/{relay.SOCKET}"
                self._served = self._door.serving.serve_socket(path, self._door.accept, open_to_all=bool(self._account))

    def _lay_out(self, command: Command, name: str, paths: Paths) -> tuple[int, int]:
        """Write the script and the files there, and start what holds its deadline; who owns the workspace."""
        # Its own, from a try that failed or was cut off, as well.
        litter = [command.id, *(self._litter.pop() for _ in range(len(self._litter)))]
        proxy = shlex.quote(paths.proxy)
        folders = [
            self._place.reached(self._place.file_of(command_id, kind))
            for command_id in litter
            for kind in ("in", "out", "cover", holder.KIND)
        ]
        files = {**command.files, SCRIPT: command.script.encode(errors="surrogateescape")}
        if command.is_proxied:
            files |= relay.files()
        files_in = self._place.file_of(command.id, "in")
        out_by_gate = self._place.reached(paths.out)
        outs = [self._place.file_of(command_id, "out") for command_id in litter]
        out = shlex.quote(paths.out)
        # An account's workspace is there. What is mounted is for it alone to see, as the folders above are the login's.
        opened = f"chmod -R a+rX {shlex.quote(paths.files)} && chmod 777 {out}" if self._account else ":"
        mode = "711" if self._account else "700"
        script = "\n".join(
            [
                f"export LC_ALL=C; {holder.functions(self._engine.socket)}",
                holder.let_go(self._place, litter),
                f"{self._emptied(*outs)}rm -rf {shlex.join(folders)}",
                f"{write_files(self._place, files_in, files)} && {make_folder(out_by_gate)} && {opened} || exit",
                *([f"mkdir -p {proxy} && chmod {mode} {proxy} || exit"] if command.is_proxied else []),
                self._looked_at(paths.workspace),
                f"{holder.start(self._place, command.id, name, command.limit, self._kill_after)} || exit",
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

    def _body(
        self, command: Command, owner: tuple[int, int], paths: Paths, hidden: Sequence[Hidden]
    ) -> dict[str, Json]:
        """The create call's body. Raises `Unavailable` if the engine maps users and cannot let that be."""
        options = self._engine.security_options() or ()
        is_rootless = "rootless" in options
        # There, root is the login on the machine, and any other number is another user.
        user, podman = (0, 0) if is_rootless else owner, self._engine.is_podman
        body = create_body(command, self._run_id, user, paths, hidden, podman=podman)
        if is_rootless and self._account:
            words = f"{self._machine.host}: a rootless engine gives the users of its containers other ids on the VM"
            hint = "run the engine as root (with userns-remap if you like), or take `run_as` out of the project file"
            raise Unavailable(Reason.ENGINE_MAPS_USERS, words, hint)
        if "userns" in options and not is_rootless:
            host_config = body["HostConfig"]
            assert isinstance(host_config, dict)
            # Mapped, it would be another user than the one that the workspace belongs to.
            host_config["UsernsMode"] = "host"
        return body

    def _hide(self, paths: Paths) -> tuple[Hidden, ...]:
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

    def _create(self, name: str, command: Command, body: dict[str, Json]) -> str:
        assert command.container is not None
        image = command.container.image

        def create() -> str:
            made = self._engine.ask(
                ApiCall.CREATE,
                lambda client: client.create_container_from_config(body, name),  # type: ignore[no-untyped-call]
                image=image,
            )
            return self._engine.id_of(made)

        try:
            return create()
        except Refused as error:
            unseen = self._engine.is_in_vm and engine_vm.why_refused(str(error))
            if unseen:
                raise unseen from error
            raise
        except Unavailable as error:
            if error.reason is not Reason.NAME_TAKEN:
                raise
            self._make_room(name, error)
            return create()

    def _make_room(self, name: str, error: Unavailable) -> None:
        """Remove a dead container of ours that has the name; say whose it is if it is none."""
        found = self._engine.inspect(name)
        if found is None:
            return
        labels = part(found, "Config", "Labels")
        status = part(found, "State").get("Status")
        run_id = labels.get("pccpipe.run")
        if run_id is None:
            whose = "made by somebody else"
        elif status == "running":
            whose = f"of the run {str(run_id)[:64]}"
        else:
            self._engine.remove(self._engine.id_of(found))
            return
        words = f"{error.words} (the container {name} is {status}, {whose})"
        raise Unavailable(Reason.NAME_TAKEN, words, f"docker rm -f {operands(name)}, if nobody needs it") from error

    def _begin(self, container: str, name: str, command: Command) -> Running:
        """Attach, wait and start; what certainly never began leaves nothing behind."""
        answers: list[EngineAnswer] = []
        where = ContainerRef(self._engine, self._place, command.id, container, name, self._litter)
        try:
            query = "stream=1&stdin=1&stdout=1&stderr=1"
            attached = self._engine.stream("POST", f"/containers/{container}/attach?{query}", upgrade=True)
            answers.append(attached)
            waiting = self._engine.stream("POST", f"/containers/{container}/wait?condition=next-exit")
            answers.append(waiting)
            attached.stream.sendall(_prologue(command, self._run_id, self._kill_after, self._looks(command)))
            attached.stream.shutdown_write()
            self._start(container)
            found = self._engine.inspect(container) or {}
        except UNREACHABLE as error:
            for answer in answers:
                answer.close()
            begun = self._begun(container)
            if begun is None:
                why = self._why_not_started(container, command, error)
                self._remove_quietly(container)
                raise why from error
            # The connection broke, and the container runs: find its output and its end again.
            running = Contained(where, self._isolation(name, begun), None, self._lost_after, is_marked=True)
        else:
            isolation = self._isolation(name, found)
            running = Contained(where, isolation, (attached, waiting), self._lost_after, is_marked=True)
        if never := self._why_never_began(running, where, command):
            raise never
        return running

    def _looks(self, command: Command) -> list[str]:
        """What a container is to look for before its command begins, by shell lines."""
        if not self._engine.is_in_vm:
            return []
        try:
            with os.scandir(self._workspace()) as entries:
                has_files = any(True for _ in entries)
        except OSError:
            has_files = False  # the container cannot see more of it
        return engine_vm.lines(SCRIPT, is_proxied=command.is_proxied, has_files=has_files)

    def _why_never_began(self, running: Contained, where: ContainerRef, command: Command) -> Unavailable | None:
        """Why the command never began, if its container has ended without that: it is removed then."""
        assert command.container is not None
        ended = running.await_beginning(BEGIN_LIMIT)
        if ended is None:
            return None
        image, words = command.container.image, running.said(limits.CONTAINER_WORDS.most)
        running.let_go()
        unseen = self._engine.is_in_vm and engine_vm.why(ended.code, self._workspace(), self._place.state)
        if unseen:
            why: Unavailable = unseen
        elif ended.code == TORN:
            why = Broken(Reason.ENGINE_STOPPED, "the connection ended before the command came whole")
        elif ended.code == NO_SHELL:
            shell = f"the image {image} has no {shlex.split(command.shell)[0]}, which the step's `shell:` names"
            why = Unavailable(Reason.SHELL_MISSING, shell, "use an image that has it, or another `shell:`")
        else:
            words = words or ("out of memory" if ended.out_of_memory else "it said nothing")
            why = never_began(image, SHELL, words, code=ended.code, has_shell=self._has_shell(where.container))
        self._remove_quietly(where.container)
        return why

    def _why_not_started(self, container: str, command: Command, error: Exception) -> Unavailable:
        assert command.container is not None
        if not isinstance(error, Unavailable):
            return Broken(Reason.ENGINE_STOPPED, f"the connection to the engine ended: {error}")
        if error.reason is not Reason.START_REFUSED:
            return error
        return never_began(command.container.image, SHELL, error.words, has_shell=self._has_shell(container))

    def _has_shell(self, container: str) -> bool:
        try:
            return self._engine.has_file(container, SHELL)
        except UNREACHABLE:
            return True  # the words that there are have to do

    def _start(self, container: str) -> None:
        self._engine.ask(ApiCall.START, lambda client: client.start(container))

    def _begun(self, container: str) -> Mapping[str, Json] | None:
        """What the engine knows of a container that may have begun (nothing, if it stays away); None: it never did.

        Raises `Fenced`: who took the machine over finds out.
        """
        try:
            found = retrying(
                lambda: self._engine.inspect(container),
                DOUBT_LIMIT,
                may_retry=lambda error: not isinstance(error, Fenced),
            )
        except Lost:
            return {}
        # "created" with an error is a refused start.
        return None if found is None or part(found, "State").get("Status") in {"created", None} else found

    def _remove_quietly(self, container: str) -> None:
        try:
            self._engine.remove(container)
        except UNREACHABLE:
            return  # `close` tries again, by the run's label

    def _isolation(self, name: str, found: Mapping[str, Json]) -> Isolation:
        had = isolation_of(self._machine.host, name, found, self._engine.security_options())
        return replace(had, image_provisioned=self._images.other_than(had.image, had.image_digest))


def _prologue(command: Command, run_id: str, kill_after: float, looks: Sequence[str]) -> bytes:
    """What the container's shell reads: the only way in for the environment and the secrets."""
    own = {
        "HOME": HOME,
        "CODEX_HOME": f"{HOME}/.codex",
        "PCC_WORKSPACE": WORKSPACE,
        "PCC_RUN_ID": run_id,
        "PCC_IN": IN,
        "PCC_OUT": OUT,
    }
    if command.container and command.container.read_only_workspace:
        own |= NO_REPOSITORY_BY_SHAPE
    values = {**own, **command.env, **command.secrets}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    folder = shlex.quote(f"{WORKSPACE}/{command.cwd}")
    shell, *options = map(shlex.quote, shlex.split(command.shell))
    lines += [
        f"pcc_path=$PATH; PATH=${{PATH:+$PATH:}}{SYSTEM_PATH}",
        f"pcc_shell=$(command -v {shell}) || exit {NO_SHELL}",
        *looks,
        f"echo '{BEGUN}'",
        _watchdog(math.ceil(command.limit), kill_after),
        'mkdir -p "$CODEX_HOME"',
        *(relay.lines(command.way_out) if command.is_proxied else []),
        f"PATH=$pcc_path; cd {folder} || exit 127",
        f'exec "$pcc_shell" {" ".join([*options, f"{IN}/{SCRIPT}"])} </dev/null',
        END_OF_PROLOGUE,
    ]
    return "\n".join(lines).encode(errors="surrogateescape")


def _watchdog(limit: int, kill_after: float) -> str:
    """Ends everything in the container at the command's limit, whether or not anybody is there to see it.

    It holds neither the output nor a folder of the workspace's, and it goes with the container. All that it takes is
    `sleep`: not every image's `timeout` knows the same options.
    """
    end = f"sleep {limit}; kill -TERM -1; sleep {kill_after:g}; kill -KILL -1"
    return f"(cd /; command -v sleep || exit; {end}) </dev/null >/dev/null 2>&1 &"


def _mounted(found: Mapping[str, Json], target: str) -> list[dict[str, Json]]:
    """What is mounted at a place in a container, by the engine's account."""
    mounts = part(found, "HostConfig").get("Mounts")
    return [
        mount
        for mount in (mounts if isinstance(mounts, list) else [])
        if isinstance(mount, dict) and mount.get("Target") == target
    ]
