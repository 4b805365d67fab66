"""One word a thing: the names of events, keys and codes, and the pages, use the words of docs/glossary.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest

from pccpipe.outcome import Code, IsolationMode, Outcome, Place, Reason, Stream
from pccpipe.record.events import Happening

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs/glossary.md"
MADE = {"commands.md", "limits.md", "reference.md"}
"""Pages that other files are the source of."""
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")} - {GLOSSARY})

ENGLISH = """
above accepted added adds after allow allowed answering as asked at bad before begun busy by cached cancelling change
changed changes closed consented continue copied copies create creep day days denied description do done dropped empty
end ended error estimated every exceeded exclude expect exposed extends external facts fail fast failed fails failure
folders format from given grace had hand hang have hidden hide hosted identity if ignored in include incompatible kind
known large last left lines maps match max maximum may message messages minimum missing more name needed new no
nonsense not notes number of on only options out outside passed per piece queued raises rationale read refused remove
removed requested required reserved retries retrying risks running say scope seconds set shared signal size skipped
space start started stopped stops succeeded summary taken tests text tiers time timed times title too tool tools tried
trusted type unknown unreachable unread unseen unset until untrusted up usage use used user users values version via
wait waiting warned warnings when who with
"""
"""Words that mean in a name what they mean in any English text."""

FIELD = """
apparmor args arguments attempts auth backoff build calls capabilities config context cpus cut cwd default defaults
disk dockerfile enum env escapes exit files folder home id init ip jump key memory mounts network output patch path
permission pid pids port ports privileges processes program quota root seccomp security seq shell shm socket ssh stderr
paths stdout stream template usd
"""
"""Words that mean what they mean in SSH, Docker, YAML and POSIX."""

KEPT = {"escalation": "question", "wos": "work orders, in a reviewer's result"}
"""Words that formats keep although the glossary has another one."""

OLD_CLASSES = """
Access Call Doorway Door Followed Forward Found Help HelpRequest Here Listening Parts Past Report Serving Served
StepHalt Verdict Visit Where
"""
"""Class names of the time before one word a thing. No class may have one again."""


def _rows(heading: str | None = None) -> Iterator[tuple[str, str]]:
    """Give the rows of the glossary's tables, or of one of them."""
    section = ""
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        row = re.fullmatch(r"\| ([^|]+) \| ([^|]+) \|", line)
        if (
            row
            and row[1] not in {"word", "not", "---"}
            and (section == heading or (not heading and section != NOT_SAID))
        ):
            yield row[1], row[2]


NOT_SAID = "What we do not say"
WORDS = dict(_rows())
PARTS = {part.lower() for word in WORDS for part in word.split()}


def names() -> Mapping[str, str]:
    """Return each name that records, YAML and programs use, and where it comes from."""
    found: dict[str, str] = {}
    for event in get_args(Happening):
        found[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", event.__name__).lower()] = "event"
        found.update(dict.fromkeys(event.__struct_fields__, f"field of {event.__name__}"))
    for closed in (Outcome, Place, IsolationMode, Code, Reason, Stream):
        found.update({member.value: closed.__name__ for member in closed})
    for path in sorted((ROOT / "schemas").glob("*.json")):
        found.update(dict.fromkeys(_keys(json.loads(path.read_text(encoding="utf-8"))), path.name))
    return found


def _keys(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (key for key in schema.get("properties", {}) if not key.startswith("$"))
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _keys(inner)


def _known(part: str) -> bool:
    plain = {*ENGLISH.split(), *FIELD.split(), *KEPT}
    forms = {part, part.removesuffix("s"), part.removesuffix("d"), part.removesuffix("ed"), part.removesuffix("led")}
    return part in plain or bool(forms & PARTS)


def unknown(name: str) -> list[str]:
    """Return the parts of `name` that are neither in the glossary nor plain words."""
    return [part for part in name.split("_") if not _known(part)]


def test_each_name_is_made_of_the_glossarys_words() -> None:
    bad = [f"{origin}: {name}: {part}" for name, origin in names().items() for part in unknown(name)]
    assert not bad, "\n".join(["give docs/glossary.md the word, or use one that it has:", *bad])


@pytest.mark.parametrize("name", ["job_started", "vm_worker", "max_iterations", "plea"])
def test_a_name_with_another_word_is_found(name: str) -> None:
    assert unknown(name)


def test_no_plain_word_is_listed_in_vain() -> None:
    used = {part for name in names() for part in name.split("_")}
    plain = [*ENGLISH.split(), *FIELD.split(), *KEPT]
    assert sorted(set(plain) - used) == []
    assert sorted(set(plain) & PARTS) == []
    assert len(plain) == len(set(plain))


def test_the_glossary_has_each_word_once_with_one_sentence() -> None:
    rows = list(_rows())
    assert len(rows) == len(WORDS) > 80
    assert [meaning for _, meaning in rows if not re.fullmatch(r"[A-Z][^\n]{10,130}\.", meaning)] == []


def test_each_word_of_the_glossary_is_in_use() -> None:
    sources = [*PAGES, *(ROOT / "pccpipe").rglob("*.py")]
    text = "\n".join([*(path.read_text(encoding="utf-8") for path in sources), *names()])
    in_vain = [word for word in WORDS if not re.search(rf"\b{word.replace(' ', '[ _]')}", text, re.IGNORECASE)]
    assert in_vain == []


def refused() -> list[str]:
    """Return the words that the glossary refuses in any sense; `kill, for a run` is for people to judge."""
    without_condition = [row for row, _ in _rows(NOT_SAID) if ", for " not in row]
    return [word for row in without_condition for word in row.split(", ")]


def prose(page: str) -> str:
    """Return a page's text with a blank line for each line of code, and without names in backquotes or of files."""
    text = re.sub(r"^ *```.*?^ *```", lambda block: "\n" * block[0].count("\n"), page, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`|<!--.*?-->|\]\([^)]*\)", "", text)


def test_no_page_says_a_word_that_the_glossary_refuses() -> None:
    bad = []
    for page in PAGES:
        for number, line in enumerate(prose(page.read_text(encoding="utf-8")).splitlines(), 1):
            found = re.search(rf"\b({'|'.join(refused())})s?\b", line, re.IGNORECASE)
            if found:
                bad.append(f"{page.name}:{number}: {found[0]}")
    assert not bad, "\n".join(bad)


def test_what_the_glossary_prefers_is_in_it() -> None:
    assert [word for _, row in _rows(NOT_SAID) for word in row.split(", ") if word not in WORDS] == []


def test_no_class_has_a_name_of_before() -> None:
    classes = re.compile(rf"^class ({'|'.join(OLD_CLASSES.split())})\b", re.MULTILINE)
    found = [
        f"{path}: {name}" for path in (ROOT / "pccpipe").rglob("*.py") for name in classes.findall(path.read_text())
    ]
    assert found == []
