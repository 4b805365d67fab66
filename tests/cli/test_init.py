"""`pccpipe init` and `pccpipe graph`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pccpipe.errors import UsageError
from pccpipe.outcome import IsolationMode
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.project import load_project
from pccpipe.starter import start_project
from tests.cli.command import Folder

NO_ENGINE = Path("/nowhere/docker.sock")
PACKAGE = json.dumps({"scripts": {"test": "jest"}})
NO_TEST = json.dumps({"scripts": {"test": 'echo "Error: no test specified" && exit 1'}})


@pytest.mark.parametrize(
    ("files", "test"),
    [
        ({"package.json": PACKAGE}, "npm test"),
        ({"package.json": PACKAGE, "pnpm-lock.yaml": ""}, "pnpm test"),
        ({"package.json": NO_TEST, "Makefile": "all:\n\ntest: all\n\tx\n"}, "make test"),
        ({"package.json": "{broken", "go.mod": ""}, "go test ./..."),
        ({"package.json": "[" * 100000, "Cargo.toml": ""}, "cargo test"),
        ({"pyproject.toml": "[tool.pytest.ini_options]\n"}, "python3 -m pytest"),
        ({"pyproject.toml": "[tool.pytest.ini_options]\n", "uv.lock": ""}, "uv run pytest"),
        ({"pyproject.toml": "[project]\n", "Makefile": "test := 1\ncheck:\n"}, "true"),
        ({"pyproject.toml": "= no toml", "test.sh": ""}, "sh test.sh"),
        ({}, "true"),
    ],
)
def test_the_test_command_is_found(files: dict[str, str], test: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    start_project(tmp_path, environ={}, socket=NO_ENGINE)
    assert load_pipeline(tmp_path / "pipeline.yaml").inputs["test"].default == test


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git@example.org:group/some-project.git", "some-project"),
        ("https://example.org/group/other/", "other"),
        ("file:///srv/a b.git", "a"),
        ("https://example.org/..", "My-Folder"),
    ],
)
def test_the_id_comes_from_gits_origin_or_the_folders_name(url: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "My Folder"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git/config").write_text(f'[core]\n\tbare = false\n[remote "origin"]\n\tfetch = x\n\turl = {url}\n')
    start_project(folder, environ={}, socket=NO_ENGINE)
    assert load_project(folder / "pccpipe.yaml", environ={}).id == name


@pytest.mark.parametrize(
    ("vm", "host", "user", "port"),
    [
        ("192.0.2.7", "192.0.2.7", None, 22),
        ("deploy@vm.example.org:2222", "vm.example.org", "deploy", 2222),
        ("[2001:db8::1]:23", "2001:db8::1", None, 23),
        ("2001:db8::1", "2001:db8::1", None, 22),
    ],
)
def test_a_vm_is_written_as_given(vm: str, host: str, user: str | None, port: int, tmp_path: Path) -> None:
    environ = {"CONTROL_CENTER_GCP_SSH_USER": "env-user", "HOME": str(tmp_path)}
    start_project(tmp_path, vm, environ=environ, socket=NO_ENGINE)
    project = load_project(tmp_path / "pccpipe.yaml", environ=environ)
    assert project.vm
    assert (project.vm.external_ip, project.vm.user, project.vm.port) == (host, user or "env-user", port)


def test_a_key_comes_from_the_environment_or_the_users_folder(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").write_text("a key")
    (tmp_path / "key").write_text("another")
    home = {"HOME": str(tmp_path), "CONTROL_CENTER_GCP_SSH_USER": "u"}
    start_project(tmp_path, "vm", environ=home, socket=NO_ENGINE)
    assert "  key_path: ~/.ssh/id_ed25519\n" in (tmp_path / "pccpipe.yaml").read_text()
    of_environ = {**home, "CONTROL_CENTER_GCP_SSH_KEY_PATH": str(tmp_path / "key")}
    start_project(tmp_path, "vm", force=True, environ=of_environ, socket=NO_ENGINE)
    project = load_project(tmp_path / "pccpipe.yaml", environ=of_environ)
    assert project.vm
    assert project.vm.key_path == tmp_path / "key"


def test_an_invalid_address_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for wrong in ("", "a b", "vm:port", "vm:99999", "@vm"):
        with pytest.raises(UsageError, match="invalid address of a VM"):
            start_project(tmp_path, wrong, environ={}, socket=NO_ENGINE)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_on_this_machine_is_used(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").write_text("")
    started = start_project(tmp_path, environ={}, socket=tmp_path / "docker.sock")
    assert started.isolation_mode is IsolationMode.CONTAINER


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"nothing written: .*pipeline\.yaml exists") as raised:
        start_project(tmp_path, environ={}, socket=NO_ENGINE)
    assert "--force" in raised.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]
    assert (tmp_path / "pipeline.yaml").read_text() == "mine"
    start_project(tmp_path, force=True, environ={}, socket=NO_ENGINE)
    start_project(tmp_path, environ={}, socket=NO_ENGINE)  # nothing would change
    (tmp_path / "pccpipe.yaml").unlink()
    (tmp_path / "pccpipe.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        start_project(tmp_path, environ={}, socket=NO_ENGINE)


def test_what_init_writes_validates_and_its_schemas_exist(folder: Folder) -> None:
    (folder.path / "test.sh").write_text("true")
    done = folder.do("init")
    assert done.code == 0, done.stderr
    assert "tests:   sh test.sh (test.sh)" in done.stdout
    assert folder.do("validate", "pipeline.yaml", "pccpipe.yaml").code == 0
    for name in ("pipeline.yaml", "pccpipe.yaml"):
        first = (folder.path / name).read_text().splitlines()[0]
        assert (folder.path / first.removeprefix("# yaml-language-server: $schema=")).is_file()
    # Also the parts that are comments, for users to activate.
    text = (folder.path / "pipeline.yaml").read_text()
    taken_up = "\n".join(line.removeprefix("# ") if line[2:3] in set(" c") else line for line in text.splitlines())
    assert taken_up.count("\nchange:") == 1
    (folder.path / "taken-up.yaml").write_text(taken_up)
    done = folder.do("validate", "taken-up.yaml")
    assert done.code == 0, done.stderr


def test_graph_writes_the_format_of_the_ending_or_prints_it(folder: Folder) -> None:
    assert folder.do("graph", "default-run").stdout.startswith("flowchart TD\n")
    assert folder.do("graph", "default-run", "--format", "svg").stdout.startswith("<svg ")
    assert folder.do("graph", "default-run", "-o", "a.svg").code == 0
    assert (folder.path / "a.svg").read_text().startswith("<svg ")
    done = folder.do("graph", "default-run", "-o", "no/such/folder.svg")
    assert (done.code, done.stderr) == (2, "pccpipe: cannot write no/such/folder.svg: No such file or directory\n")
