"""Measure the floor for a container step: the Docker SDK's create, start, wait and remove over a forwarded socket."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from tests.testbed.vm import VM


@contextmanager
def connection(vm: VM) -> Iterator[docker.APIClient]:
    """Connect to the VM's engine through an `ssh -L` of its socket: OpenSSH's own forwarding, without pccpipe."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "docker.sock"
        options = ["-o", f"UserKnownHostsFile={vm.known_hosts}", "-o", "BatchMode=yes", "-F", "none", "-i", str(vm.key)]
        forward = ["-N", "-L", f"{socket}:/var/run/docker.sock", f"{vm.user}@{vm.host}"]
        with subprocess.Popen(["ssh", *options, *forward]) as ssh:
            try:
                until = time.monotonic() + 10
                while not socket.exists() and time.monotonic() < until:
                    time.sleep(0.05)
                client = docker.APIClient(base_url=f"unix://{socket}", timeout=30)
                yield client
                client.close()
            finally:
                ssh.terminate()


def cycle(client: docker.APIClient) -> float:
    """Return the seconds of one container's life."""
    began = time.perf_counter()
    host = client.create_host_config(network_mode="none", init=True)
    made = client.create_container("bb:latest", ["true"], host_config=host)
    client.start(made["Id"])
    client.wait(made["Id"])
    client.remove_container(made["Id"])
    return time.perf_counter() - began
