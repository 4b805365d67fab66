"""`pccpipe validate` on many files at once, of every kind, and on paths that are not files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import Folder

PIPELINE = "steps: [{id: a, run: x}]"


def test_all_files_are_checked_and_all_problems_reported_in_order(folder: Folder) -> None:
    folder.pipeline(PIPELINE, "fine.yaml")
    folder.pipeline("steps: [{id: a, rum: x}]", "one.yaml")
    folder.pipeline("steps: [{id: A, run: x}]", "two.yaml")
    done = folder.do("validate", "two.yaml", "fine.yaml", "one.yaml", "two.yaml")
    assert done.code == 2
    assert done.stdout == "fine.yaml: fine, pipeline test, 1 steps at the top\n"
    assert [line for line in done.stderr.splitlines() if ".yaml:" in line] == [
        'two.yaml:3:14: invalid `id`: "A"',
        "one.yaml:3:17: unknown key `rum` in a step",
    ]
    assert done.stderr.endswith("2 problems\n")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", "# yaml-language-server: $schema=../schemas/project.schema.json\nname: x\n", "unknown key `name`"),
        ("a.yaml", "# yaml-language-server: $schema=https://x/pipeline.schema.json\nid: x\n", "unknown key `id`"),
        ("a.yaml", "$schema: https://x/project.schema.json\nid: a b\n", "letters, digits, `.`"),
        ("a.yaml", "idd: x\nvm: {external_ip: h, user: u}\n", "did you mean `id`?"),
        ("a.yaml", "id: x\nisolation_mode: lokal\n", "did you mean `local`?"),
        ("a.yaml", "id: x\n", "needs the key `version`"),
        ("pccpipe.yaml", "ids: x\n", "did you mean `id`?"),
        ("a.json", '{"type": "objekt"}', "did you mean `object`?"),
        ("a.yaml", "program: x\nin_containr: x\n", "did you mean `in_container`?"),
        ("a.yaml", "program: x\nsteps: []\n", "it belongs in an agent file"),
        ("a.yaml", "version: 1\npipeline: x\nscript: {}\n", "needs the key `cases`"),
    ],
)
def test_the_kind_of_a_file_is_detected(folder: Folder, name: str, text: str, says: str) -> None:
    (folder.path / name).write_text(text)
    done = folder.do("validate", name)
    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr


def test_the_kind_of_a_file_can_be_given(folder: Folder) -> None:
    (folder.path / "a.yaml").write_text("id: x\n")
    assert folder.do("validate", "--kind", "project", "a.yaml").stdout == "a.yaml: fine, project x, isolation local\n"
    (folder.path / "b").write_text('{"type": "object"}')
    assert folder.do("validate", "--kind", "schema", "b").stdout == "b: fine, a JSON Schema\n"
    (folder.path / "c.yaml").write_text("steps: []\n")
    assert (
        "it belongs in a pipeline, and this is an agent file"
        in folder.do("validate", "--kind", "agent", "c.yaml").stderr
    )


def test_an_agent_file_is_checked_by_itself(folder: Folder) -> None:
    text = "version: 1\nname: mine\nprogram: mine\napi: openai\nin_container: mine\n"
    (folder.path / "mine.yaml").write_text(text)
    assert folder.do("validate", "mine.yaml").stdout == "mine.yaml: fine, an agent file, mine with the API openai\n"
    (folder.path / "mine.yaml").write_text(text + "events: [{match: {type: x}, as: session}]\n")
    assert "mine.yaml:6:10: a rule `as: session` needs" in folder.do("validate", "mine.yaml").stderr
    assert "there is no file none.yaml" in folder.do("validate", "--kind", "agent", "none.yaml").stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no file x.yaml"),
        (b"\x7fELF\0\0\xff\xfe", "x.yaml:1:7: the file is binary, not text"),
        (b"name: \xff", "x.yaml:1:7: the file is not UTF-8 text: invalid byte 0xFF"),
        (b"#" * (1024 * 1024 + 1), "x.yaml:1:1: the file has more than 1048576 bytes"),
        (b"", "x.yaml:1:1: the file is empty"),
        (b"[" * 100_000, "x.yaml:1:1001: invalid YAML: this is nested over 64 levels deep"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(folder: Folder, content: bytes | None, says: str) -> None:
    if content is not None:
        (folder.path / "x.yaml").write_bytes(content)
    done = folder.do("validate", "x.yaml")
    assert done.code == 2
    assert done.stderr.splitlines()[0] == says


def test_a_folder_and_a_deep_schema_are_told_in_a_line(folder: Folder) -> None:
    (folder.path / "deep.json").write_text("[" * 100_000)
    done = folder.do("validate", ".", "deep.json")
    assert done.stderr.splitlines()[:2] == [". is a folder", "    hint: name the files in it"]
    assert "deep.json:1:1: this is nested too deep" in done.stderr


def test_programs_get_all_of_it_on_stdout_and_nothing_else(folder: Folder) -> None:
    folder.pipeline(PIPELINE, "fine.yaml")
    wrong = folder.pipeline("steps: [{id: a, rum: x}]", "wrong.yaml")
    done = folder.do("validate", "--format", "json", "fine.yaml", wrong.name, "none.yaml")
    assert (done.code, done.stderr) == (2, "")
    assert [(each["file"], each["rule"]) for each in json.loads(done.stdout)["problems"]] == [
        ("wrong.yaml", "structure"),
        ("none.yaml", "file"),
    ]
    fine = folder.do("validate", "--format", "sarif", "fine.yaml")
    assert (fine.code, json.loads(fine.stdout)["runs"][0]["results"]) == (0, [])
    github = folder.do("validate", "--format", "github", str(Path("wrong.yaml")))
    assert github.stdout.startswith("::error file=wrong.yaml,line=3,col=17,title=pccpipe::unknown key `rum` in a step")
