"""Real shells keep any value at a place that the reader calls safe to one word."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pccpipe.spec import jinja
from pccpipe.spec.expression import Template
from pccpipe.spec.position import Position
from pccpipe.spec.shell_text import misplaced_value

SHELLS = {"dash": "sh", "busybox": "sh", "bash": "bash"}
PAYLOADS = (
    "$(touch caught)",
    "`touch caught`",
    "';touch caught;'",
    '";touch caught;"',
    "\ntouch caught\n",
    "a[$(touch caught)]",
    "EOF\ntouch caught\n",
    "}$(touch caught)",
    "))\ntouch caught\n((",
)
FRAGMENTS = (
    "${{ x }}", " ", "\n", "'", '"', "\\", "`", "$(", ")", "(", "((", "))", "$((", "${a:-", "}", "{ ", "; }", "$'",
    "$$", "#", " #", "<<EOF", "<<-EOF", "<<'EOF'", "\nEOF\n", "<<<", "<", ">/dev/null", "a", "a=", "echo ",
    "case a in a) ", " ;; esac", "if true; then ", "; fi", "&&", "|", ";", "\\\n", "$", "a[", "]",
)  # fmt: skip
SCRIPTS = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=9).map("".join)


@pytest.mark.parametrize("shell", SHELLS)
@given(
    script=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=9).map("".join), payload=st.sampled_from(PAYLOADS)
)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_value_at_a_safe_place_runs_nothing(
    shell: str, script: str, payload: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume("${{" in script)
    analysis = jinja.analyse(script)
    assume(analysis.wrong is None and None in analysis.pieces)
    assume(misplaced_value(analysis.pieces, SHELLS[shell]) is None)
    folder = tmp_path_factory.mktemp("script")
    run(shell, Template(script, Position("f", 1, 1)).render_for_shell({"x": payload}), folder)
    caught = (folder / "caught").exists()
    shutil.rmtree(folder)
    assert not caught


@pytest.mark.parametrize("shell", SHELLS)
def test_the_check_above_notices_a_value_that_runs(shell: str, tmp_path: Path) -> None:
    run(shell, 'echo "$(touch caught)"', tmp_path)
    assert (tmp_path / "caught").exists()


def test_the_shell_decides_whether_here_strings_exist() -> None:
    pieces = jinja.analyse("cat <<<a\necho ${{ x }}").pieces
    assert misplaced_value(pieces, "bash") is None
    assert misplaced_value(pieces, "sh")


def test_the_shell_decides_whether_two_parentheses_are_arithmetic() -> None:
    pieces = jinja.analyse("((<<EOF))\necho ${{ x }}").pieces
    assert misplaced_value(pieces, "bash") is None
    assert misplaced_value(pieces, "sh")


def test_the_first_misplaced_value_is_reported() -> None:
    pieces = jinja.analyse("echo ${{ a }} '${{ b }}' \"${{ c }}\"").pieces
    found = misplaced_value(pieces)
    assert found is not None
    assert (pieces[: found.piece].count(None), found.why) == (1, "inside single quotes")


def run(shell: str, script: str, folder: Path) -> None:
    command = [shell, "sh"] if shell == "busybox" else [shell]
    subprocess.run(
        [*command, "-c", script], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
    )
