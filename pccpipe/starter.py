"""Writes a first project file and pipeline for a project, from the files in its folder."""

from __future__ import annotations

import getpass
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from pccpipe.data_files import schema_text
from pccpipe.errors import UsageError
from pccpipe.machine.local_engine import find_local_engine
from pccpipe.outcome import IsolationMode
from pccpipe.record.files import write_atomically
from pccpipe.spec.project import DEFAULT_FILE, KEY_VARIABLE, USER_VARIABLE
from pccpipe.spec.write import yaml_text
from pccpipe.values import Json

PIPELINE_FILE = "pipeline.yaml"
SCHEMAS = ".pccpipe"
"""The folder with the schemas that the files name for editors: the same path for all who work on the project."""
_LONGEST = 1024 * 1024
_VM = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>[^@\s:]+|\[[0-9a-fA-F:]+\]|[0-9a-fA-F:]{3,})(?::(?P<port>\d{1,5}))?")


class Surroundings(Struct, frozen=True):
    """The facts about a project that its folder and this machine give."""

    id: str
    id_from: str
    test: str
    """The command that tests the project; empty if none was found."""
    test_from: str
    engine: bool
    """True if this machine has a Docker Engine that the user may use."""
    key: str
    """An SSH key of the user, if the environment names none; empty if no file has one of the usual names."""
    user_is_set: bool
    key_is_set: bool


class Started(Struct, frozen=True):
    """The facts that were found, and the files that were written."""

    found: Surroundings
    files: tuple[Path, ...]
    isolation_mode: IsolationMode


def start_project(
    folder: Path,
    vm: str | None = None,
    *,
    force: bool = False,
    environ: Mapping[str, str] = os.environ,
    socket: Path | None = None,
) -> Started:
    """Write pccpipe.yaml, pipeline.yaml and the schemas that they name.

    Args:
        vm: the address of the project's VM, `[USER@]HOST[:PORT]`.
        force: overwrite existing files.
        socket: the path of this machine's Docker Engine; None: look for it.

    Raises UsageError if a different file exists, or the address is invalid.
    """
    found = look(folder, environ, socket)
    mode = IsolationMode.VM if vm is not None else IsolationMode.CONTAINER if found.engine else IsolationMode.LOCAL
    texts = {
        DEFAULT_FILE: _project_text(found, mode, vm),
        PIPELINE_FILE: _pipeline_text(found),
        f"{SCHEMAS}/project.schema.json": schema_text("project"),
        f"{SCHEMAS}/pipeline.schema.json": schema_text("pipeline"),
    }
    try:
        _refuse_others(folder, [] if force else [name for name, text in texts.items() if _differs(folder / name, text)])
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())
            (folder / name).chmod(0o644)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return Started(found, tuple(folder / name for name in texts), mode)


def _socket(environ: Mapping[str, str]) -> str:
    """Return the path of this machine's engine; empty if pccpipe could not use it."""
    try:
        return find_local_engine(environ, Path(environ.get("HOME") or Path.home())).socket
    except UsageError:
        return ""


def look(folder: Path, environ: Mapping[str, str], socket: Path | None) -> Surroundings:
    """Find out all that needs no question to the user."""
    project, project_from = _id(folder)
    test, test_from = _test(folder)
    keys = [f"~/.ssh/{name}" for name in ("id_ed25519", "id_ecdsa", "id_rsa")]
    home = Path(environ.get("HOME", "~")).expanduser()
    return Surroundings(
        id=project,
        id_from=project_from,
        test=test,
        test_from=test_from,
        engine=os.access(socket or _socket(environ), os.R_OK | os.W_OK),
        key=next((key for key in keys if (home / key[2:]).is_file()), ""),
        user_is_set=bool(environ.get(USER_VARIABLE)),
        key_is_set=bool(environ.get(KEY_VARIABLE)),
    )


def _refuse_others(folder: Path, names: list[str]) -> None:
    if names:
        there = ", ".join(str(folder / name) for name in names)
        raise UsageError(f"nothing written: {there} exists", "to overwrite: --force")


def _differs(path: Path, text: str) -> bool:
    return path.is_symlink() or (path.exists() and (not path.is_file() or path.read_bytes() != text.encode()))


def _id(folder: Path) -> tuple[str, str]:
    config = _read(folder / ".git/config")
    remote = re.search(r'^\[remote "origin"\][^\[]*?^\s*url\s*=\s*(\S+)', config, re.M | re.S)
    for name, whence in ((remote[1] if remote else "", "git's origin"), (folder.resolve().name, "the folder's name")):
        last = re.split(r"[/:\\]", name.rstrip("/"))[-1].removesuffix(".git")
        good = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:100]
        if good:
            return good, whence
    return "project", "the default"


def _test(folder: Path) -> tuple[str, str]:
    """Return the command that tests the project, and the file that names it."""
    for find in (_of_package_json, _of_python, _of_makefile, _of_others):
        test, whence = find(folder)
        if test:
            return test, whence
    return "", ""


def _of_package_json(folder: Path) -> tuple[str, str]:
    try:
        package = json.loads(_read(folder / "package.json") or "{}")
    except (ValueError, RecursionError):
        return "", ""
    scripts = package.get("scripts") if isinstance(package, dict) else None
    test = scripts.get("test") if isinstance(scripts, dict) else None
    if not isinstance(test, str) or "no test specified" in test:
        return "", ""
    lock_files = {"pnpm-lock.yaml": "pnpm test", "yarn.lock": "yarn test", "bun.lock": "bun run test"}
    return next((run for name, run in lock_files.items() if (folder / name).is_file()), "npm test"), "package.json"


def _of_python(folder: Path) -> tuple[str, str]:
    try:
        tools = tomllib.loads(_read(folder / "pyproject.toml")).get("tool", {})
    except (tomllib.TOMLDecodeError, RecursionError):
        tools = {}
    uses = [name for name in ("pytest.ini", "conftest.py", "tests/conftest.py") if (folder / name).is_file()]
    if not uses and not (isinstance(tools, dict) and "pytest" in tools):
        return "", ""
    lock_files = {"uv.lock": "uv run pytest", "poetry.lock": "poetry run pytest", "pdm.lock": "pdm run pytest"}
    run = next((run for name, run in lock_files.items() if (folder / name).is_file()), "python3 -m pytest")
    return run, uses[0] if uses else "pyproject.toml"


def _of_makefile(folder: Path) -> tuple[str, str]:
    for name in ("Makefile", "makefile", "GNUmakefile"):
        if re.search(r"^test\s*:(?!=)", _read(folder / name), re.M):
            return "make test", name
    return "", ""


def _of_others(folder: Path) -> tuple[str, str]:
    others = {"Cargo.toml": "cargo test", "go.mod": "go test ./...", "test.sh": "sh test.sh"}
    return next(((run, name) for name, run in others.items() if (folder / name).is_file()), ("", ""))


def _read(path: Path) -> str:
    """Return a file's text; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _project_text(found: Surroundings, mode: IsolationMode, vm: str | None) -> str:
    what = {
        IsolationMode.VM: "on the VM below, and in containers on it",
        IsolationMode.CONTAINER: "here, and in containers of this machine's Docker Engine",
        IsolationMode.LOCAL: "here: this machine has no Docker Engine that you may use",
    }
    lines = [
        f"# yaml-language-server: $schema={SCHEMAS}/project.schema.json",
        "# Where the steps of this project's pipelines run. Every key: pccpipe schema project",
        _line("id", found.id),
        f"isolation_mode: {mode.value}   # vm, container or local; steps run {what[mode]}",
        "# isolation: required   # no step may run with less isolation than it asks for",
    ]
    lines += (
        _vm_lines(found, vm)
        if vm is not None
        else [
            "# With a VM (isolation_mode: vm):",
            "# vm:",
            "#   external_ip: 203.0.113.10",
            f"#   user: deploy   # default: ${USER_VARIABLE}",
            f"#   key_path: ~/.ssh/id_ed25519   # default: ${KEY_VARIABLE}, else the keys of your SSH agent",
        ]
    )
    return "\n".join(lines) + "\n"


def _vm_lines(found: Surroundings, vm: str) -> list[str]:
    match = _VM.fullmatch(vm)
    if not match or int(match["port"] or 22) not in range(1, 65536):
        raise UsageError(f"invalid address of a VM: {vm!r}", "write [USER@]HOST[:PORT], such as deploy@203.0.113.10")
    lines = ["vm:", f"  {_line('external_ip', match['host'].strip('[]'))}"]
    if match["port"]:
        lines.append(f"  port: {int(match['port'])}")
    if match["user"]:
        lines.append(f"  {_line('user', match['user'])}")
    elif found.user_is_set:
        lines.append(f"  # user: from ${USER_VARIABLE}")
    else:
        lines.append(f"  {_line('user', getpass.getuser())}   # your name on this machine")
    if found.key_is_set:
        lines.append(f"  # key_path: from ${KEY_VARIABLE}")
    elif found.key:
        lines.append(f"  key_path: {found.key}")
    else:
        lines.append("  # key_path: ~/.ssh/id_ed25519   # without one: the keys of your SSH agent")
    return [*lines, "  # root: /home/project   # the project's folder on the VM, which the user may write"]


def _pipeline_text(found: Surroundings) -> str:
    test = (
        f"{_line('default', found.test)}   # from {found.test_from}"
        if found.test
        else 'default: "true"   # found no command that tests this project: name it here'
    )
    return f"""\
# yaml-language-server: $schema={SCHEMAS}/pipeline.schema.json
# This project's pipeline: the default one (tests, a builder agent, tests, a reviewer agent, until it approves) with its
# own values. `pccpipe plan {PIPELINE_FILE}` shows all of it, `pccpipe graph {PIPELINE_FILE}` draws it.
version: 1
{_line("name", found.id)}
include: default-run

inputs:
  test:
    {test}
  # max_iterations: {{default: 3}}
  # model: {{default: gpt-5.2-codex}}

# containers:
#   builder: {{memory: 8g}}

# Changes to the default pipeline's steps, by their ids.
# change:
#   baseline:
#     before:
#       - {{id: install, on: vm, run: npm ci, timeout: 10m, fallback: {{on: local}}}}
#   build:
#     set: {{timeout: 90m}}
#     unset: [fallback]   # no agent outside of its container
#   collect:
#     remove: true
"""


def _line(key: str, value: Json) -> str:
    return yaml_text({key: value}).rstrip("\n")
