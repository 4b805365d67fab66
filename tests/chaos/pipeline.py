"""Write a pipeline with each kind of step. Each command writes a mark when it begins, then known output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LINES = 120
MARKS = "marks"
COMMANDS = ("onvm", "left", "right", "boxed", "athome", "each", "fails")
"""Ids of the steps that write marks."""
_RETRY = {"attempts": 5, "backoff": "500ms", "on": ["unavailable"]}


def write_pipeline(path: Path) -> None:
    """Write it as JSON, which is also YAML."""
    path.write_text(json.dumps(_pipeline(), indent=1))


def output(name: str, stream: str) -> bytes:
    """Return the whole output of a step's command to `stdout` or `stderr`."""
    word = {"stdout": "out", "stderr": "err"}[stream]
    return "".join(f"{name} {word} {number}\n" for number in range(1, LINES + 1)).encode()


def _pipeline() -> dict[str, Any]:
    box = {"on": "container", "container": "box"}
    result = {"result": {"path": "builder/iter-${{ iteration }}/result.json"}}
    tree = "find . -type f | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum"
    boxed = 'echo boxed >>app.txt; rm -f old.txt; echo \'{"ok": true}\' >"$PCC_OUT/result.json"'
    rounds = [_command("boxed", boxed, **box, **result), _command("athome", "echo athome >>app.txt", on="local")]
    group = [_command("left", on="vm"), _command("right", "mkdir -p deep/er; echo right >deep/er/file", on="vm")]
    return {
        "version": 1,
        "name": "chaos",
        "containers": {"box": {"image": "bb:latest", "network": "none"}},
        "steps": [
            {"id": "sync", "upload": "workspace", "retry": _RETRY},
            _command("onvm", "echo changed >>app.txt; head -c 3000 /dev/urandom >made.bin", on="vm"),
            {"id": "group", "parallel": group},
            {"id": "again", "repeat": {"max": 2, "until": "iteration == 2"}, "steps": rounds},
            _command("each", **box, matrix={"n": [1, 2]}, max_parallel=2),
            _command("fails", "exit 3", on="vm", continue_on_error=True),
            {"id": "tree", "on": "vm", "timeout": "60s", "run": tree},
            {"id": "change", "diff": "diff.patch", "retry": _RETRY},
            {"id": "bring", "download": [MARKS, "made.bin"], "retry": _RETRY},
        ],
        "always": [
            {"id": "last", "on": "vm", "run": f"grep -c . {MARKS}/* || :", "timeout": "30s", "retry": _RETRY},
            {"id": "clean", "remove": "workspace", "retry": _RETRY},
        ],
    }


def _command(name: str, more: str = ":", **keys: object) -> dict[str, Any]:
    """Return a script of about half a second: it writes its mark and its output, then does `more`."""
    script = f"""
mkdir -p {MARKS}; echo began >>{MARKS}/{name}
i=0; while [ $i -lt {LINES} ]; do
  i=$((i+1)); echo "{name} out $i"; echo "{name} err $i" >&2; [ $((i % 40)) -ne 0 ] || sleep 0.12
done
{more}"""
    return {"id": name, "timeout": "60s", "run": script, **keys}
