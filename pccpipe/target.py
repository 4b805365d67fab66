"""The seam between the executor and the places where commands run.

Order of calls: `Target.open` once, then any number of `start` (or, after a crash, `attach`), from any thread. Each
returns a `Running`: one thread reads it until its `Exit`, may `fetch` from it, then `discard`s it. `Target.close` comes
last and leaves nothing of the run behind. Any thread may call `Running.stop` at any time.

`start` raises `Unavailable` only if the command certainly never began: the executor falls back on that alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, TypeAlias

from msgspec import Struct, field

from pccpipe.outcome import Place, Stream
from pccpipe.values import Discreet, Json

PACKED = ".transcripts.tgz"
"""The archive that `Command.keeps` asks for, in `PCC_OUT`."""

EXPORTS = ".pcc_env"
"""The file in `PCC_OUT` that `PCC_ENV` names."""

NEVER_KEPT = ("auth.json", ".credentials*", "credentials*", "config.*", "settings*.json", ".env*", "*.key", "*.pem")
"""Names of logins and settings, which `Command.keeps` never gives, whatever its patterns are."""

Token: TypeAlias = "dict[str, Json]"
"""The data with which `attach` finds a command after a crash of pccpipe; plain JSON, kept in the record."""


class ContainerSettings(Struct, frozen=True):
    """The settings that a container is asked for. Memory in bytes, CPUs in cores; None means no limit."""

    image: str
    network: str = "bridge"
    """`none`, `bridge` or `host`."""
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    home_size: int = 1 << 30
    """Bytes for its HOME, and for each folder that `read_only_root` leaves writable."""
    read_only_workspace: bool = False
    read_only_root: bool = False
    runtime: str | None = None
    """The engine's name for it (`runsc`); None for the engine's default."""
    capabilities: tuple[str, ...] = ()
    """The capabilities that it keeps, such as `NET_RAW`; the engine drops all others."""
    new_privileges: bool = False
    root: bool = False
    """Runs as root, not as the workspace's owner."""
    seccomp: bool = True
    apparmor: bool = True
    init: bool = True
    loosened: tuple[str, ...] = ()
    """The settings that are looser than the default, as people wrote them."""


class HomeFiles(Struct, frozen=True):
    """The files below HOME that a container packs into `PCC_OUT` after its command: an agent's transcripts.

    The container packs more than it should if its code wants that, so the reader checks each name and size.
    """

    folder: str
    """Relative to HOME."""
    patterns: tuple[str, ...]
    """Relative to the folder; `*` matches within a name, `**/` any folders."""
    most: int
    """Bytes of all files together."""


class Command(Discreet, frozen=True):
    """One command, ready to run: plain data, every expression already evaluated.

    The script is the text of a shell program. It sees `PCC_IN` (a folder with `files`, read-only in a container) when
    there are files, and `PCC_OUT` (an empty folder of its own that it may write) when `wants_out` is set.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"secrets", "way_out", "memory"})

    id: str
    """Unique within the run, and a legal file and container name part: `iterate-2.build-1`."""
    step: str
    """The step's id alone, for names and labels that people read."""
    serial: int
    """The number of the command among those of its step in this run, from 1."""
    script: str
    shell: str = "sh"
    """The shell with its options: `bash -e`."""
    workspace: str = ""
    """The folder of its step's own copy of the workspace, as its machine names it; "" for the run's."""
    cwd: str = "."
    """Relative to the workspace."""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Exported like `env`, but never on a disk, in an argument list or in `docker inspect`."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    wants_out: bool = False
    has_exports: bool = False
    """It finds the path of a file for variables in `PCC_ENV`; with `wants_out`."""
    is_proxied: bool = False
    """It finds the proxy of its secrets at `PCC_PROXY_URL`."""
    memory: bytes = b""
    """In a container: a gzipped tar archive that is unpacked into HOME before the command, and is never on a disk."""
    keeps: HomeFiles | None = None
    """In a container: the files that it packs into `PACKED` of `PCC_OUT` after the command."""
    way_out: str = ""
    """In a container: the token with which the proxy lets it out, in `HTTPS_PROXY`."""
    limit: float = 6 * 3600.0
    """Seconds after which the target may end the command by itself, if pccpipe does not reconnect."""
    container: ContainerSettings | None = None
    hides: tuple[str, ...] = ()
    """Names of files and folders of the workspace that a container does not see, also if it may write there."""
    has_git: bool = False
    """The workspace has a git repository of pccpipe's, which a container only reads."""
    network: str | None = None
    """In a container: the network of the services beside it, which it joins. It has a way out only with `bridge`."""
    as_login: bool = False
    """On a VM with `run_as`: this command runs as the login (`account: login`)."""


class Isolation(Struct, frozen=True):
    """The isolation that a command really had, not the one that was asked for. The record keeps it."""

    place: Place
    host: str
    """`localhost`, or the VM's address."""
    user: str
    """`uid:gid`, or a login name; as the target itself names it."""
    container: str | None = None
    image: str | None = None
    image_digest: str | None = None
    image_provisioned: str | None = None
    """The digest of the image that `provision` left under that name, if it differs."""
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
    """The capabilities that its processes may have; `DEFAULT` for the engine's own. None outside of a container."""
    security: tuple[str, ...] = ()
    """The engine's security options for it, the profile of AppArmor, and the options of the engine itself."""
    mounts: tuple[str, ...] = ()
    """`SOURCE:FOLDER:ro` or `rw`; `tmpfs:FOLDER:OPTIONS`."""
    shared: tuple[str, ...] = ()
    """The host's namespaces that it shares: `network`, `pid`, `ipc`, ..."""
    engine_at_hand: bool = False
    """True outside of a container if it may use the host's engine, which makes it as good as root there."""
    escapes_unseen: bool = False
    """True where a process that left its session cannot be found: it outlives the command."""
    hidden: tuple[str, ...] = ()
    """Files and folders of the workspace that were hidden from it: agents take them for instructions."""
    login: str = ""
    """The name of `user`, outside of a container; empty in older records."""


class Chunk(Struct, frozen=True):
    """A piece of output, byte for byte; cut anywhere, also within a character."""

    stream: Stream
    data: bytes
    skipped: int = 0
    """The number of bytes of the stream that are left out before it."""
    skipped_more: bool = False
    """True if an unknown number of bytes more is left out before it."""


class Exit(Struct, frozen=True):
    """The end of a command, in the shell's convention on every target: 128+N when signal N ended it.

    A command that itself exits with such a code looks like one that was killed; `signal` names the reading.
    """

    code: int
    signal: str | None = None
    """`KILL`, `TERM`, ...: without `SIG`."""
    out_of_memory: bool = False
    timed_out: bool = False
    """The target ended it at `Command.limit`."""
    left_processes: bool = False
    """It left processes in the background, which were ended after it."""
    output_lost: bool = False
    """The end of its output was lost before pccpipe read it: for example, the target's disk was full."""
    was_over: bool = False
    """It had ended before the request to stop; its target did not answer, so pccpipe did not know."""


class Running(Protocol):
    """A command that has begun."""

    @property
    def token(self) -> Token: ...

    @property
    def isolation(self) -> Isolation: ...

    def read(self, timeout: float) -> Chunk | Exit | None:
        """Return the next piece of output; `Exit` after all output, and at every later call.

        None if nothing came within `timeout` seconds. Raises `Lost` if nobody can know any more how it ends.
        """
        ...

    def may_skip(self, beginning: int, ending: int) -> None:
        """Let the target drop output from now on, and free its disk: the reader keeps only both ends.

        It may skip all but the last `ending` bytes that a stream has so far (`Chunk.skipped`). It keeps a stream's
        first `beginning` bytes, as a resumed run reads them again. From the reader's thread.
        """
        ...

    def cpu_seconds(self) -> float | None:
        """Return the CPU time that it used so far; None if that cannot be read. From the reader's thread.

        May raise PccpipeError, OSError.
        """
        ...

    def stop(self, grace: float) -> None:
        """Send TERM to the whole process tree, and KILL after `grace` seconds.

        Returns at once; `read` reports the end. May be called again with a shorter grace. From any thread.
        """
        ...

    def fetch(self, name: str, limit: int) -> bytes:
        """Return the plain file NAME that the command left in `PCC_OUT`.

        Raises `ResultError` if it is missing, is not a plain file (links are not followed), or has over `limit` bytes.
        """
        ...

    def let_go(self) -> None:
        """Stop following it, and leave it as it is: another process of the run attaches to it. Never raises."""
        ...

    def discard(self) -> None:
        """Remove the command's container and files from the target. Never raises; reports nothing."""
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
        """Make `close` also remove the leavings of another process of this run."""
        ...

    def start(self, command: Command) -> Running:
        """Begin a command. Raises `Unavailable` only if it certainly never began, `Refused` if it never can."""
        ...

    def find(self, command: Command) -> Running | None:
        """Return the command if another process of this run began it and could not record that; else it never begins.

        Raises `Unavailable`.
        """
        ...

    def attach(self, token: Token) -> Running:
        """Return a `Running` for a command that this or another process began; its output starts at the first byte.

        Raises `Unavailable` if the target is unavailable now, `Lost` if it does not know the command.
        """
        ...

    def leave(self) -> None:
        """Close this process's connections to it, and leave all of the run there as it is. Never raises."""
        ...

    def close(self) -> Sequence[str]:
        """End and remove everything that this run made on the target. Idempotent; never raises.

        Return what could not be removed, each with its reason and its fix.
        """
        ...
