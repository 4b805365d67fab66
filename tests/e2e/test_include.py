"""A run of a pipeline with an include is resumed from its record, also where its files are gone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.control import ROOT, Control, Ran, wait_until

SHARED = """\
version: 1
name: shared
inputs: {word: {type: string, default: base}}
steps:
  - {id: first, run: "echo first >>$MARKS", env: {MARKS: "${{ run.folder }}/marks"}}
  - id: again
    repeat: {max: 2, until: steps.work.result.done}
    steps:
      - id: work
        run: |
          echo "work $(cat "$PCC_IN/task.md")" >>"$MARKS"; echo '{"done": true}' >"$PCC_OUT/out.json"
        env: {MARKS: "${{ run.folder }}/marks"}
        files: {task.md: {template: prompts/task.md}}
        result: {path: out.json, schema: out.schema.json}
  - {id: unwanted, run: exit 3}
always:
  - {id: last, run: "echo last >>$MARKS", env: {MARKS: "${{ run.folder }}/marks"}}
"""
OWN = """\
include: ../shared/pipeline.yaml
inputs: {word: {default: own}}
change:
  work:
    before:
      - {id: held, run: 'echo held >>"$MARKS"; sleep 3', env: {MARKS: "${{ run.folder }}/marks"}}
  unwanted: {remove: true}
"""


def test_a_killed_run_is_resumed_without_the_files_that_it_began_with(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    (shared / "prompts").mkdir(parents=True)
    own.mkdir()
    (shared / "pipeline.yaml").write_text(SHARED)
    (shared / "prompts/task.md").write_text("${{ inputs.word }}")
    (shared / "out.schema.json").write_text('{"type": "object", "required": ["done"]}')
    control = Control(tmp_path / "control")
    control.folder.mkdir()
    (own / "pipeline.yaml").write_text("version: 1\nname: own\n" + OWN)
    process, record = control.start(own / "pipeline.yaml")
    wait_until(lambda: (record / "marks").exists() and "held" in _marks(record))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shutil.rmtree(shared)
    shutil.rmtree(own)

    done = subprocess.run(
        [sys.executable, "-m", "pccpipe", "resume", record.name, "--runs-dir", str(record.parent)],
        cwd=control.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = Ran(done.returncode, done.stdout, done.stderr, record)
    assert _marks(record) == ["first", "held", "work own", "last"]
    assert [step["path"] for step in ran.state["steps"]] == [
        *("first", "again", "again[1].held", "again[1].work", "last"),
    ]
    assert (record / "pipeline.yaml").read_text().startswith(f"# As it ran: {own}/pipeline.yaml, which includes ")


def _marks(record: Path) -> list[str]:
    return (record / "marks").read_text().splitlines()
