"""A run's folders and files are named in pccpipe/layout.py; scripts of sh may write the same names, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pccpipe import layout

PACKAGE = Path(__file__).resolve().parents[1] / "pccpipe"
NAMES = {
    value
    for name, value in vars(layout).items()
    # `lock`, `proxy` and the like are words of other things as well.
    if name.isupper() and isinstance(value, str) and re.search(r"[-.]", value)
}
OTHERS = {
    # The file that a person names a pipeline by, beside the one that a record keeps.
    ("starter.py", "pipeline.yaml"),
    # Of the HOME in a container.
    ("docker_api/relay.py", "proxy-port"),
    # Messages.
    ("views/isolation.py", "run.json"),
}
LITERAL = re.compile("|".join(re.escape(name) + r"(?![\w.-])" for name in sorted(NAMES, key=len, reverse=True)))


def texts_of(code: str) -> Iterator[str]:
    """Give the literal texts of a module, without docstrings."""
    tree = ast.parse(code)
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


def test_no_module_but_layout_writes_the_name_of_a_runs_folder() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), match.group())
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "layout.py"
        for text in texts_of(path.read_text(encoding="utf-8"))
        for match in LITERAL.finditer(text)
    }
    assert found == OTHERS


def test_the_scripts_of_sh_write_the_names_of_layout() -> None:
    system = {
        layout.STATES,
        layout.WORKSPACES,
        layout.COPIES,
        layout.IO,
        layout.GATES,
        layout.LEASE,
        layout.PROVISIONED,
    }
    inside = {layout.COMMANDS, layout.LANE, layout.COPY, layout.SENT}
    written: set[str] = set()
    for path in PACKAGE.rglob("*.sh"):
        code = re.sub(r"(?m)(^|\s)#.*$", "", path.read_text(encoding="utf-8"))
        below_system = re.findall(r"\$\{?pcc_(?:system|lease)(?:%/\*\})?\"?/(\w[\w.-]*)|\$system/(\w[\w.-]*)", code)
        names = {one for pair in below_system for one in pair if one}
        names |= set(re.findall(r"(?<=[/ ])run-[a-z]+\b", code))
        in_state = set(re.findall(r"\$(?:pcc_state|pcc_run|pcc_runs\"/\*)\"?/(\w[\w-]*)", code))
        assert names <= system, path
        assert in_state <= inside, path
        written |= names | in_state
    assert written == (system | inside)


def test_a_folder_on_the_vm_has_the_path_that_records_and_older_versions_know() -> None:
    system = layout.SystemDir.on_vm("/home/project")
    assert system.state("r") == "/home/project/.system/run-state/r"
    assert system.workspace("r") == "/home/project/.system/run-workspaces/r"
    assert system.workspace("r", of_account=True) == "/home/project/.system/run-workspaces/r/workspace"
    assert system.copies("r") == "/home/project/.system/run-copies/r"
    assert system.copies("r", of_account=True) == "/home/project/.system/run-copies/r/own-workspaces"
    assert system.account_files("r") == "/home/project/.system/run-io/r/steps"
    assert system.lease == "/home/project/.system/lease"
    assert system.gates == "/home/project/.system/gates"


def test_the_records_of_a_working_folder_are_in_its_system_folder() -> None:
    assert layout.system_folder(Path("/w") / layout.RUNS) == Path("/w/.system")
    assert layout.system_folder(Path("/elsewhere")) == Path("/elsewhere/.system")
