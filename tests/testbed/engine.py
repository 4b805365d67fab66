"""Run a real Docker Engine on this machine, separate from any that already runs here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

from tests.testbed.place import ENGINES, BedError, call, locked, start_apart, this_process, tried, wait_for
from tests.testbed.recipe import TEMPLATE


class Engine:
    """A dockerd with its own data, socket and process namespace, on the machine's own files and network.

    It has no bridge and no firewall rules, so it disturbs nothing here: its containers use the network "host" or
    "none". `socket` is its path, `url` the same in the form of DOCKER_HOST.
    """

    def __init__(self, data: Path, state: Path) -> None:
        self.data = data
        self.state = state
        self.socket = state / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def with_images(cls) -> Engine:
        """Start an engine with the bed's images for the caller; `close` removes it and its data."""
        state = ENGINES / uuid.uuid4().hex[:8]
        with locked("engines"):
            state.mkdir(parents=True)
            (state / "owner").write_text(this_process())
        clone_images(state / "data")
        engine = cls(state / "data", state)
        engine.start()
        return engine

    def start(self) -> None:
        """Start dockerd and wait until it answers."""
        self.state.mkdir(parents=True, exist_ok=True)
        # In a separate process namespace, so that killing its first process ends containers and shims as well.
        argv = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv += ["dockerd", "--data-root", str(self.data), "--exec-root", str(self.state / "exec")]
        argv += ["--pidfile", str(self.state / "dockerd.pid"), "--host", self.url]
        argv += ["--bridge", "none", "--iptables=false", "--exec-opt", "native.cgroupdriver=cgroupfs"]
        argv += ["--cgroup-parent", f"/{self._cgroup}"]
        self._process = start_apart(argv, self.state / "dockerd.log")
        (self.state / "unshare.pid").write_text(str(self._process.pid))
        try:
            wait_for("dockerd", lambda: answers(self.socket), 20)
        except BedError as error:
            raise BedError(f"{error}: {(self.state / 'dockerd.log').read_text()[-2000:]}") from None

    def stop(self) -> None:
        """Stop dockerd as an orderly shutdown does, so that another one can use its data."""
        if self._process is not None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
            self._process.wait(timeout=60)
            self._process = None
        remove_cgroups(self._cgroup)

    def docker(self, *argv: str | Path, stdin: str | None = None) -> str:
        """Run the docker command on this engine, and return its output."""
        env = {**os.environ, "DOCKER_HOST": self.url, "DOCKER_BUILDKIT": "0"}
        return call("docker", *argv, stdin=stdin, env=env)

    def close(self) -> None:
        """End the engine and everything in it at once, and remove its data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        remove_engine(self.state)

    @property
    def _cgroup(self) -> str:
        return f"pccbed-{self.state.name}"

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clone_images(data: Path, template: Path = TEMPLATE) -> None:
    """Make `data` a Docker data folder with the bed's images: in a second, and with almost no extra space.

    Docker never writes layers below a container's own, it only unlinks them, so hard links to the template's are safe.
    Of the template's databases this copies only those of the images.
    """
    with locked("images", shared=True):
        if not (template / "image").is_dir():
            raise BedError("no images yet: run 'python -m tests.testbed images'")
        copy_images(template, data)


def copy_images(template: Path, data: Path) -> None:
    """Make `data` a Docker data folder with the images of another one that no engine uses."""
    data.mkdir(parents=True, mode=0o710)
    call("cp", "-al", template / "overlay2", data / "overlay2")
    call("cp", "-a", template / "image", data / "image")


def forget_image(data: Path, name: str) -> None:
    """Remove a name from a Docker data folder that no engine uses; the image stays, as a build's cache."""
    path = data / "image" / "overlay2" / "repositories.json"
    names = json.loads(path.read_text())
    names["Repositories"]["built-before"] = {
        f"built-before:{tag.rpartition(':')[2]}": image for tag, image in names["Repositories"].pop(name).items()
    }
    path.write_text(json.dumps(names))


def answers(path: Path, seconds: float = 1.0) -> bool:
    """Return whether the Docker Engine behind this socket answers a ping."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(seconds)
        try:
            client.connect(str(path))
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in client.recv(64)
        except OSError:
            return False


def remove_engine(state: Path) -> None:
    """Remove everything of an engine, also of one whose process was killed."""
    pid_file = state / "unshare.pid"
    if pid_file.exists():
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and str(state).encode() in command.read_bytes():
            os.kill(pid, signal.SIGKILL)
    remove_cgroups(f"pccbed-{state.name}")
    remove_tree(state)


def remove_cgroups(name: str) -> None:
    """Remove the control groups below `name`, in every hierarchy, once their last processes have left them."""
    roots = [path for pattern in (name, f"*/{name}") for path in Path("/sys/fs/cgroup").glob(pattern)]
    for root in roots:
        for _ in range(50):
            if tried("find", root, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"):
                break
            time.sleep(0.02)


def remove_tree(path: Path) -> None:
    """Remove a folder, also if its last processes are still ending."""
    for _ in range(50):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)
    raise BedError(f"cannot remove {path}")
