"""Each broken file of tests/corpus gives exactly the messages of its .expected file; UPDATE_CORPUS=1 rewrites these.

project-*.yaml are project files, schema-*.json results' schemas, the others pipelines. The first line of an .expected
lists the lines on which an editor that knows the schema shows an error; tests/editors checks that.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pccpipe.errors import SpecError
from pccpipe.spec.load import check_schema_file, load_pipeline
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.project import USER_VARIABLE, load_project

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
CASES = sorted(path for path in CORPUS.iterdir() if path.name.endswith((".yaml", ".json")))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_broken_file_gives_its_messages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)
    monkeypatch.delenv(USER_VARIABLE, raising=False)
    with pytest.raises(SpecError) as raised:
        load(Path(path.name))
    problems = raised.value.problems
    text = f"# {in_editors([problem for problem in problems if problem.position.file == path.name])}\n{raised.value}\n"
    expected = path.with_suffix(".expected")
    if os.environ.get("UPDATE_CORPUS"):
        expected.write_text(text)
    assert text == expected.read_text(), "UPDATE_CORPUS=1 pytest tests/spec/test_corpus.py writes it; then read it"
    assert list(problems) == sorted(problems, key=lambda problem: problem.position)
    assert len({(problem.position, problem.message) for problem in problems}) == len(problems)


def load(path: Path) -> None:
    if path.suffix == ".json":
        check_schema_file(path)
    elif path.name.startswith("project-"):
        load_project(path)
    else:
        load_pipeline(path)


def in_editors(problems: list[Problem]) -> str:
    if any(problem.rule is Rule.YAML for problem in problems):
        return "not YAML: editors show their own message"
    lines = sorted({problem.position.line for problem in problems if problem.rule is Rule.STRUCTURE})
    return f"editors show: {', '.join(map(str, lines))}" if lines else "editors show nothing"


def test_the_corpus_is_large_and_has_no_message_of_the_schema_library() -> None:
    texts = [path.read_text() for path in CORPUS.glob("*.expected")]
    assert len(texts) >= 120
    for words in (
        "is not valid under any",
        "False schema",
        "Additional properties",
        "is a required property",
        "does not match",
    ):
        assert not [text for text in texts if words in text]
