"""Scripts for other programs than sh, PATH under `env:`, and variables for later steps, run on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.command import Folder, wait_until
from tests.cli.test_language import log, ran
from tests.cli.test_run import state


def events(folder: Folder, kind: str) -> list[dict[str, Any]]:
    path = folder.path / ".system/runs/r1/events.jsonl"
    found = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [event for event in found if event["event"] == kind]


def tool(folder: Folder, name: str, text: str) -> None:
    path = folder.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_python_runs_a_script_by_shell_and_by_its_first_line(folder: Folder) -> None:
    out = ran(
        folder,
        """
        defaults: {shell: bash, shell_options: [errexit, pipefail, nounset]}
        steps:
          - id: by-shell
            shell: python3 -O
            env: {WHO: "it's ${{ run.id }}"}
            run: |
              import os, sys

              if True:
                  print(os.environ["WHO"], sys.argv[1:], sys.flags.optimize)
          - id: by-line
            run: |
              #!/usr/bin/env python3
              x = (40 + 2)
              print(x)
          - {id: sh, run: 'echo ${BASH_VERSION:+bash}', shell: bash}
        """,
    )
    assert "by-shell | it's r1 [] 1\n" in out
    assert "by-line | 42\n" in out


def test_a_traceback_has_the_line_of_the_script_and_the_exit_code_is_its_own(folder: Folder) -> None:
    folder.pipeline("""
        steps:
          - id: raises
            continue_on_error: true
            run: |
              #!/usr/bin/env python3

              def f():
                  raise ValueError("here")
              f()
          - {id: exits, shell: python3, run: "import sys; sys.exit(42)"}
    """)
    folder.start("run", "pipeline.yaml", "--run-id", "r1").communicate()
    error = log(folder, "raises", "stderr")
    assert "line 4, in f" in error
    assert "line 5, in <module>" in error
    assert [event["exit_code"] for event in events(folder, "command_ended")] == [1, 42]


def test_a_missing_program_fails_the_step_with_a_code_and_a_fix(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: '#!/usr/bin/env python9'}]")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert done.code == 1
    step = state(folder)["steps"][0]  # type: ignore[index]
    assert (step["outcome"], step["code"], step["exit_code"]) == ("failed", "interpreter_missing", 127)
    assert "no program python9 there, which `shell:` or `#!` names; fix: install python9" in done.stdout


def test_each_level_of_a_path_extends_the_one_around(folder: Folder) -> None:
    for name in ("file", "defaults", "step"):
        tool(folder, f"{name}/{name}-tool", f"#!/bin/sh\necho {name}")
        tool(folder, f"{name}/which-one", f"#!/bin/sh\necho {name} first")
        tool(folder, f"{name}/sh", "#!/bin/sh\necho never")
    out = ran(
        folder,
        """
        env: {PATH: "file:$PATH"}
        defaults: {env: {PATH: "./defaults:${PATH}"}}
        steps:
          - id: all
            env: {PATH: "step:$PATH"}
            run: cd /; which-one; file-tool; defaults-tool; step-tool; ls >/dev/null
          - {id: replaced, env: {PATH: "${{ 'st' + 'ep' }}"}, run: 'step-tool; command -v ls || echo no ls'}
        """,
    )
    assert log(folder, "all") == "step first\nfile\ndefaults\nstep\n", out
    assert log(folder, "replaced") == "step\nno ls\n"


def test_plan_shows_the_program_and_the_path(folder: Folder) -> None:
    folder.pipeline("""
        env: {PATH: "bin:$PATH"}
        steps: [{id: a, run: "#!/usr/bin/env -S python3 -u\\nprint(1)", env: {PATH: "tools:$PATH"}}]
    """)
    assert "shell: python3 -u\n" in (out := folder.do("plan", "pipeline.yaml").stdout)
    assert "env: PATH=tools:bin:$PATH\n" in out


def test_a_resumed_run_knows_what_was_exported_and_show_names_it(folder: Folder) -> None:
    folder.pipeline("""
        steps:
          - {id: a, run: 'echo "VERSION=1.2 beta" >>"$PCC_ENV"'}
          - {id: wait, run: "until [ -e go ]; do sleep 0.05; done"}
          - {id: b, run: 'echo "it is $VERSION"'}
    """)
    run = folder.start("run", "pipeline.yaml", "--run-id", "r1")
    wait_until(lambda: len(events(folder, "command_started")) == 2)
    run.kill()
    run.communicate()
    (folder.path / "go").touch()
    done = folder.do("resume", "r1")
    assert done.code == 0, done.stdout + done.stderr
    assert log(folder, "b") == "it is 1.2 beta\n"
    assert "exported: VERSION\n" in folder.do("show", "r1").stdout
    (ended,) = [event for event in events(folder, "command_ended") if event.get("exports")]
    assert ended["exports"] == {"variables": {"VERSION": "1.2 beta"}, "origin": "local", "unattested": False}


def test_code_that_a_step_runs_can_export_only_what_the_step_names(folder: Folder) -> None:
    evil = '#!/bin/sh\nprintf "EVIL=1\\n" >>"$PCC_ENV"; printf "1.2\\nNODE_OPTIONS=--require ./evil.js\\n"'
    tool(folder, "version", evil)
    folder.pipeline("""
        steps:
          - {id: a, run: 'echo "VERSION=$(./version)" >>"$PCC_ENV"', continue_on_error: true}
          - {id: b, run: 'echo "${VERSION-none} ${EVIL-none} ${NODE_OPTIONS-none}"'}
    """)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert ": its file $PCC_ENV sets EVIL, which the step's `run:` does not name" in done.stdout, done.stdout
    assert log(folder, "b") == "none none none\n"
    assert (
        json.loads(Path(folder.path / ".system/runs/r1/run.json").read_text())["steps"][0]["code"] == "export_refused"
    )
