"""Makes and starts a command's container, and says why a command never began."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.docker_api import engine_vm
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.hidden import Hidden
from pccpipe.docker_api.isolation import isolation_of, part
from pccpipe.docker_api.problems import ApiCall, never_began
from pccpipe.docker_api.prologue import SCRIPT, prologue
from pccpipe.docker_api.settings import MARK_LABEL, NO_SHELL, SHELL, TORN, Paths, create_body
from pccpipe.docker_api.stream import EngineAnswer
from pccpipe.errors import Broken, Fenced, Lost, Refused, Unavailable
from pccpipe.machine.account import Account
from pccpipe.machine.retry import UNREACHABLE, retrying
from pccpipe.outcome import Reason
from pccpipe.paste import operands
from pccpipe.target import Command, Isolation
from pccpipe.targets.container_exit import ContainerRef
from pccpipe.targets.container_running import ContainerRunning
from pccpipe.targets.known_images import KnownImages
from pccpipe.values import Json

DOUBT_LIMIT = 60.0
"""Seconds to find out whether a container started while the connection broke."""
BEGIN_LIMIT = 10.0
"""Seconds for which a start waits for the command to begin; then the command counts as begun."""


class ContainerStarter:
    """Starts the containers of one run.

    Args:
        workspace: gives the workspace's folder, on the engine's machine.
        account: the user in the containers; None: the workspace's owner.
        kill_after: seconds between TERM and KILL when a command's own limit passes.
    """

    def __init__(
        self,
        engine: DockerEngine,
        run_id: str,
        workspace: Callable[[], str],
        images: KnownImages,
        account: Account | None,
        lost_after: float,
        kill_after: float,
    ) -> None:
        self._engine = engine
        self._run_id = run_id
        self._workspace = workspace
        self._images = images
        self._account = account
        self._lost_after = lost_after
        self._kill_after = kill_after

    def create(self, name: str, command: Command, body: dict[str, Json]) -> str:
        """Make a container, and return its id. Raises `Unavailable`, `Refused`."""
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
            self._free_name(name, error)
            return create()

    def body(
        self, command: Command, owner: tuple[int, int], paths: Paths, hidden: Sequence[Hidden], *, has_git: bool
    ) -> dict[str, Json]:
        """Return the create call's body. Raises `Unavailable` if the engine maps users and the account forbids that."""
        options = self._engine.security_options() or ()
        is_rootless = "rootless" in options
        # In its containers root is the login on the machine, and any other number is another user.
        user, podman = (0, 0) if is_rootless else owner, self._engine.is_podman
        body = create_body(command, self._run_id, user, paths, hidden, has_git=has_git, podman=podman)
        if is_rootless and self._account:
            host = self._engine.machine.host
            words = f"{host}: a rootless engine maps the users of its containers to other ids on the VM"
            hint = "run the engine as root (with userns-remap if you like), or take `run_as` out of the project file"
            raise Unavailable(Reason.ENGINE_MAPS_USERS, words, hint)
        if "userns" in options and not is_rootless:
            host_config = body["HostConfig"]
            assert isinstance(host_config, dict)
            # Mapped, it would be another user than the workspace's owner.
            host_config["UsernsMode"] = "host"
        return body

    def begin(self, ref: ContainerRef, command: Command) -> ContainerRunning:
        """Attach, wait and start; remove a container whose command certainly never began. Raises `Unavailable`."""
        answers: list[EngineAnswer] = []
        try:
            query = "stream=1&stdin=1&stdout=1&stderr=1"
            attached = self._engine.stream("POST", f"/containers/{ref.container}/attach?{query}", upgrade=True)
            answers.append(attached)
            waiting = self._engine.stream("POST", f"/containers/{ref.container}/wait?condition=next-exit")
            answers.append(waiting)
            program = prologue(command, self._run_id, self._kill_after, self._looks(command))
            if command.memory:
                # Nobody reads it before the start, and the engine buffers little of it.
                self._start(ref.container)
            attached.stream.sendall(program)
            attached.stream.shutdown_write()
            if not command.memory:
                self._start(ref.container)
            found: Mapping[str, Json] = self._engine.inspect(ref.container) or {}
            streams: tuple[EngineAnswer, EngineAnswer] | None = (attached, waiting)
        except UNREACHABLE as error:
            for answer in answers:
                answer.close()
            begun = self._begun(ref.container)
            if begun is None and self.has_begun(ref):
                begun = {}
            if begun is None:
                why = self._why_not_started(ref.container, command, error)
                ref.remove_quietly()
                raise why from error
            # The connection broke, and the container runs: its log has its output.
            found, streams = begun, None
        running = ContainerRunning(ref, self._isolation(ref.name, found), streams, self._lost_after, is_marked=True)
        if never := self.why_never_began(running, ref, command):
            raise never
        return running

    def follow(self, ref: ContainerRef, found: Mapping[str, Json]) -> ContainerRunning:
        """Follow a container that the engine knows, from the first byte of its output."""
        is_marked = MARK_LABEL in part(found, "Config", "Labels")
        return ContainerRunning(ref, self._isolation(ref.name, found), None, self._lost_after, is_marked=is_marked)

    def why_never_began(self, running: ContainerRunning, ref: ContainerRef, command: Command) -> Unavailable | None:
        """If the container ended before its command began, remove it and return the cause."""
        assert command.container is not None
        ended = running.await_beginning(BEGIN_LIMIT)
        if ended is None or self.has_begun(ref):
            return None
        image, words = command.container.image, running.unread_text(limits.CONTAINER_WORDS.most)
        running.let_go()
        workspace = command.workspace or self._workspace()
        unseen = self._engine.is_in_vm and engine_vm.why(ended.code, workspace, ref.run_dir.state)
        if unseen:
            why: Unavailable = unseen
        elif ended.code == TORN:
            why = Broken(Reason.ENGINE_STOPPED, "the connection ended before the whole command arrived")
        elif ended.code == NO_SHELL:
            shell = f"the image {image} has no {shlex.split(command.shell)[0]}, which the step's `shell:` names"
            why = Unavailable(Reason.SHELL_MISSING, shell, "use an image that has it, or another `shell:`")
        else:
            words = words or ("out of memory" if ended.out_of_memory else "no output")
            why = never_began(image, SHELL, words, code=ended.code, has_shell=self._has_shell(ref.container))
        ref.remove_quietly()
        return why

    def has_begun(self, ref: ContainerRef) -> bool:
        """Say whether a command began, although the engine says that its container did not. Raises `Fenced`, `Lost`."""
        return retrying(ref.has_begun, DOUBT_LIMIT, may_retry=lambda error: not isinstance(error, Fenced))

    def _start(self, container: str) -> None:
        self._engine.ask(ApiCall.START, lambda client: client.start(container))

    def _free_name(self, name: str, error: Unavailable) -> None:
        """Remove a dead container of pccpipe's that has the name. Raises `Unavailable` for any other."""
        found = self._engine.inspect(name)
        if found is None:
            return
        labels = part(found, "Config", "Labels")
        status = part(found, "State").get("Status")
        run_id = labels.get("pccpipe.run")
        if run_id is None:
            whose = "not created by pccpipe"
        elif status == "running":
            whose = f"of the run {str(run_id)[:64]}"
        else:
            self._engine.remove(self._engine.id_of(found))
            return
        words = f"{error.words} (the container {name} is {status}, {whose})"
        raise Unavailable(Reason.NAME_TAKEN, words, f"docker rm -f {operands(name)}, if nobody needs it") from error

    def _looks(self, command: Command) -> list[str]:
        """Return shell lines by which a container checks, before its command begins, that it sees the host's files."""
        if not self._engine.is_in_vm:
            return []
        try:
            with os.scandir(command.workspace or self._workspace()) as entries:
                has_files = any(True for _ in entries)
        except OSError:
            has_files = False  # the container cannot see more of it
        return engine_vm.lines(SCRIPT, is_proxied=command.is_proxied, has_files=has_files)

    def _begun(self, container: str) -> Mapping[str, Json] | None:
        """Return the engine's account of a container that may have begun; None if it certainly never did.

        The account is empty if the engine stays away. Raises `Fenced`: the run that took the machine over finds out.
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
            return True  # the words at hand then name the cause

    def _isolation(self, name: str, found: Mapping[str, Json]) -> Isolation:
        had = isolation_of(self._engine.machine.host, name, found, self._engine.security_options())
        return replace(had, image_provisioned=self._images.other_than(had.image, had.image_digest))
