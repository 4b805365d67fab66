"""Check every YAML of the docs, and run every command as the page has it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pccpipe import limits
from tests.docs import agents_table, reference
from tests.docs.page import Block, blocks, check_yaml, run_commands
from tests.e2e.control import DEMO, KEY, ROOT
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
WITH_YAML = [(page, block) for page in PAGES for block in blocks(page) if block.kind == "yaml"]
WITH_COMMANDS = [page for page in PAGES if any(block.kind in {"sh", "python"} for block in blocks(page))]


def _id(value: object) -> str:
    return f"line-{value.line}" if isinstance(value, Block) else Path(str(value)).stem


@pytest.mark.parametrize(("page", "block"), WITH_YAML, ids=_id)
def test_yaml_in_the_docs_is_valid(page: Path, block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").write_text("a key")
    for before in blocks(page):
        if before.kind == "yaml" and before.name and before.line < block.line:
            (tmp_path / before.name).write_text(before.text)
    check_yaml(block, tmp_path)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=_id)
def test_the_commands_of_a_page_run(page: Path, vm: VM, model: ModelServer, tmp_path: Path) -> None:
    _lay_out(tmp_path)
    model.set({"scenarios": _scenarios()})
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    endpoint = f"{model.url}/v1"
    _wrap(bin_ / "pccpipe", endpoint)
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/known_hosts").write_text(vm.known_hosts.read_text())
    shutil.copy(vm.key, home / ".ssh/id_ed25519")
    env = {
        **os.environ,
        "PATH": f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "COLUMNS": "120",
    }
    replaced = {
        "PCCPIPE/": f"{ROOT}/",
        "USER@VM": f"{vm.user}@{vm.host}",
        "203.0.113.10": vm.host,
        "user: deploy": f"user: {vm.user}",
        "sk-...": KEY,
        '"pipelines/default-run.yaml"': f'"{ROOT}/pipelines/default-run.yaml"',
        'inputs = {"work_order"': f'inputs = {{"test": "sh test.sh", "endpoint": "{endpoint}", "work_order"',
        "--input work_order=work-order.md\n": "--input work_order=work-order.md --input test='sh test.sh'\n",
    }
    before = Path(__file__).with_name(f"before-{page.stem}.sh")
    if before.exists():
        (tmp_path / "my-project/pccpipe.yaml").write_text(_project(vm))
        subprocess.run(["sh", "-eu", before], cwd=tmp_path / "my-project", env=env, check=True, timeout=60)
    run_commands(page, tmp_path / "my-project", env, replaced)


def test_the_page_of_limits_is_up_to_date() -> None:
    written = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
    assert written == reference.limits_page(), "python -m tests.docs.reference writes it again"


def test_every_limit_is_listed() -> None:
    known = {name for name, value in vars(limits).items() if isinstance(value, limits.Limit)}
    assert [name for name in known if getattr(limits, name) not in limits.ALL] == []


def test_the_table_of_agents_is_up_to_date() -> None:
    written = agents_table.PAGE.read_text(encoding="utf-8")
    assert written == agents_table.page(written), "python -m tests.docs.agents_table writes it again"


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert written == reference.reference(), "python -m tests.docs.reference writes it again"


def test_the_page_of_commands_is_up_to_date() -> None:
    written = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert written == reference.commands(), "python -m tests.docs.reference writes it again"


def test_the_drawing_is_of_the_default_pipeline() -> None:
    written = (ROOT / "docs/default-run.svg").read_text(encoding="utf-8")
    assert written == reference.picture(), "python -m tests.docs.reference writes it again"


def test_the_readme_links_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in PAGES[1:] if f"docs/{page.name}" not in readme and page.name != "README.md"]


def test_each_link_of_the_pages_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in _anchors(file)):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", ROOT / "docs/architecture.md"], ids=_id)
def test_each_file_and_room_that_a_page_for_developers_names_is_there(page: Path) -> None:
    named = re.findall(r"`([\w./-]+(?:/|\.(?:py|sh|md|json|yaml|toml)))`", page.read_text(encoding="utf-8"))
    assert len(named) > 20
    places = (ROOT, ROOT / "docs", ROOT / "pccpipe", *(ROOT / "pccpipe").rglob("*/"))
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_architecture_names_each_room() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (ROOT / "pccpipe").glob("*/__init__.py")]
    assert [room for room in rooms if f"| `{room}/` |" not in page] == []


def _lay_out(folder: Path) -> None:
    """Write what the pages use: a project and its work order."""
    shutil.copytree(DEMO / "project", folder / "my-project")
    shutil.copy(DEMO / "work-order.md", folder / "my-project/work-order.md")


def _project(vm: VM) -> str:
    return f"id: p\nisolation_mode: vm\nvm: {{external_ip: {vm.host}, user: {vm.user}, key_path: ~/.ssh/id_ed25519}}\n"


def _scenarios() -> object:
    return json.loads((DEMO / "scenario.json").read_text())["scenarios"]


def _wrap(path: Path, endpoint: str) -> None:
    """Write a `pccpipe` whose model is the scripted one."""
    real = Path(sys.executable).with_name("pccpipe")
    path.write_text(
        "#!/bin/sh\n"
        'case "$1 $*" in\n'
        f'  "run "*default-run* | "plan "*default-run*) set -- "$@" --input endpoint={endpoint} ;;\n'
        "esac\n"
        f'exec {real} "$@"\n'
    )
    path.chmod(0o755)
