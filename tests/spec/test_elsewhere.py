"""Files, keys and texts of other tools: what pccpipe says of them is in tests/corpus; here is what it accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.errors import SpecError
from pccpipe.spec.load import load_pipeline, load_text

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
HEAD = "version: 1\nname: x\ninputs: {name: {type: string}}\n"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("foreign-[dg][ai]*.yaml")), ids=lambda path: path.stem)
def test_a_file_of_another_tool_is_one_problem(path: Path) -> None:
    with pytest.raises(SpecError, match=r"this looks like a (Dagu|GitHub|GitLab)") as raised:
        load_pipeline(path)
    assert len(raised.value.problems) == 1


def test_a_file_of_another_tool_is_one_problem_also_with_mistakes_in_its_yaml(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as raised:
        load_text("stages: [a]\ntest:\n  script: [x]\n  script: [y]\n", tmp_path)
    assert len(raised.value.problems) == 1


def test_the_tag_of_gitlab_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="GitLab CI has this tag"):
        load_text("test:\n  script: [!reference [.setup, script], x]\n", tmp_path)


@pytest.mark.parametrize(
    "run",
    [
        "docker inspect --format '{{.State.Status}} {{json .Config}}' x",
        "gh pr view --template '{{range .files}}{{.path}}{{end}}'",
        "printf '{%s}\\n' x; echo '{% if user %}' '{{ user.name }}' '{{ env.HOME }}' '{{ project.title }}'",
        "echo '<%= name %>' '<% if user %>'",
        "echo ${{ '{{ inputs.name }}' }}",
    ],
)
def test_delimiters_of_other_programs_stay(run: str, tmp_path: Path) -> None:
    load_text(f"{HEAD}steps:\n  - id: a\n    run: |\n      {run}\n", tmp_path)


@pytest.mark.parametrize(
    ("keys", "run"),
    [
        ("", "echo $CI $GITHUB ${GITHUB_SHA:-none} ${CI_COMMIT_SHA-}"),
        ("env: {GITHUB_SHA: a}", "echo $GITHUB_SHA"),
        ("", "CI_JOB_ID=1; echo $CI_JOB_ID"),
        ("on: local", "echo $GITHUB_SHA"),
        ("", "cat <<'END' >ci.sh\n      echo $GITHUB_SHA\n      END"),
    ],
)
def test_variables_that_a_step_may_have_are_accepted(keys: str, run: str, tmp_path: Path) -> None:
    place = "" if keys.startswith("on:") else "    on: vm\n"
    load_text(f"{HEAD}steps:\n  - id: a\n{place}    {keys}\n    run: |\n      {run}\n", tmp_path)


def test_a_variable_may_be_set_by_the_including_file(tmp_path: Path) -> None:
    below = tmp_path / "below.yaml"
    below.write_text("version: 1\nname: below\nsteps: [{id: a, on: vm, run: echo $CI_COMMIT_SHA}]\n")
    above = tmp_path / "above.yaml"
    above.write_text("version: 1\nname: above\ninclude: ./below.yaml\nenv: {CI_COMMIT_SHA: a}\n")
    load_pipeline(above)
    above.write_text("version: 1\nname: above\ninclude: ./below.yaml\n")
    with pytest.raises(SpecError, match="nothing sets `\\$CI_COMMIT_SHA` here"):
        load_pipeline(above)


def test_a_foreign_file_that_is_included_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "ci.yml").write_text((CORPUS / "foreign-github.yaml").read_text())
    above = tmp_path / "above.yaml"
    above.write_text("version: 1\nname: above\ninclude: ./ci.yml\n")
    with pytest.raises(SpecError) as raised:
        load_pipeline(above)
    assert "this looks like a GitHub Actions workflow" in str(raised.value)
    assert [problem.position.line for problem in raised.value.problems] == [6]


def test_an_older_record_keeps_its_texts(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"{HEAD}steps:\n  - {{id: a, on: vm, run: 'echo {{{{ inputs.name }}}} $GITHUB_SHA'}}\n")
    load_pipeline(file, older=True)
    with pytest.raises(SpecError):
        load_pipeline(file)
