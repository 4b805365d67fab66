"""The server's settings: its projects, each with its VM, its secrets and what its pipelines may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

import pccpipe


class SecretSettings(BaseModel):
    """A secret of one project. `file` is on the server; no pipeline can name it."""

    file: Path
    via: Literal["proxy", "direct"] = "proxy"
    upstream: str = ""


class VmSettings(BaseModel):
    """A project's VM, as in a project file."""

    external_ip: str
    user: str
    port: int = 22
    key_path: Path
    known_hosts: Path
    root: str = "/home/project"
    run_as: str | None = None


class ProjectSettings(BaseModel):
    """A project. A client with its token may run pipelines on its VM."""

    token: str
    vm: VmSettings
    secrets: dict[str, SecretSettings] = {}
    images: list[str] = []
    hosts: list[str] = []

    def project(self, name: str) -> pccpipe.Project:
        """Return the project as pccpipe knows it."""
        vm = pccpipe.Vm(**self.vm.model_dump())
        return pccpipe.Project(id=name, isolation_mode=pccpipe.IsolationMode.VM, vm=vm)

    def policy(self) -> pccpipe.Policy:
        """Return what the project's pipelines may ask for; the secrets come with each call, from nowhere else."""
        rules = {
            name: pccpipe.SecretRule(via=secret.via, upstream=secret.upstream) for name, secret in self.secrets.items()
        }
        return pccpipe.Policy.untrusted(secrets=rules, images=self.images, hosts=self.hosts)

    def values(self) -> dict[str, str]:
        """Read the secrets' values: a changed file counts from the next run on."""
        return {name: secret.file.read_text().strip() for name, secret in self.secrets.items()}


class Settings(BaseModel):
    """The whole server. `data` has a folder for each project, with its workspace and its records."""

    data: Path
    projects: dict[str, ProjectSettings]
