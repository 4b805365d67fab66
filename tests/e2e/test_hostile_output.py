"""Hostile output does no harm: an endless line, terminal sequences, results that are not files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.e2e.control import ROOT, Control

MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""
LENGTH = 100_000_000


@pytest.fixture(params=["vm", "local"])
def place(request: pytest.FixtureRequest) -> Control:
    """A project with a VM, and one that is all local."""
    control: Control = request.getfixturevalue("control" if request.param == "vm" else "local_control")
    return control


@pytest.mark.parametrize("form", ["plain", "jsonl"])
def test_an_endless_line_fills_the_log_and_not_the_memory(place: Control, form: str) -> None:
    argv, record = place.command(
        rf"""
        secrets: {{OPENAI_API_KEY: {{from: env}}}}
        steps:
          - id: long
            on: vm
            secrets: [OPENAI_API_KEY]
            run: head -c {LENGTH} /dev/zero | tr '\0' x; printf %s "$OPENAI_API_KEY"; printf '\033]0;title\007\n'
        """,
        *("--format", form),
    )
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, *argv],
        capture_output=True,
        text=True,
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **place.env},
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stderr.split()[-1]) < 120_000  # KiB; Python with its modules takes some 60,000
    (log,) = record.glob("logs/*stdout.log")
    with log.open("rb") as file:
        file.seek(LENGTH - 1)
        assert file.read() == b"x***\x1b]0;title\x07\n"
    if form == "plain":
        assert f"({LENGTH + 13} characters)" in ran.stdout
        assert len(ran.stdout) < 10_000
        assert "\x1b" not in ran.stdout


@pytest.mark.parametrize(
    ("leaves", "says"),
    [
        ("ln -s /etc/passwd $PCC_OUT/r.json", "not a plain file"),
        ("mkdir $PCC_OUT/r.json", "not a plain file"),
        ("mkfifo $PCC_OUT/r.json", "not a plain file"),
        ("rmdir $PCC_OUT; ln -s /etc $PCC_OUT", "missing"),
        ("truncate -s 50G $PCC_OUT/r.json", "more than 4194304 bytes"),
        ("""printf '"\\033[2J\\\\u001b[2J' > $PCC_OUT/r.json""", "not valid JSON"),
    ],
)
def test_a_result_that_is_not_a_plain_file_fails_the_step_and_is_not_followed(
    place: Control, leaves: str, says: str
) -> None:
    ran = place.run(f"""
        steps:
          - id: a
            on: vm
            run: {leaves}
            result: {{path: out/r.json}}
    """)
    assert ran.code == 1
    assert says in ran.step("a")["message"]
    assert "\x1b" not in ran.stdout
    kept = ran.record / "out/r.json"
    assert not kept.exists() or "root:" not in kept.read_text()
