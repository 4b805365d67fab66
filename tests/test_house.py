"""What the code may look like: a file is one idea, a function fits a screen, a class has a name of its own."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "pccpipe"
FILE_LINES = 400
FUNCTION_LINES = 60


def test_no_file_is_over_400_lines() -> None:
    long = {
        str(path.relative_to(PACKAGE))
        for pattern in ("*.py", "*.sh")
        for path in PACKAGE.rglob(pattern)
        if len(path.read_text().splitlines()) > FILE_LINES
    }
    assert long == set()


def test_no_function_is_over_60_lines() -> None:
    long = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1 - _words(node)
                if lines > FUNCTION_LINES:
                    long.add(f"{path.relative_to(PACKAGE)}: {node.name}")
    assert long == set()


def _words(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of its docstring."""
    first = node.body[0]
    has_one = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return (first.end_lineno or 0) - first.lineno + 1 if has_one else 0


def test_each_class_has_a_name_of_its_own() -> None:
    files: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                files.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: where for name, where in files.items() if len(where) > 1} == {}
