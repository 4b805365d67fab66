"""Short expressions that cause much work: each is a problem at its position, quickly and in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pccpipe import limits
from pccpipe.errors import ExpressionError
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.position import Position
from tests.stall import measured

AT = Position("p.yaml", 3, 7)
BOMBS = (
    "${{ [[[1]*1000]*1000]*1000 }}",
    "${{ [['a'*100000]*1000]*1000 }}",
    "${{ [range(100000)]*100000 }}",
    "${{ range(100000) | select('in', range(100000) | list) | list | length }}",
    "${{ range(100000) | map('string') | map('replace', '', 'x'*100000) | list | length }}",
    "<% for a in range(100000) %><% for b in range(100000) %><% endfor %><% endfor %>",
    "<% set s = 'x'*1000000 %><% for a in range(1000) %>${{ s }}<% endfor %>",
    "<% set s = 'x'*1000000 %><% for a in range(100000) %><% set t = s ~ s %><% endfor %>",
    "<% set s = [1]*100000 %><% for a in range(100000) %><% if s[1:] == s[:-1] %><% endif %><% endfor %>",
    "<% set s = [1]*100000 %><% for a in range(100000) %><% set t = [s, s, s] %><% endfor %>",
    "".join(f"<% set s{n + 1} = s{n} + s{n} %>" for n in range(40)).replace("s0 + s0", "'ab'"),
    "".join(f"<% set s{n + 1} = [s{n}, s{n}] %>" for n in range(40)).replace("[s0, s0]", "1") + "${{ s40 }}",
    "".join(f"<% set s{n + 1} = s{n} * s{n} %>" for n in range(40)).replace("s0 * s0", "99999"),
    "".join(f"<% set s{n + 1} = {{'a': s{n}, 'b': s{n}}} %>" for n in range(40)).replace("s0", "1") + "${{ s40 }}",
    "<% for a in deep %><% for b in deep %><% if deep == other %><% endif %><% endfor %><% endfor %>",
)


@pytest.mark.parametrize("text", BOMBS)
def test_a_bomb_fails_quickly_in_little_memory(text: str) -> None:
    setup = """
        import time
        from pccpipe.spec.expression import Template
        from pccpipe.spec.position import Position
        scope = {"deep": [[1] * 10 for _ in range(5000)], "other": [[1] * 10 for _ in range(5000)]}
        Template("${{ 1 + 1 }}", Position("p.yaml", 3, 7)).render(scope)
        began = time.process_time()
    """
    work = f"""
        try:
            Template({text!r}, Position("p.yaml", 3, 7), blocks=True).render(scope)
        finally:
            assert time.process_time() - began < 15, time.process_time() - began
    """
    longest, memory, said = measured(setup, work)
    assert said.startswith("ExpressionError: p.yaml:3:7: in `"), said
    assert "exceeds the limit of" in said or "bits" in said or len(said) >= 300  # cut
    assert longest < limits.PAUSE
    assert memory < limits.MARGIN


def test_sum_accepts_only_numbers() -> None:
    assert Expression("[1, 2.5] | sum", AT).evaluate({}) == 3.5
    with pytest.raises(ExpressionError, match="numbers"):
        Expression("[[1]] | sum(start=[])", AT).evaluate({})


def test_a_large_result_is_within_bounds() -> None:
    result = {"findings": [{"file": f"src/{n}.py", "text": "x" * 60} for n in range(10_000)]}
    template = Template(
        "${{ steps.review.result | tojson }} ${{ steps.review.result.findings | map(attribute='file') | join(', ') }}"
        "<% for each in steps.review.result.findings if each.file != 'src/1.py' %>${{ each.text }}<% endfor %>",
        AT,
        blocks=True,
    )
    assert len(template.render({"steps": {"review": {"result": result}}})) > 1_000_000


def test_plan_names_the_line_of_a_bomb(tmp_path: Path) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(
        'version: 1\nname: pb\nsteps:\n  - id: x\n    on: local\n    run: "echo ${{ [[[1]*1000]*1000]*1000 }}"\n'
    )
    command = [sys.executable, "-m", "pccpipe", "plan", str(file), "--local"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "bomb.yaml:6:10" in said.stdout + said.stderr
    assert "exceeds the limit of 1,000,000" in said.stdout + said.stderr
