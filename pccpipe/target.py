"""The seam between the engine and the places where commands run.

Order of calls: `Target.open` once, then any number of `start` (or, after a crash, `attach`), from any thread; each
gives a `Running` that one thread reads until its `Exit`, then may `fetch` from, then `discard`s. `Target.close` comes
last and leaves nothing of the run behind. `Running.stop` may come from any thread at any time.

`start` raises `Unavailable` only if the command certainly never began: the engine falls back on that and on nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, TypeAlias

from msgspec import Struct, field

from pccpipe.outcome import Place, Stream
from pccpipe.values import Discreet, Json

Token: TypeAlias = "dict[str, Json]"
"""What `attach` needs to find a command again after a crash of pccpipe; plain JSON, kept in the record."""


class ContainerSettings(Struct, frozen=True):
    """What is asked of a container. Memory in bytes, CPUs in cores, pids as a count; None means no limit."""

    image: str
    network: str = "bridge"
    """`none`, `bridge` or `host`."""
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    home_size: int = 1 << 30
    """Bytes that its HOME, and each folder that `read_only_root` leaves to write, may take."""
    read_only_workspace: bool = False
    read_only_root: bool = False
    runtime: str | None = None
    """The engine's name of it (`runsc`); None for the engine's default."""
    capabilities: tuple[str, ...] = ()
    """Those that are given back, as `NET_RAW`; all others are dropped."""
    new_privileges: bool = False
    root: bool = False
    """Runs as root, not as the workspace's owner."""
    seccomp: bool = True
    apparmor: bool = True
    init: bool = True
    loosened: tuple[str, ...] = ()
    """What of all that is less hard than by default, as people wrote it."""


class Command(Discreet, frozen=True):
    """One command, ready to run: plain data, every expression already evaluated.

    The script is the text of a shell program. It sees `PCC_IN` (a folder with `files`, read-only in a container) when
    there are files, and `PCC_OUT` (an empty folder of its own that it may write) when `wants_out` is set.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"secrets", "way_out"})

    id: str
    """Unique within the run, and a legal file and container name part: `iterate-2.build-1`."""
    step: str
    """The step's id alone, for names and labels that people read."""
    serial: int
    """The how-manieth command of its step in this run, from 1."""
    script: str
    shell: str = "sh"
    """The shell with its options: `bash -e`."""
    cwd: str = "."
    """Relative to the workspace."""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Exported like `env`, but never on a disk, in an argument list or in `docker inspect`."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    wants_out: bool = False
    is_proxied: bool = False
    """It finds the proxy of its secrets at `PCC_PROXY_URL`."""
    way_out: str = ""
    """In a container: the token with which the proxy lets it out, as `HTTPS_PROXY`."""
    limit: float = 6 * 3600.0
    """Seconds after which the target's side may end the command by itself, if nobody comes back for it."""
    container: ContainerSettings | None = None
    as_login: bool = False
    """On a VM whose code runs as an account of its own: this one runs as the login (`account: login`)."""


class Isolation(Struct, frozen=True):
    """What a command really had. The record keeps it; nothing here is what was merely asked for."""

    place: Place
    host: str
    """`localhost`, or the VM's address."""
    user: str
    """`uid:gid`, or a login name; as the target itself names it."""
    container: str | None = None
    image: str | None = None
    image_digest: str | None = None
    image_provisioned: str | None = None
    """The digest of the image that `provision` left under that name, if it is another one."""
    network: str | None = None
    workspace: str = ""
    """The workspace's folder as the command sees it."""
    read_only_workspace: bool = False
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    runtime: str | None = None
    read_only_root: bool = False
    init: bool = False
    capabilities: tuple[str, ...] | None = None
    """Those that its processes may have; `DEFAULT` for those that the engine gives. None outside of a container."""
    security: tuple[str, ...] = ()
    """The engine's security options for it, the profile of AppArmor, and what confines all of the engine's own."""
    mounts: tuple[str, ...] = ()
    """`SOURCE:FOLDER:ro` or `rw`; `tmpfs:FOLDER:OPTIONS`."""
    shared: tuple[str, ...] = ()
    """The host's namespaces that it is in: `network`, `pid`, `ipc`, ..."""
    engine_at_hand: bool = False
    """It runs outside of a container and may use the host's engine, which makes it as good as root there."""
    escapes_unseen: bool = False
    """Where it runs, nobody can find a process that has left its session: the end of the command does not end that."""
    hidden: tuple[str, ...] = ()
    """Files and folders of the workspace that it did not see, because agents take them for instructions."""
    login: str = ""
    """The name of `user`, outside of a container; empty in older records."""


class Chunk(Struct, frozen=True):
    """A piece of output, as it was written; cut anywhere, also within a character."""

    stream: Stream
    data: bytes
    skipped: int = 0
    """Bytes of the stream that are left out before it."""
    skipped_more: bool = False
    """More is left out before it than `skipped` says, and nobody knows how much."""


class Exit(Struct, frozen=True):
    """How a command ended, in the shell's convention on every target: 128+N when signal N ended it.

    A command that itself exits with such a code cannot be told from one that was killed; `signal` names the reading.
    """

    code: int
    signal: str | None = None
    """`KILL`, `TERM`, ...: without `SIG`."""
    out_of_memory: bool = False
    timed_out: bool = False
    """The target's side ended it at `Command.limit`."""
    left_processes: bool = False
    """It left processes in the background, which were ended when it had ended."""
    output_lost: bool = False
    """The end of its output could not be kept until it was read, as where the target's disk is full."""
    was_over: bool = False
    """It had ended when it was to be stopped: its target was away, and nobody knew."""


class Running(Protocol):
    """A command that has begun."""

    @property
    def token(self) -> Token: ...

    @property
    def isolation(self) -> Isolation: ...

    def read(self, timeout: float) -> Chunk | Exit | None:
        """The next piece of output; `Exit` once all output was given (again at every later call).

        Returns None when nothing came within `timeout` seconds. Raises `Lost` if it can no longer be known how it ends.
        """
        ...

    def may_skip(self, beginning: int, ending: int) -> None:
        """Let the target leave out output from now on, and free its disk of it: the reader keeps only both ends.

        It may skip all but the last `ending` bytes that a stream has so far (`Chunk.skipped`). Of a stream's first
        `beginning` bytes it drops nothing, as a resumed run reads them again. From the reader's thread.
        """
        ...

    def stop(self, grace: float) -> None:
        """Tell the whole process tree to end (TERM), and kill what is left after `grace` seconds.

        Returns at once; the end is seen by `read`. May be called again with a shorter grace. From any thread.
        """
        ...

    def fetch(self, name: str, limit: int) -> bytes:
        """The plain file NAME that the command left in `PCC_OUT`.

        Raises `ResultError` if it is missing, is not a plain file (links are not followed), or has over `limit` bytes.
        """
        ...

    def let_go(self) -> None:
        """Follow it no more, and leave it as it is: another process of the run attaches to it. Never raises."""
        ...

    def discard(self) -> None:
        """Remove what the target keeps of the command: its container, its files. Never raises; says nothing."""
        ...


class Target(Protocol):
    """A place where commands run."""

    def open(self) -> None:
        """Make the target ready (connect). Idempotent; also after a failure. Raises `Unavailable`."""
        ...

    def probe(self, container: ContainerSettings | None) -> None:
        """Raise `Unavailable` if a command with such a container could not begin now; begins nothing."""
        ...

    def take_over(self) -> None:
        """Another process of this run used the target: `close` is to remove what that one left, too."""
        ...

    def start(self, command: Command) -> Running:
        """Begin a command. Raises `Unavailable` only if it certainly never began, `Refused` if it never can."""
        ...

    def find(self, command: Command) -> Running | None:
        """The command, if another process of this run began it and could not say so any more; else it never will.

        Raises `Unavailable`.
        """
        ...

    def attach(self, token: Token) -> Running:
        """A `Running` for a command begun earlier, by another process too; its output comes from the first byte again.

        Raises `Unavailable` if the target can't be had now, `Lost` if it knows nothing of the command.
        """
        ...

    def leave(self) -> None:
        """Close what this process has open of it, and leave all of the run there as it is. Never raises."""
        ...

    def close(self) -> Sequence[str]:
        """End and remove everything that this run made on the target. Idempotent; never raises.

        Gives what could not be removed, each with its reason and what removes it.
        """
        ...
