"""Run a page of the docs: check its YAML, and run its commands in the order of a reader.

- A block of `yaml` may be a whole pipeline or project file, or a part of one, which gets the least file around it. A
  block whose first line is `# NAME.yaml` is also written to that file, for the commands after it.
- A block of `python` is run.
- The blocks of `sh` run in one shell. A line must exit with 0, or with N if it ends in `# exits N`. A block of `sh`
  after `<!-- elsewhere: WHY -->` does not run: the comment names the test that covers it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from pccpipe.policy.file import load_policy
from pccpipe.scripted.case_file import load_cases
from pccpipe.spec.agent_file import agent_problems
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.project import load_project

_FENCE = re.compile(r"^(?P<before><!-- elsewhere: [^\n]+ -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_NAMED = re.compile(r"# (?P<name>[\w./-]+\.ya?ml)\n")
_EXITS = re.compile(r"\s+# exits (\d+)$")
_PIPELINE = {"version": 1, "name": "part"}
_STEP = {"id": "part"}


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    line: int
    is_elsewhere: bool

    @property
    def name(self) -> str | None:
        match = _NAMED.match(self.text)
        return match["name"] if match else None


def blocks(page: Path) -> Iterator[Block]:
    """Return the page's blocks of code, in order."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(match["kind"], match["text"], line, bool(match["before"]))


def check_yaml(block: Block, folder: Path) -> None:
    """Raise SpecError if the block has a problem. `folder` has the files that it names."""
    data = _data(block)
    path = folder / "part-of-a-page.yaml"
    if isinstance(data, dict) and "id" in data and not {"run", "upload"} & set(data):
        path.write_text(block.text)
        load_project(path, environ={"CONTROL_CENTER_GCP_SSH_USER": "deploy"})
        return
    if isinstance(data, dict) and "preset" in data:
        path.write_text(block.text)
        load_policy(path)
        return
    if isinstance(data, dict) and "in_container" in data:
        path.write_text(block.text)
        assert agent_problems(path) == []
        return
    if isinstance(data, dict) and "cases" in data:
        path.write_text(block.text)
        load_cases(path)
        return
    path.write_text(as_pipeline(block))
    load_pipeline(path)


def as_pipeline(block: Block) -> str:
    """Return a block as a pipeline: itself, or the least one around it."""
    data = _data(block)
    return block.text if isinstance(data, dict) and "version" in data else _whole(block.text, data)


def _data(block: Block) -> object:
    return yaml.safe_load(block.text.replace("\non:", "\n'on':").replace(" on:", " 'on':"))


def _whole(text: str, data: object) -> str:
    """Return the least pipeline around a part of one: a list of steps, keys of a pipeline, or keys of a step."""
    head = "version: 1\nname: part\n"
    if isinstance(data, list):
        return f"{head}steps:\n{_indented(text, 2)}"
    keys = set(cast("dict[str, Any]", data))
    if keys & {"steps", "always", "inputs", "secrets", "containers", "defaults", "env"} and "run" not in keys:
        rest = "" if keys & {"steps", "include"} else 'steps: [{id: part, run: "true"}]\n'
        return f"{head}{text}{rest}"
    return f"{head}steps:\n  - id: part\n{_indented(text, 4)}"


def _indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}" if line.strip() else line for line in text.splitlines(keepends=True))


def as_script(text: str) -> str:
    """Return the block's lines as a script that exits with 99 if a line does not exit with its status."""
    lines: list[str] = []
    for command in re.sub(r"\\\n\s*", "", text).splitlines():
        if not command.strip() or command.lstrip().startswith("#"):
            continue
        exits = _EXITS.search(command)
        lines += [command, _exits_with(exits[1] if exits else "0")]
    return "\n".join(lines)


def _exits_with(wanted: str) -> str:
    return f'[ $? = {wanted} ] || {{ echo "this must exit with {wanted}" >&2; exit 99; }}'


def run_commands(page: Path, folder: Path, env: Mapping[str, str], replaced: Mapping[str, str]) -> None:
    """Run the page's commands and write its files, in order, in `folder`."""
    script = ["set -x"]
    for block in blocks(page):
        if block.kind == "yaml" and block.name:
            target = folder / block.name
            script.append(f"cat >{target} <<'END-OF-FILE'\n{_put_in(block.text, replaced)}END-OF-FILE")
        elif block.kind == "python":
            script += [f"python -c {shlex.quote(_put_in(block.text, replaced))}", _exits_with("0")]
        elif block.kind == "sh" and not block.is_elsewhere:
            script.append(as_script(_put_in(block.text, replaced)))
    # In a file, not as an argument: other tests look for keys in arguments.
    program = folder.with_name("commands.sh")
    program.write_text("\n".join(script))
    done = subprocess.run(
        ["sh", program],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr


def _put_in(text: str, replaced: Mapping[str, str]) -> str:
    for word, value in replaced.items():
        text = text.replace(word, value)
    return text
