"""The pipelines of docs/coming-from.md and docs/groups.md run; files of other tools are right in their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import pccpipe
from pccpipe.spec.elsewhere import foreign_file
from tests.docs.page import Block, as_pipeline, blocks
from tests.e2e.control import ROOT

PAGE = ROOT / "docs/coming-from.md"
TOOLS = {"# GitHub Actions\n": "github-workflows", "# GitLab CI\n": "gitlab-ci", "# Dagu\n": ""}
"""The first line of a file of each tool, and its schema in check-jsonschema."""


def theirs() -> Iterator[tuple[str, str]]:
    """Yield each file of another tool: its first line, and its text."""
    for block in blocks(PAGE):
        for text in block.text.split("---\n") if block.kind == "yml" else ():
            yield next(head for head in TOOLS if text.startswith(head)), text


OURS = [block for page in (PAGE, ROOT / "docs/groups.md") for block in blocks(page) if block.kind == "yaml"]
WITH_SERVICES = [block for block in OURS if "services:" in block.text]


@pytest.mark.parametrize(
    "block", [block for block in OURS if block not in WITH_SERVICES], ids=lambda block: f"line-{block.line}"
)
def test_our_side_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("npm", "make", "alert.sh", "clean-up.sh"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("NPM_TOKEN", "a-token-of-npm")
    workspace = tmp_path / "workspace"
    (workspace / "app").mkdir(parents=True)
    for name in ("alert.sh", "clean-up.sh"):
        (workspace / name).symlink_to(programs / name)
    file = tmp_path / "pipeline.yaml"
    file.write_text(as_pipeline(block))
    ran = pccpipe.run(
        pccpipe.load(file),
        run_id="r",
        project=pccpipe.local_project(),
        workspace=workspace,
        runs_dir=tmp_path / "runs",
    )
    assert ran.outcome is pccpipe.Outcome.SUCCEEDED, (tmp_path / "runs/r/events.jsonl").read_text()


def test_our_side_with_services_is_planned(tmp_path: Path) -> None:
    # tests/test_conversions.py runs pipelines with services: they need an engine.
    assert WITH_SERVICES
    for block in WITH_SERVICES:
        file = tmp_path / "pipeline.yaml"
        file.write_text(as_pipeline(block))
        planned = pccpipe.plan(pccpipe.load(file), project=pccpipe.local_project())
        assert planned.steps


def test_their_side_is_right_in_their_tools(tmp_path: Path) -> None:
    for number, (head, text) in enumerate(theirs()):
        if TOOLS[head]:
            (tmp_path / f"{number}.{TOOLS[head]}.yml").write_text(f"on: push\n{text}" if "jobs:" in text else text)
    check = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema"]
    for schema in filter(None, TOOLS.values()):
        files = [str(path) for path in tmp_path.glob(f"*.{schema}.yml")]
        assert len(files) >= 5
        done = subprocess.run([*check, f"vendor.{schema}", *files], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_pccpipe_knows_whose_file_each_is() -> None:
    known = [(head, foreign_file(yaml.safe_load(text))) for head, text in theirs()]
    assert len(known) >= 15
    for head, found in known:
        # A Dagu file with plain steps alone could be anybody's.
        assert found or "Dagu" in head, known
        assert not found or head.strip("# \n") in found[1]
