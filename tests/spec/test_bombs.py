"""Short pipelines that cause much work: each is a problem at its position, quickly and in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pccpipe import limits
from pccpipe.errors import LimitExceeded, SpecError
from pccpipe.spec.bounds import bounded_work, left
from pccpipe.spec.expression import Expression
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.paths import read_file
from pccpipe.spec.position import Position
from tests.stall import measured

HEAD = "version: 1\nname: n\n"
TEN = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"


def pccpipe(*words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pccpipe", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "p.yaml"
    path.write_text(HEAD + text)
    try:
        load_pipeline(path)
    except SpecError as error:
        return [f"{each.position.line}:{each.position.column}: {each.message}" for each in error.problems]
    return []


@pytest.mark.parametrize("command", ["validate", "plan"])
@pytest.mark.parametrize(
    ("step", "place"),
    [
        ('run: "echo ${{ [[[1]*1000]*1000]*1000 }}"', "5:8"),
        ('run: "echo ${{ inputs.x }} ${{ [[[1]*1000]*1000]*1000 }}"', "5:8"),
        ('run: a\n  if: "[range(100000)]*100000 == 1"', "6:7"),
        ('run: a\n  timeout: "${{ [1] * 10000000 }}"', "6:12"),
    ],
)
def test_an_expression_with_too_much_work_is_a_problem_at_its_position(
    tmp_path: Path, command: str, step: str, place: str
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}steps:\n- id: a\n  {step}\ninputs: {{x: {{type: string, default: x}}}}\n")
    code, said = pccpipe(command, str(path))
    assert code == 2
    assert f"p.yaml:{place}: in `" in said
    assert "exceeds the limit" in said


def test_plan_refuses_an_expression_with_too_much_work(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        f"{HEAD}inputs: {{x: {{type: integer, default: 1000}}}}\n"
        "steps:\n- id: a\n  run: ${{ [[[1]*inputs.x]*1000]*1000 }}\n"
    )
    assert pccpipe("validate", str(path))[0] == 0
    code, said = pccpipe("plan", str(path))
    assert code == 2
    assert "p.yaml:6:8: in `" in said


def test_an_evaluation_counts_for_the_outer_block() -> None:
    with bounded_work(limits.PLAN_WORK):
        Expression("range(1000) | list", Position("p", 1, 1)).evaluate({})
        spent = limits.PLAN_WORK.most - (left.units or 0)
        assert spent >= 1000
        Expression("range(1000) | list", Position("p", 1, 1)).evaluate({})
        assert limits.PLAN_WORK.most - (left.units or 0) == 2 * spent
    assert left.units is None


@pytest.mark.parametrize(
    "steps",
    [
        f"- {{id: a, run: b, matrix: {{{', '.join(f'x{n}: {TEN}' for n in range(60))}}}}}",
        f"""
- id: a
  matrix: {{a: {TEN}, b: {TEN}}}
  parallel:
  - id: b
    matrix: {{c: {TEN}, d: {TEN}}}
    repeat: {{max: 2}}
    steps: [{{id: c, run: d, matrix: {{e: {TEN}}}}}]""",
        f"- {{id: a, run: b, matrix: {{a: {TEN}, b: {TEN}, c: {TEN}, d: {TEN}}}}}\n"
        f"- {{id: b, run: b, matrix: {{a: {TEN}}}}}",
    ],
    ids=["names", "in each other", "one after the other"],
)
def test_a_matrix_counts_with_all_its_legs(tmp_path: Path, steps: str) -> None:
    (only,) = problems(tmp_path, f"steps:\n{steps}\n")
    assert "the number of a pipeline's steps with each matrix written out exceeds the limit of 10,000" in only


def test_a_matrix_of_a_thousand_legs_is_fine(tmp_path: Path) -> None:
    assert not problems(tmp_path, f"steps: [{{id: a, run: b, matrix: {{a: {TEN}, b: {TEN}, c: {TEN}}}}}]\n")


@pytest.mark.parametrize("each", ["1+", "1 or ", "not ", "-"])
def test_a_long_expression_is_a_problem(tmp_path: Path, each: str) -> None:
    (only,) = problems(tmp_path, f'steps: [{{id: a, run: "${{{{ {each * 100_000} 1 }}}}"}}]\n')
    assert "exceeds the limit of 10,000" in only
    (only,) = problems(tmp_path, f'steps: [{{id: a, run: "${{{{ {each * 500} 1 }}}}"}}]\n')
    assert "nested too deep" in only


def test_included_files_share_one_limit_of_values(tmp_path: Path) -> None:
    for name, rest in (("a", "include: b.yaml"), ("b", "steps: [{id: a, run: 'true'}]")):
        aliases = f"inputs: {{x{name}: {{type: string, description: x}}, y: [&a [{'1,' * 240}], {'*a,' * 240}]}}"
        (tmp_path / f"{name}.yaml").write_text(f"{HEAD}{rest}\n{aliases}\n")
    with pytest.raises(SpecError, match="with its included files, the pipeline has over 100,000 values"):
        load_pipeline(tmp_path / "a.yaml")


_LOAD = """
    import tempfile
    from pathlib import Path
    from pccpipe.spec.load import load_pipeline
    from pccpipe.spec.schema import _fits, _validator
    _validator("pipeline")
    file = Path(tempfile.mkdtemp()) / "p.yaml"
    def load(text):
        file.write_bytes(b"version: 1\\nname: n\\n" + text)
        try: load_pipeline(file)
        except Exception as error: raise ValueError(len(getattr(error, "problems", ()))) from None
    load(b"steps: [{id: a, run: a}]")
"""


@pytest.mark.parametrize(
    ("text", "count"),
    {
        "unknown keys": ("b'steps: []\\n' + b''.join(b'k%d: 1\\n' % n for n in range(9000))", 100),
        "bad steps": ("b'steps:\\n' + b''.join(b'- {i: 1}\\n' for n in range(30_000))", 100),
        "the same id": ("b'steps:\\n' + b'- {id: a, run: b}\\n' * 20_000", 100),
        "unknown steps": (
            "b'steps:\\n'"
            " + b''.join(b'- {id: a%d, run: \"${{ steps.z%d.outcome }}\"}\\n' % (n, n) for n in range(9999))",
            100,
        ),
        "containers": (
            "b'steps: [{id: a, run: a}]\\ncontainers:\\n'"
            " + b''.join(b' c%d: {extends: c%d}\\n' % (n, n + 1) for n in range(9999))",
            1,
        ),
    }.values(),
)
def test_a_file_with_many_problems_lists_few_quickly(text: str, count: int) -> None:
    pause, memory, said = measured(_LOAD, f"load({text})")
    assert said == f"ValueError: {count}"
    assert pause < limits.PAUSE
    assert memory < limits.MARGIN + limits.PIPELINE.most


@pytest.mark.parametrize("kind", ["template", "schema"])
def test_an_endless_file_is_a_problem(tmp_path: Path, kind: str) -> None:
    (tmp_path / "endless").symlink_to("/dev/zero")
    (only,) = problems(tmp_path, f"steps: [{{id: a, run: a, files: {{f: {{{kind}: endless}}}}}}]\n")
    assert "endless exceeds the limit of 1 MiB" in only


def test_a_file_for_a_command_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="64 MiB"):
        read_file(Path("/dev/zero"), limits.FILE_INPUT)
    (tmp_path / "small").write_text("x")
    assert read_file(tmp_path / "small", limits.FILE_INPUT) == b"x"


@pytest.mark.parametrize(
    "text",
    ["[" * 1_000_000, '{"not":' * 90_000, '{"not":' * 5000 + "{}" + "}" * 5000, '{"not":' * 400 + "{}" + "}" * 400],
    ids=["brackets", "keys", "closed", "closed soon"],
)
@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_deeply_nested_schema_is_a_problem(tmp_path: Path, text: str, command: str) -> None:
    (tmp_path / "s.json").write_text(text)
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}steps: [{{id: a, run: 'true', on: local, result: {{path: r.json, schema: s.json}}}}]\n")
    code, said = pccpipe(command, str(path))
    assert code == 2
    assert "nested" in said
    assert "Traceback" not in said
