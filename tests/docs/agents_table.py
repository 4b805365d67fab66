"""python -m tests.docs.agents_table: writes the table of docs/agents.md, of what a run of each real program proves.

`tests/e2e/test_agent_programs.py` proves each line with each program in its pinned version. Tests fail if the page
differs from this output, or if a line has no proof.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/agents.md"
BEGIN, END = "<!-- proved: tests/docs/agents_table.py -->\n", "<!-- end -->\n"
PROGRAMS = {"codex": ("Codex", "CODEX_VERSION"), "claude-code": ("Claude Code", "CLAUDE_CODE_VERSION")}
LINES = {
    "works": "It runs commands and writes files, and its result matches its schema.",
    "key": "The key is only at the controller: not in the container, on the VM, or in the record.",
    "children": "A command that it left running ends with its container.",
    "limits": "429 with `retry-after`, 529 and a cut stream: it goes on, and the result is whole.",
    "no-work": "It exits with 0 without a result: the step failed.",
    "empty": "An answer without content: the step failed.",
    "repair": "A result against its schema goes back to it; its second one counts.",
    "wrong-key": "A key that the API refuses: the step failed, and says so.",
    "time": "The time limit ends it and its commands; its output until then stays.",
    "cancel": "A cancelled run ends it in the middle of a call.",
    "hostile": "Nothing in the workspace runs at its start or configures it, unless `workspace_config: trusted`.",
}
"""The lines by the names that the test gives them."""


def pinned(argument: str) -> str:
    """Return the version of a program that the image has."""
    dockerfile = (ROOT / "docker/Dockerfile.pcc-runner").read_text(encoding="utf-8")
    found = re.search(rf"^ARG {argument}=(\S+)$", dockerfile, re.M)
    assert found, f"docker/Dockerfile.pcc-runner has no {argument}"
    return found[1]


def table() -> str:
    """Return the table."""
    heads = [f"{title} {pinned(argument)}" for title, argument in PROGRAMS.values()]
    rows = [f"| proved | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    rows += [f"| {line} |{' yes |' * len(heads)}" for line in LINES.values()]
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """Return the page with the table in it."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
