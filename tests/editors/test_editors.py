"""The errors that editors show with the published schemas: by their language server, and by check-jsonschema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.docs.page import blocks
from tests.editors.language_server import LanguageServer
from tests.spec.test_corpus import CASES

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = {kind: ROOT / f"schemas/{kind}.schema.json" for kind in ("pipeline", "project", "agent", "test")}
BROKEN = [path for path in CASES if path.suffix == ".yaml"]
GOOD = sorted(
    path for folder in ("pipelines", "examples", "pccpipe/agents") for path in (ROOT / folder).rglob("*.yaml")
)
STEPS = "version: 1\nname: x\nsteps:\n"


@pytest.fixture(scope="module")
def editor() -> Iterator[LanguageServer]:
    server = LanguageServer(SCHEMAS)
    yield server
    server.close()


def kind_of(path: Path) -> str:
    if path.parent.name == "agents":
        return "agent"
    if path.name.endswith(".test.yaml"):
        return "test"
    return "project" if path.name.startswith(("project-", "pccpipe")) else "pipeline"


def structural() -> Mapping[Path, set[int]]:
    """Return the lines of each broken file that break the schema."""
    heads = {path: path.with_suffix(".expected").read_text().partition("\n")[0] for path in BROKEN}
    return {
        path: set(map(int, head.removeprefix("# editors show: ").split(", ")))
        for path, head in heads.items()
        if head.startswith("# editors show: ")
    }


def test_an_editor_marks_each_line_that_validate_finds_structurally_wrong(editor: LanguageServer) -> None:
    texts = {f"{kind_of(path)}/{path.name}": path.read_text(errors="replace") for path in BROKEN}
    shown = editor.errors(texts)
    lines = structural()
    wrong: list[str] = []
    for path in BROKEN:
        head = path.with_suffix(".expected").read_text().partition("\n")[0]
        marked = shown[f"{kind_of(path)}/{path.name}"]
        if not lines.get(path, set()) <= marked.keys():
            wrong.append(f"{path.name}: {head}, and not {marked}")
        if ("nothing" in head) == bool(marked):
            wrong.append(f"{path.name}: {head}, and it shows {marked}")
    assert not wrong
    assert len(lines) >= 80


def test_an_editor_marks_nothing_in_a_good_file(editor: LanguageServer) -> None:
    assert len(GOOD) >= 6
    # Without the line that names the schema: the server has it already.
    texts = {f"{kind_of(path)}/good-{path.name}": path.read_text().replace("# yaml-lang", "# ") for path in GOOD}
    assert {name: marks for name, marks in editor.errors(texts).items() if marks} == {}


def test_check_jsonschema_marks_the_same_files(tmp_path: Path) -> None:
    for kind, schema in SCHEMAS.items():
        for files, expected in ((list(structural()), 1), (GOOD, 0)):
            those = [str(path) for path in files if kind_of(path) == kind]
            if expected and kind in {"agent", "test"}:
                continue  # no broken file of the corpus is one
            check = [str(Path(sys.executable).with_name("check-jsonschema")), "--schemafile", str(schema), *those]
            done = subprocess.run(check, capture_output=True, text=True, check=False)
            assert done.returncode == expected, done.stdout + done.stderr
            unseen = [name for name in those if expected and f"{name}::" not in done.stdout]
            assert not unseen


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("timeout:", "The time limit. Without one: 6 h"),
        ("on: container", "The place of the command: this machine"),
        ("fallback:", "when the place of"),
        ("network:", "The container's network."),
        ("repeat:", "in rounds until a condition holds"),
        ("from:", "An environment variable, a file, or a command's output."),
        ("always:", "even after a failure or a cancel"),
    ],
)
def test_a_key_shows_its_description(editor: LanguageServer, word: str, says: str) -> None:
    text = (ROOT / "pipelines/default-run.yaml").read_text().replace("# yaml-lang", "# ")
    assert says in editor.hover("pipeline/hover.yaml", text, word)


@pytest.mark.parametrize(
    ("text", "offers"),
    [
        (STEPS + "  - id: a\n    on: |\n", {"vm", "container", "local"}),
        (STEPS + "  - id: a\n    |\n", {"run", "on", "timeout", "retry", "upload", "fallback", "if", "result"}),
        (STEPS + "  - |\n", {"id", "run in a container", "upload", "repeat", "parallel"}),
        (STEPS + "  - id: a\n    timeout: |\n", {"90s", "15m"}),
        ("version: 1\nname: x\n|\n", {"inputs", "secrets", "containers", "steps", "always", "defaults"}),
        ("version: 1\nname: x\ncontainers:\n  a:\n    network: |\n", {"none", "bridge", "host"}),
        ("version: 1\nname: x\ncontainers:\n  a:\n    |\n", {"image", "memory", "cpus", "workspace"}),
        ("version: 1\nname: x\nsecrets:\n  KEY:\n    from: |\n", {"env", "file", "command"}),
    ],
)
def test_an_editor_offers_the_keys_and_values_of_a_place(editor: LanguageServer, text: str, offers: set[str]) -> None:
    offered = set(editor.completions(f"pipeline/complete-{abs(hash(text))}.yaml", text))
    assert offers <= offered
    if "on: |" in text:
        assert offered == offers


def test_an_editor_offers_the_keys_of_a_project_file(editor: LanguageServer) -> None:
    keys = {"external_ip", "port", "user", "key_path", "known_hosts", "root", "proxy_jump"}
    assert keys <= set(editor.completions("project/complete.yaml", "id: a\nvm:\n  |\n"))


def test_the_settings_on_the_page_about_editors_work() -> None:
    page = ROOT / "docs/editors.md"
    (settings,) = (json.loads(block.text) for block in blocks(page) if block.kind == "json")
    (lua,) = (block.text for block in blocks(page) if block.kind == "lua")
    for schema, files in settings["yaml.schemas"].items():
        assert schema.removeprefix("./schemas/").removesuffix(".schema.json") in SCHEMAS
        assert f'["{schema}"] = "{files}"' in lua


def test_the_pre_commit_hook_checks_the_right_files(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    for name in ("pccpipe.yaml", "app/pccpipe.yml", "pipelines/a.yaml", "ci/pipelines/b.yml"):
        assert re.search(hook["files"], name)
    for name in ("docker-compose.yaml", "pipelines/schemas/a.yaml", "my-pccpipe.yaml.bak", "pipelines/a.md"):
        assert not re.search(hook["files"], name)
    (tmp_path / "pccpipe.yaml").write_text("id: a\nisolation_mode: lokal\n")
    (tmp_path / "a.yaml").write_text(STEPS + "  - {id: a, run: x}\n")
    command = [sys.executable, "-m", *hook["entry"].split()]
    ran = subprocess.run(
        [*command, "pccpipe.yaml", "a.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "pccpipe.yaml:2:17:" in ran.stderr
    assert "a.yaml: fine" in ran.stdout
