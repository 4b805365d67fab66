"""The English of the code and its pages: refuses phrases that read like a translation, and says what to write."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

INSTEAD = {
    r"\bto be had\b|\bhad nowhere\b": "unavailable; is missing",
    r"\btold\b": "reported; says; knows",
    r"\banew\b": "again; from the start; new",
    r"\bmend(s|ed|ing)?\b": "fix; repair",
    r"\bfor want of\b": "because it lacks; out of",
    r"\b(stands?|stood) in\b": "appears in; is in; replaces",
    r"\b(will|would) not do\b": "invalid",
    r"\bso many\b": "this many; the number",
    r"\bsomebody\b|\bwho(so)?ever\b": "name the actor",
    r"\bmanieth\b": "number; which",
    r"(?<!\bthere )\b(is|are|was|were) no (?!longer\b|more\b|less\b|fewer\b|other\b|different\b)": "is not a; has no",
    r"\b(comes?|came|coming|brings?|brought|takes?|taken|took|fetch(es|ed)?) home\b|\bat home\b": "here; locally",
}
"""A pattern, and words that say the same in the field's own English."""

KEPT = {
    "tests/test_english.py": r".*",
    # Formats keep their words: records, and the JSON of `doctor`, are read by programs.
    "pccpipe/views/checkup.py": r'"mend(ed)?":',
    "tests/checkup/test_doctor.py": r'"mend"',
    "tests/checkup/test_provision.py": r'"mended"',
    "docs/vm.md": r"`mend(ed)?`",
    "docs/glossary.md": r"^\| mend, heal \|",
}
"""Lines that may have one, by file."""


def _files() -> list[str]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and not name.endswith((".lock", ".svg", ".png"))]


def found(text: str) -> list[tuple[int, str, str]]:
    """Return each refused phrase of `text`: the number of its line, the phrase, and what to write instead."""
    return [
        (number, match.group(), instead)
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, instead in INSTEAD.items()
        for match in re.finditer(pattern, line, re.IGNORECASE)
    ]


def test_no_phrase_reads_like_a_translation() -> None:
    bad = []
    for name in _files():
        path = ROOT / name
        if not path.is_file():
            continue
        text = path.read_bytes().decode(errors="replace")
        lines = text.splitlines()
        for number, phrase, instead in found(text):
            if name in KEPT and re.search(KEPT[name], lines[number - 1]):
                continue
            bad.append(f"{name}:{number}: {phrase!r}: write: {instead}")
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    "line",
    ["the VM is not to be had", "made anew", "that is no pattern", "somebody asked", "what may come home", "Mended: x"],
)
def test_a_translated_phrase_is_found(line: str) -> None:
    assert found(line)


@pytest.mark.parametrize("line", ["there is no engine", "it is no longer here", "a fix", "who asked", "a home folder"])
def test_plain_english_is_left_alone(line: str) -> None:
    assert not found(line)
