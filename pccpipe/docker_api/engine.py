"""A machine's Docker Engine, with the calls that pccpipe needs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pccpipe.docker_api.isolation import engine_options, part
from pccpipe.docker_api.problems import SDK_ERRORS, ApiCall, from_sdk, unavailable
from pccpipe.docker_api.stream import EngineAnswer, EngineAnswerError
from pccpipe.errors import ActionError, Broken, LimitExceeded, Nonsense, Unavailable, UsageError
from pccpipe.json_reader import NotJson
from pccpipe.machine.answers import name, number, text
from pccpipe.machine.base import ByteStream, Machine
from pccpipe.machine.retry import DISCONNECTED, UNREACHABLE
from pccpipe.outcome import Reason
from pccpipe.values import Json, cut

if TYPE_CHECKING:
    import docker

PING_TIMEOUT = 15.0
"""Seconds for an engine's answer to a ping. A paused engine takes connections and never answers."""
NEWEST_API = (1, 47)
OLDEST_API = (1, 40)

_START = "start one, or name its socket: DOCKER_HOST=unix://PATH"

T = TypeVar("T")
_ID = re.compile("[0-9a-f]{64}")


class DockerEngine:
    """One engine. Safe from many threads.

    Args:
        machine: the machine that it runs on.
        socket: the path of its socket there; None: the one that the machine names.
    """

    def __init__(self, machine: Machine, socket: str | None = None) -> None:
        self.machine = machine
        self._socket = socket
        self._lock = threading.Lock()
        self._client: docker.APIClient | None = None
        self._version = ""
        self._is_podman = False
        self._security: tuple[str, ...] | None = None
        self._is_in_vm = False

    @property
    def socket(self) -> str:
        """Its path on the machine. Raises `Unavailable` while that is away, UsageError for a socket elsewhere."""
        if self._socket:
            return self._socket
        facts = self.machine.facts
        if facts.engine_error:
            raise UsageError(facts.engine_error.message, facts.engine_error.hint)
        return facts.engine_socket

    def open(self) -> None:
        """Connect, and agree on a version of the API. Idempotent. Raises `Unavailable`."""
        with self._lock:
            if self._client is None:
                self._version, self._is_podman = self._negotiated()
                from pccpipe.docker_api.adapter import make_client

                self._client = make_client(self.dial, self._version)

    def close(self) -> None:
        """Close the pooled connections; the next call opens new ones. Never raises.

        urllib3's finalizer refers to the connections, and through them would keep all of a run in memory.
        """
        if not self._lock.acquire(blocking=False):
            return  # an abandoned call still waits for a silent engine
        client, self._client = self._client, None
        self._lock.release()
        if client:
            client.close()

    @property
    def is_podman(self) -> bool:
        """True if it is Podman, which names some settings differently. Raises `Unavailable`."""
        self.open()
        return self._is_podman

    def dial(self) -> ByteStream:
        """Open a connection. Raises `Unavailable` with an engine's reason, or the machine's."""
        try:
            return self.machine.dial(self.socket)
        except DISCONNECTED as error:
            raise Broken(Reason.ENGINE_NOT_ANSWERING, f"{self.socket} on {self.machine.host}: {error}") from error
        except Unavailable as error:
            words = (
                self.machine.facts.engine_words if error.reason is Reason.ENGINE_MISSING and not self._socket else ""
            )
            if words:
                raise Unavailable(error.reason, f"{error.words} ({words})", error.hint or _START) from error
            raise

    def ask(self, call: ApiCall, use: Callable[[docker.APIClient], T], *, image: str = "") -> T:
        """Call the API. Raises `Unavailable` or `Refused`, with the engine's own words."""
        self.open()
        assert self._client is not None
        try:
            return use(self._client)
        except SDK_ERRORS as error:
            raise from_sdk(call, error, image=image) from error
        except LimitExceeded as error:
            raise Nonsense(self.machine.host, "engine's answer", error.message) from error
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            # The SDK trusts an answer's form: it expects JSON everywhere, and a `message` in each error.
            if not isinstance(error, NotJson | RecursionError) and _is_ours(error):
                raise
            raise Nonsense(self.machine.host, "engine's answer", str(error)) from error

    def gives_sign(self) -> bool:
        """Ask it for a sign of life, and wait for that; return whether one came."""
        try:
            self.stream("GET", "/_ping").close()
        except UNREACHABLE:
            return False
        return True

    def stream(self, method: str, path: str, *, upgrade: bool = False) -> EngineAnswer:
        """Make a call whose answer lasts. Raises `Unavailable`, ConnectionError, TimeoutError."""
        self.open()
        stream = self.dial()
        try:
            return EngineAnswer(stream, method, f"/v{self._version}{path}", upgrade=upgrade)
        except ValueError as error:
            stream.close()
            raise Nonsense(self.machine.host, "answer of an engine", str(error)) from error
        except EngineAnswerError as error:
            stream.close()
            raise unavailable(ApiCall.OTHER, error.status, error.words) from error
        except BaseException:
            stream.close()
            raise

    def inspect(self, container: str) -> dict[str, Json] | None:
        """Return the engine's account of a container; None if it knows no such name or id. Raises `Unavailable`."""
        import docker.errors

        def look(client: docker.APIClient) -> dict[str, Json] | None:
            try:
                found: Json = client.inspect_container(container)
            except docker.errors.NotFound:
                return None
            self.id_of(account := self._account_of("a container", found))
            return account

        return self.ask(ApiCall.OTHER, look)

    def cpu_seconds(self, container: str) -> float | None:
        """Return the CPU time of a container so far; None if the engine does not say. Raises `Unavailable`."""
        made: Json = self.ask(ApiCall.OTHER, lambda client: client.stats(container, stream=False, one_shot=True))
        match made:
            case {"cpu_stats": {"cpu_usage": {"total_usage": int(used)}}} if used > 0:
                return used / 1e9
            case _:
                return None

    def containers(self, *labels: str, running: bool = False, size: bool = False) -> list[dict[str, Json]]:
        """List the containers with these labels (`NAME` or `NAME=VALUE`), ended ones too, each with its `Id`.

        Labels prove nothing: every user of the engine can set them. Raises `Unavailable`.
        """
        filters: dict[str, list[str]] = {"label": list(labels), **({"status": ["running"]} if running else {})}
        made: Json = self.ask(ApiCall.OTHER, lambda client: client.containers(all=True, filters=filters, size=size))
        if not isinstance(made, list):
            raise Nonsense(self.machine.host, "list of containers", made)
        accounts = [self._account_of("a container", each) for each in made]
        for each in accounts:
            self.id_of(each)
        return accounts

    def info(self) -> dict[str, Json]:
        """Return the engine's account of itself. Raises `Unavailable`."""
        return self._account_of("the engine", self.ask(ApiCall.OTHER, lambda client: client.info()))

    def _account_of(self, what: str, said: Json) -> dict[str, Json]:
        """Check that an answer is a JSON object. Raises Nonsense."""
        if not isinstance(said, dict):
            raise Nonsense(self.machine.host, f"account of {what}", said)
        return said

    def listed(
        self, labels: Mapping[str, str], *, running: bool = False, without: str = ""
    ) -> dict[str, Mapping[str, str]]:
        """Return the mounts of each container with these labels: source by folder, by id. Raises `Unavailable`.

        Args:
            without: leave out the containers with this label.
        """
        made = self.containers(*(f"{key}={value}" for key, value in labels.items()), running=running)
        return {self.id_of(each): _mounted(each) for each in made if without not in part(each, "Labels")}

    def id_of(self, made: Json) -> str:
        """Read the id of a container, or of a command in one, in an answer of the engine. Raises Nonsense."""
        return name(self.machine.host, "id of a container", self._account_of("a container", made).get("Id"), _ID)

    def has_file(self, container: str, path: str) -> bool:
        """Say whether a container has something at an absolute path, also if it was never started."""

        def look(client: docker.APIClient) -> bool:
            url = f"{client.base_url}/v{self._version}/containers/{container}/archive"
            # HEAD, as a GET would return the file. The call that starts the container reports all other errors.
            return client.head(url, params={"path": path}).status_code != 404

        return self.ask(ApiCall.OTHER, look)

    def security_options(self) -> tuple[str, ...] | None:
        """Return the options that confine all its containers, asked once; None while it stays away."""
        if self._security is None:
            try:
                info = self.info()
                self._is_in_vm = self._is_elsewhere(info)
                self._security = engine_options(info)
            except UNREACHABLE:
                return None
        return self._security

    @property
    def is_in_vm(self) -> bool:
        """True if it runs in a VM of its own on this machine, as on a Mac; False while it stays away."""
        return self.security_options() is not None and self._is_in_vm

    def _is_elsewhere(self, info: Mapping[str, Json]) -> bool:
        """Say whether this machine's engine has another kernel than the machine."""
        kernel = self.machine.facts.kernel
        if not kernel:
            return False
        # In WSL 2 its VM is another system on the same kernel.
        return info.get("KernelVersion") != kernel or info.get("OperatingSystem") == "Docker Desktop"

    def remove(self, container: str) -> None:
        """Remove a container, also a running one, or one that is gone or going. Raises `Unavailable`."""
        import docker.errors

        def remove(client: docker.APIClient) -> None:
            try:
                client.remove_container(container, v=True, force=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise

        self.ask(ApiCall.OTHER, remove)

    def has_image(self, image: str) -> bool:
        """Say whether the engine has an image. Raises `Unavailable`."""
        return self._inspect_image(image) is not None

    def image_labels(self, image: str) -> dict[str, str] | None:
        """Return an image's labels; None if the engine has no such image. Raises `Unavailable`."""
        found = self._inspect_image(image)
        if found is None:
            return None
        config = found.get("Config")
        labels = config.get("Labels") if isinstance(config, dict) else None
        return {name: str(value) for name, value in labels.items()} if isinstance(labels, dict) else {}

    def image_words(self, image: str) -> tuple[list[str], list[str]]:
        """Return an image's own entrypoint and command; both empty without the image. Raises `Unavailable`."""
        config = (self._inspect_image(image) or {}).get("Config")
        words = [config.get(key) if isinstance(config, dict) else None for key in ("Entrypoint", "Cmd")]
        entrypoint, command = ([str(word) for word in each] if isinstance(each, list) else [] for each in words)
        return entrypoint, command

    def image_id(self, image: str) -> str | None:
        """Return the id behind an image's name; None if the engine has no such image. Raises `Unavailable`."""
        found = self._inspect_image(image)
        return None if found is None else text(self.machine.host, "id of an image", found.get("Id"), 100)

    def _inspect_image(self, image: str) -> dict[str, Json] | None:
        import docker.errors

        def look(client: docker.APIClient) -> dict[str, Json] | None:
            try:
                found: Json = client.inspect_image(image)  # type: ignore[no-untyped-call]
            except docker.errors.ImageNotFound:
                return None
            return self._account_of("an image", found)

        return self.ask(ApiCall.OTHER, look)

    def build(
        self,
        image: str,
        context: Path,
        dockerfile: Path,
        args: Mapping[str, str],
        on_output: Callable[[bytes], object],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Build an image from a folder of this machine, and pass its output on. Raises `Unavailable`, ActionError."""

        def build(client: docker.APIClient) -> str:
            answers = client.build(
                path=str(context),
                dockerfile=str(dockerfile),
                tag=image,
                buildargs=dict(args),
                labels=dict(labels or {}),
                rm=True,
                decode=True,
            )
            failure = ""
            for answer in answers:
                on_output(str(answer.get("stream", "")).encode(errors="replace"))
                failure = str(answer.get("error", failure))
            return failure

        try:
            failure = self.ask(ApiCall.OTHER, build)
        except Unavailable as error:
            # The engine answered, so the Dockerfile is wrong.
            if error.reason is Reason.ENGINE_ERROR:
                raise ActionError(f"{image} could not be built: {error.words}") from error
            raise
        if failure:
            raise ActionError(f"{image} could not be built: {failure}")

    def _negotiated(self) -> tuple[str, bool]:
        """Return the newest version of the API that both know, and whether the engine is Podman."""
        where = f"{self.socket} on {self.machine.host}"
        stream = self.dial()
        try:
            stream.settimeout(PING_TIMEOUT)
            stream.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = b""
            while b"\r\n\r\n" not in answer and (more := stream.recv(4096)):
                answer += more
        except TimeoutError as error:
            words = f"{where}: no answer in {PING_TIMEOUT:g} s"
            raise Unavailable(Reason.ENGINE_NOT_ANSWERING, words) from error
        except OSError as error:
            # Perhaps the SSH connection ended; a retry then uses a new one.
            raise Broken(Reason.ENGINE_STOPPED, f"{where}: {error}") from error
        finally:
            stream.close()
        if not answer.startswith(b"HTTP/"):
            raise Unavailable(Reason.ENGINE_STOPPED, f"{where}: the connection was closed without an answer")
        return _common_version(answer, where), b"\r\nlibpod-api-version:" in answer.lower()


def _is_ours(error: Exception) -> bool:
    """Say whether pccpipe's own code raised an error, and not the SDK's, which reads the engine's answer."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("pccpipe.")


def _mounted(made: Mapping[str, Json]) -> Mapping[str, str]:
    mounts = made.get("Mounts")
    found = [mount for mount in mounts if isinstance(mount, dict)] if isinstance(mounts, list) else []
    return {str(mount.get("Destination")): str(mount.get("Source")) for mount in found}


def _common_version(answer: bytes, where: str) -> str:
    for line in answer.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"api-version":
            major, _, minor = value.strip().decode("ascii", "replace").partition(".")
            newest = (number(where, "API version", major, 999), number(where, "API version", minor, 999))
            if newest < OLDEST_API:
                words = f"{where}: its API {major}.{minor} is too old: pccpipe needs 1.40 (Docker 19.03)"
                raise Unavailable(Reason.ENGINE_ERROR, words)
            return "{}.{}".format(*min(newest, NEWEST_API))
    words = f"{where}: not an answer of a Docker Engine: {cut(answer[:400].decode('utf-8', 'replace'), 80)!r}"
    raise Unavailable(Reason.ENGINE_ERROR, words)
