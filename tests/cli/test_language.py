"""What users of other CI systems expect of a pipeline, run on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command import ROOT, Folder, finish, wait_until
from tests.cli.test_run import happened, state


def log(folder: Folder, step: str, stream: str = "stdout") -> str:
    found = sorted((folder.path / ".system/runs/r1/logs").glob(f"{step}-1.*{stream}.log"))
    return found[0].read_text() if found else ""


def ran(folder: Folder, text: str, *options: str) -> str:
    folder.pipeline(text)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1", *options)
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("keys", "script", "code"),
    [
        ("", "false\necho after", 1),
        ("", "false | cat\necho after", 0),
        ("shell: bash", "false | cat\necho after", 1),
        ("shell_options: []", "false\necho after", 0),
        ("shell_options: [nounset]", "false\necho after; echo $NOT_SET", 2),
        ("shell_options: [errexit, xtrace]", "true\necho after", 0),
        ("shell: bash, shell_options: [errexit]", "false | cat\necho after", 0),
    ],
)
def test_a_script_stops_at_its_first_failure_by_its_options(folder: Folder, keys: str, script: str, code: int) -> None:
    lines = "\n".join(f"          {line}" for line in script.split("\n"))
    options = "".join(f"        {key}\n" for key in keys.replace(", shell", "\nshell").split("\n") if key)
    folder.pipeline(f"steps:\n      - id: a\n{options}        run: |\n{lines}\n".replace("\n      ", "\n"))
    folder.do("run", "pipeline.yaml", "--run-id", "r1")
    a = state(folder)["steps"][0]  # type: ignore[index]
    assert a["exit_code"] == code
    assert ("after" in log(folder, "a")) is (code != 1)


def test_options_come_from_defaults_and_a_fallback_may_have_its_own(folder: Folder) -> None:
    folder.pipeline("""
        defaults: {shell_options: []}
        steps:
          - {id: a, run: "false; echo after"}
          - {id: b, shell_options: [errexit], run: "false; echo after", continue_on_error: true}
    """)
    assert folder.do("run", "pipeline.yaml", "--run-id", "r1").code == 0
    assert (log(folder, "a"), log(folder, "b")) == ("after\n", "")


def test_a_run_of_an_earlier_version_continues_by_its_rules(folder: Folder) -> None:
    folder.pipeline("""
        steps:
          - {id: wait, run: "until [ -e go ]; do sleep 0.05; done"}
          - {id: a, run: "false; echo after"}
          - {id: odd, if: steps.a.outcome == 'failure', run: "#!/usr/bin/env python3\\n", timeout: 5}
    """)
    # Those versions did not have these words.
    text = (folder.path / "pipeline.yaml").read_text()
    (folder.path / "pipeline.yaml").write_text("\n".join(line for line in text.split("\n") if "odd" not in line))
    run = folder.start("run", "pipeline.yaml", "--run-id", "r1")
    wait_until(lambda: happened(folder, "command_started"))
    run.kill()
    run.communicate()
    record = folder.path / ".system/runs/r1"
    (record / "pipeline.yaml").write_text(text)
    events = (record / "events.jsonl").read_text().splitlines()
    first = json.loads(events[0])
    (flag,) = [key for key in _keys(first) if key == "stops_at_failure"]
    events[0] = json.dumps(_without(first, flag))
    (record / "events.jsonl").write_text("\n".join(events) + "\n")
    (folder.path / "go").touch()
    done = folder.do("resume", "r1")
    assert done.code == 0, done.stdout + done.stderr
    assert log(folder, "a") == "after\n"


def _keys(value: object) -> list[str]:
    return [*value, *(key for inner in value.values() for key in _keys(inner))] if isinstance(value, dict) else []


def _without(value: object, key: str) -> object:
    return {k: _without(v, key) for k, v in value.items() if k != key} if isinstance(value, dict) else value


def test_values_keep_the_text_that_the_author_wrote(folder: Folder) -> None:
    ran(
        folder,
        """
        env: {COMMIT: 83e2010, BUILD: 0192117, GO: 1.20, PORT: 0x1F90, YES: True, SMALL: .5, NONE: .inf, ID: "0012"}
        steps:
          - {id: a, run: 'echo "$COMMIT $BUILD $GO $PORT $YES $SMALL $NONE $ID"'}
          - id: m
            matrix: {go: [1.20, 18], n: [1.5]}
            run: echo "${{ matrix.go }}" | cat; echo ${{ matrix.go == '1.20' }} ${{ matrix.n * 2 }}
        """.replace('echo "${{ matrix.go }}" | cat', "echo ${{ matrix.go }}"),
    )
    assert log(folder, "a") == "83e2010 0192117 1.20 0x1F90 True .5 .inf 0012\n"
    legs = sorted(path.read_text() for path in (folder.path / ".system/runs/r1/logs").glob("m-*stdout.log"))
    assert legs == ["1.20\ntrue 3.0\n", "18\nfalse 3.0\n"]


def test_an_included_pipelines_values_keep_their_text_too(folder: Folder) -> None:
    folder.pipeline("env: {GO: 1.20}\nsteps: [{id: a, run: 'echo $GO $PY'}]", "base.yaml")
    folder.pipeline("include: ./base.yaml\nchange: {a: {set: {env: {PY: 3.10}}}}")
    assert folder.do("run", "pipeline.yaml", "--run-id", "r1").code == 0
    assert log(folder, "a") == "1.20 3.10\n"
    kept = (folder.path / ".system/runs/r1/pipeline.yaml").read_text()
    assert "'1.20'" in kept or '"1.20"' in kept


def test_merge_keys_and_a_place_for_anchors(folder: Folder) -> None:
    out = ran(
        folder,
        """
        x-common: &common {env: {A: common, B: common}, timeout: 30}
        x-more: &more {<<: *common, timeout: 20, shell: bash}
        x-last: &last {shell: sh, cwd: .}
        steps:
          - {id: a, run: 'echo $A $B', <<: *common, env: {A: own}}
          - {id: b, run: 'echo $A ${BASH_VERSION:+bash}', <<: [*more, *last]}
        """,
    )
    assert "a | own\n" in out
    assert "b | common bash\n" in out


def test_merges_that_multiply_have_a_limit(folder: Folder) -> None:
    lines = ["x-0: &a0 {k: v}", *(f"x-{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12))]
    folder.pipeline("\n".join([*lines, "steps: [{id: a, run: x, env: {<<: *a11}}]"]))
    began = time.monotonic()
    done = folder.do("validate", "pipeline.yaml")
    assert done.code == 2
    assert "values, with its aliases expanded" in done.stderr
    assert time.monotonic() - began < 20


def test_a_missing_part_of_a_result_is_empty_and_false_and_has_a_default(folder: Folder) -> None:
    ran(
        folder,
        """
        steps:
          - {id: got, run: 'echo "{\\"a\\": 1, \\"b\\": {}}" >"$PCC_OUT/r.json"', result: {path: r.json}}
          - {id: skipped, if: false, run: x, result: {path: s.json}}
          - {id: yes, if: not steps.got.result.warning and not steps.skipped.result.warning, run: "true"}
          - {id: no, if: steps.got.result.b.c.d == 'x' or steps.got.result.count > 3, run: "false"}
          - id: default
            run: |
              echo ${{ steps.got.result.c | default('none') }} ${{ steps.got.result.a | default(2) }}
              echo ${{ steps.skipped.result.x | d('no') }}
              echo ${{ steps.got.result.a is defined }}
              echo ${{ steps.got.result.c is defined }} ${{ steps.got.result.c is none }}
        """,
    )
    assert [step["outcome"] for step in state(folder)["steps"]][2:4] == ["succeeded", "skipped"]  # type: ignore[attr-defined]
    assert log(folder, "default") == "none 1\nno\ntrue\nfalse true\n"


def test_background_processes_of_a_script_are_ended_and_reported(folder: Folder) -> None:
    out = ran(
        folder,
        """
        steps:
          - {id: server, run: "sleep 61 & echo started"}
          - {id: quick, run: "sleep 0.2 & echo started"}
          - {id: daemon, run: "setsid sleep 62 >/dev/null 2>&1 & sleep 0.1"}
        """,
    )
    for step in ("server", "daemon"):
        assert f"{step}: its background processes were stopped" in out
    assert "quick: processes" not in out
    assert subprocess.run(["pgrep", "-f", "^sleep 61$"], capture_output=True, check=False).returncode == 1


def test_a_path_that_a_step_sets_needs_no_shell(folder: Folder) -> None:
    ran(folder, 'steps: [{id: a, env: {PATH: /nowhere}, run: echo "$PATH"}]')
    assert log(folder, "a") == "/nowhere\n"


def test_whole_numbers_may_have_a_point(folder: Folder) -> None:
    ran(
        folder,
        """
        steps:
          - {id: a, run: "true", retry: {attempts: 3.0}}
          - {id: legs, matrix: {n: [1, 2]}, max_parallel: 2.0, run: "true"}
          - {id: loop, repeat: {max: 2.0, until: "true"}, steps: [{id: b, run: "true"}]}
          - {id: both, max_parallel: 1.0, parallel: [{id: c, run: "true"}, {id: d, run: "true"}]}
        """,
    )


@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_timeout_from_an_expression_must_be_more_than_0(folder: Folder, number: str) -> None:
    folder.pipeline(f"""
        inputs: {{n: {{type: number, default: {number}}}}}
        steps: [{{id: a, run: touch ran, timeout: "${{{{ inputs.n }}}}"}}]
    """)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert done.code == 1
    assert f"inputs.n }}}} must be more than 0, and is {number}" in done.stdout
    assert not (folder.path / "ran").exists()


def test_a_closed_stdout_changes_nothing_of_the_run(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: echo here}]")
    command = [sys.executable, "-m", "pccpipe", "run", "pipeline.yaml", "--run-id", "r1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=folder.path, env=env, timeout=60, check=False
    )
    assert done.returncode == 0
    assert log(folder, "a") == "here\n"
    events = (folder.path / ".system/runs/r1/events.jsonl").read_text()
    assert all(json.loads(line) for line in events.splitlines())
    assert state(folder)["outcome"] == "succeeded"


def test_a_character_that_the_output_cannot_encode_is_escaped(folder: Folder) -> None:
    folder.pipeline(
        "name: caf\u00e9\nsteps: [{id: a, run: 'echo caf\u00e9; echo next'}]".replace("name: caf\u00e9\n", "")
    )
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1", env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert "a | caf\\xe9\n" in done.stdout
    assert "a | next\n" in done.stdout
    assert "failed" not in done.stdout


def test_a_resumed_run_waits_for_the_rest_of_a_backoff(folder: Folder) -> None:
    folder.pipeline("""
        steps:
          - {id: a, run: "[ -e tried ] || { touch tried; exit 1; }", retry: {attempts: 2, backoff: 6}}
    """)
    run = folder.start("run", "pipeline.yaml", "--run-id", "r1")
    wait_until(lambda: happened(folder, "step_retrying"))
    began = time.monotonic()
    time.sleep(1)
    run.kill()
    run.communicate()
    done = finish(folder.start("resume", "r1"), 60)
    assert done.code == 0, done.stdout + done.stderr
    assert 5.5 < time.monotonic() - began < 15
    assert Path(folder.path / "tried").exists()
