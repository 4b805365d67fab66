"""The project file: the places of steps, and the way to the VM."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from msgspec.structs import replace

from pccpipe.errors import UsageError
from pccpipe.limits import RUN_LOGS
from pccpipe.outcome import IsolationMode
from pccpipe.spec.load import load_source
from pccpipe.spec.paths import beside
from pccpipe.spec.policy_check import PolicyCheck
from pccpipe.spec.problem import Problem
from pccpipe.spec.project_model import DayBudget, Keep, Project, Vm
from pccpipe.spec.source import Source
from pccpipe.spec.units import seconds, size, tokens
from pccpipe.values import Json

DEFAULT_FILE = "pccpipe.yaml"
USER_VARIABLE = "CONTROL_CENTER_GCP_SSH_USER"
KEY_VARIABLE = "CONTROL_CENTER_GCP_SSH_KEY_PATH"


def load_project(
    path: str | Path = DEFAULT_FILE, environ: Mapping[str, str] = os.environ, check: PolicyCheck | None = None
) -> Project:
    """Load a project file; by default pccpipe.yaml in the current folder.

    Args:
        check: judges what the file asks for, before a file that it names is opened.

    Raises SpecError with every problem, UsageError if the file can't be read.
    """
    path = Path(path)
    source = load_source(path, "project", lambda source: _problems(source, path.parent, environ), check)
    data = cast("dict[str, Json]", source.data)
    vm = data.get("vm")
    return Project(
        id=str(data["id"]),
        isolation_mode=IsolationMode(str(data.get("isolation_mode", "local"))),
        vm=_vm(vm, path.parent, environ) if isinstance(vm, dict) else None,
        isolation_required=data.get("isolation") == "required",
        lost_after=seconds(cast("str | float", data.get("lost_after", "10m"))),
        log_quota=size(cast("str | int", data.get("log_quota", RUN_LOGS.most))),
        keep=_keep(cast("dict[str, Json]", data.get("keep", {}))),
        budget_per_day=_day_budget(cast("dict[str, Json]", data.get("budget_per_day", {}))),
        prices=_path(path.parent, str(data["prices"])) if "prices" in data else None,
        path=path,
    )


def local_project(id: str = "project") -> Project:  # noqa: A002  as the project file calls it
    """Return a project without a file; all its steps run on this machine."""
    return Project(id, IsolationMode.LOCAL, local=True)


def run_locally(project: Project) -> Project:
    """Return the project with all its steps on this machine, for --local. Raises UsageError if the file forbids it."""
    if project.isolation_required:
        raise UsageError(
            f"--local is not allowed: {project.path} has `isolation: required`",
            "leave out --local",
        )
    return replace(project, isolation_mode=IsolationMode.LOCAL, vm=None, local=True)


def identity(project: Project) -> str:
    """Return a digest of a project's identity: a run resumes only with it. Keys and the way to the VM may change."""
    vm = project.vm if project.isolation_mode is IsolationMode.VM else None
    where = [vm.external_ip, vm.port, vm.user, vm.root, vm.run_as] if vm else []
    text = json.dumps([project.id, project.isolation_mode.value, *where])
    return hashlib.sha256(text.encode()).hexdigest()


def _keep(data: Mapping[str, Json]) -> Keep:
    only_copies = data.get("only_copies")
    return Keep(
        cast("int | None", data.get("days")),
        cast("int | None", data.get("runs")),
        None if only_copies is None else seconds(cast("str | float", only_copies)),
    )


def _day_budget(data: Mapping[str, Json]) -> DayBudget:
    most = data.get("tokens")
    usd = data.get("usd")
    return DayBudget(
        None if most is None else tokens(cast("str | int", most)), None if usd is None else float(cast("float", usd))
    )


def _vm(data: Mapping[str, Json], folder: Path, environ: Mapping[str, str]) -> Vm:
    key = data.get("key_path") or environ.get(KEY_VARIABLE)
    hosts = data.get("known_hosts")
    return Vm(
        external_ip=str(data["external_ip"]),
        user=str(data.get("user") or environ[USER_VARIABLE]),
        port=int(str(data.get("port", 22))),
        key_path=_path(folder, str(key)) if key else None,
        known_hosts=_path(folder, str(hosts)) if hosts else None,
        root=str(data.get("root", "/home/project")).rstrip("/") or "/",
        proxy_jump=str(data["proxy_jump"]) if "proxy_jump" in data else None,
        jump_key_path=_path(folder, str(data["jump_key_path"])) if "jump_key_path" in data else None,
        run_as=str(data["run_as"]) if "run_as" in data else None,
        shared_home=tuple(str(folder) for folder in cast("list[str]", data.get("shared_home", []))),
        engine_socket=str(data["engine_socket"]) if "engine_socket" in data else None,
    )


def _problems(source: Source, folder: Path, environ: Mapping[str, str]) -> list[Problem]:
    problems = _vm_problems(source, folder, environ)
    name = source.data.get("prices") if isinstance(source.data, dict) else None
    if isinstance(name, str) and (wrong := _wrong_path(folder, name, is_read=True)):
        position = source.of_value(("prices",))
        problems.append(Problem(position, f"`prices` {wrong}", "", source.line(position.line)))
    return problems


def _vm_problems(source: Source, folder: Path, environ: Mapping[str, str]) -> list[Problem]:
    data = source.data if isinstance(source.data, dict) else {}
    vm = data.get("vm")
    if not isinstance(vm, dict):
        return []
    problems: list[Problem] = []

    def say(key: str, message: str, hint: str = "") -> None:
        position = source.of_value(("vm", key)) if key in vm else source.of_key(("vm",))
        problems.append(Problem(position, message, hint, source.line(position.line)))

    user = vm.get("user") or environ.get(USER_VARIABLE)
    if "run_as" in vm and vm["run_as"] in (user, "root"):
        who = "root" if vm["run_as"] == "root" else "the login user"
        say("run_as", f"`run_as` names {who}: steps need an account of their own", "such as `run_as: pccrun`")
    if "shared_home" in vm and "run_as" not in vm:
        hint = "set `run_as:` too, or leave out `shared_home`"
        say("shared_home", "`shared_home` has no effect without `run_as`", hint)
    if "user" not in vm and not environ.get(USER_VARIABLE):
        say("user", "`vm:` needs a `user`", f"write it here, or set {USER_VARIABLE}")
    elif "user" not in vm and str(user).startswith("-"):
        say("user", f"{USER_VARIABLE} in the environment begins with `-`: ssh would read it as an option")
    key = vm.get("key_path") or environ.get(KEY_VARIABLE)
    jump_key = vm.get("jump_key_path")
    if jump_key is not None and "proxy_jump" not in vm:
        say("jump_key_path", "`jump_key_path` has no effect without `proxy_jump`")
        jump_key = None
    whose = "`key_path`" if "key_path" in vm else f"{KEY_VARIABLE} in the environment"
    paths = [("key_path", key, whose), ("jump_key_path", jump_key, "`jump_key_path`")]
    for name, value, says in (*paths, ("known_hosts", vm.get("known_hosts"), "`known_hosts`")):
        if isinstance(value, str) and (wrong := _wrong_path(folder, value, is_read=name != "known_hosts")):
            say(name, f"{says} {wrong}")
    return problems


def _wrong_path(folder: Path, name: str, *, is_read: bool) -> str:
    """Return the problem with a path, or with the file to read there; empty if there is none."""
    try:
        path = _path(folder, name)
        if is_read:
            path.open("rb").close()
    except ValueError as error:
        return str(error)
    except FileNotFoundError:
        return f"names {path}, which does not exist"
    except OSError as error:
        return f"names {path}, which cannot be read: {error.strerror}"
    return ""


def _path(folder: Path, name: str) -> Path:
    return beside(folder, name).absolute()
