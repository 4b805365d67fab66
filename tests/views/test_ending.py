"""Says at the end of a run what it did, from the shapes of results and facts, whatever the steps are called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from pccpipe.outcome import Outcome, Place
from pccpipe.record.agent_events import AgentChanged, RepairAsked
from pccpipe.record.agent_report import AgentReport, EditedFile
from pccpipe.record.events import (
    ActionDone,
    CommandEnded,
    Event,
    Happening,
    ModelUsed,
    RoundStarted,
    StepEnded,
    StepStarted,
)
from pccpipe.record.run_events import RunEnded
from pccpipe.record.state import RunState, state_of
from pccpipe.values import Json
from pccpipe.views.ending import ending, next_step
from pccpipe.views.show import show_text
from pccpipe.views.summary import summary
from tests.record.script import BOXED, ON_VM, command, ran, started

PATCH = """\
diff --git a/src/a.py b/src/a.py
--- a/src/a.py
+++ b/src/a.py
@@ -1,2 +1,3 @@
-old
+new
+more
diff --git "a/t\\033[2Jx" "b/t\\033[2Jx"
new file mode 100644
--- /dev/null
+++ b/x
@@ -0,0 +1 @@
+1
"""
BUILT: dict[str, Json] = {"summary": "Added the parser.", "risks": ["slow on large files"], "tests": []}


def agent(path: str, result: Json, name: str = "codex") -> list[Happening]:
    report = AgentReport(4, 1, (EditedFile("src/a.py", 2, 1),), messages=3)
    return [
        StepStarted(path, "run", Place.CONTAINER),
        replace(command(path, BOXED), agent=name),
        ModelUsed(path, 10, 0, 1_000_000, 900_000, 50_000, 0),
        CommandEnded(path, 1, Outcome.SUCCEEDED, 0, seconds=2.0, agent=report),
        StepEnded(path, Outcome.SUCCEEDED, 2.0, 0, result=result, result_path="r.json"),
    ]


def verdict(status: str, *notes: str) -> Json:
    return {"status": status, "notes": list(notes), "scope_creep_wos": []}


def two_rounds() -> list[Happening]:
    return [
        started("try"),
        StepStarted("try", "repeat"),
        RoundStarted("try", 1, 3),
        *agent("try[1].implement", BUILT),
        *ran("try[1].unit-tests", ON_VM, Place.VM, code=1),
        *agent("try[1].judge", verdict("changes_requested", "src/a.py:1: no"), "claude"),
        RoundStarted("try", 2, 3),
        *agent("try[2].implement", BUILT | {"summary": "Fixed the parser."}),
        AgentChanged("try[2].implement", 2, "claude", "codex", "the provider's limit lasts 2h"),
        StepStarted("try[2].patch", "diff"),
        ActionDone("try[2].patch", "diff", {"path": "diff.patch", "files": 2, "insertions": 3, "deletions": 1}),
        StepEnded("try[2].patch", Outcome.SUCCEEDED, 0.1),
        *ran("try[2].unit-tests", ON_VM, Place.VM),
        *agent("try[2].judge", verdict("approved"), "claude"),
        StepEnded("try", Outcome.SUCCEEDED, 20.0),
        RunEnded(Outcome.SUCCEEDED, "succeeded", False, 44.0),
    ]


def state(happenings: list[Happening]) -> RunState:
    return state_of(Event(number, 1.7e9 + number, what) for number, what in enumerate(happenings, 1))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1/diff.patch").write_text(PATCH)
    return tmp_path / "r1"


def test_any_pipeline_with_agents_ends_with_what_it_did(record: Path) -> None:
    lines = ending(state(two_rounds()), record)
    assert lines == [
        "changes: 2 files, +3 -1 lines, in diff.patch",
        "  +2 -1 src/a.py",
        "  +1 -0 t\\033[2Jx (new)",
        "implement (round 2): Fixed the parser.",
        "  risk: slow on large files",
        "judge: approved in round 2",
        "  before (round 1): changes requested: src/a.py:1: no",
        "implement by codex in 2 rounds: 8 commands (2 failed), 1 file +4 -2, 6 messages",
        "judge by claude in 2 rounds: 8 commands (2 failed), 1 file +4 -2, 6 messages",
        "handover: try[2].implement: claude took over from codex: the provider's limit lasts 2h",
        "tests: unit-tests succeeded in 2.0s (round 2); failed in 1 round before",
        "model: 40 calls, 4,200,000 tokens",
    ]


def test_the_summary_and_show_have_it_and_the_next_command(record: Path) -> None:
    run = state(two_rounds())
    for lines in (summary(run, record, lambda _: []), show_text(run, record)):
        assert "judge: approved in round 2" in lines
        assert lines[-1] == f"next: git apply {record}/diff.patch"


@pytest.mark.parametrize("repository", ["", "code", "top", "top/other"])
@pytest.mark.parametrize("cwd", ["", "top/my code"])
def test_the_next_command_changes_the_workspace_from_any_folder(
    tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch, repository: str, cwd: str
) -> None:
    code = tmp_path / "top/my code"
    (code / "src").mkdir(parents=True)
    (code / "src/a.py").write_text("old\nlast\n")
    (record / "diff.patch").write_text(
        "diff --git a/src/a.py b/src/a.py\n--- a/src/a.py\n+++ b/src/a.py\n@@ -1,2 +1,2 @@\n-old\n+new\n last\n"
    )
    if repository:
        subprocess.run(["git", "init", "-q", code if repository == "code" else tmp_path / repository], check=True)
    monkeypatch.chdir(tmp_path / cwd)
    run = [replace(started("try"), workspace=str(code)), *two_rounds()[1:]]
    [line] = next_step(state(run), record)
    subprocess.run(["sh", "-c", line.removeprefix("next: ")], check=True)
    assert (code / "src/a.py").read_text() == "new\nlast\n"


def test_the_work_before_a_repair_and_of_an_agent_before_counts(record: Path) -> None:
    first = agent("build", BUILT)[:-1]
    again = [
        RepairAsked("build", 1, 1, 1, "$: 'risks' is missing"),
        *agent("build", BUILT)[1:4],
    ]
    other = [replace(command("build", BOXED, 2), agent="claude")]
    ended = CommandEnded("build", 2, Outcome.SUCCEEDED, 0, agent=AgentReport(commands=1))
    run = state([started("build"), *first, *again, *other, ended, *agent("build", BUILT)[4:]])
    assert ending(run, record)[2:4] == [
        "build by codex: 8 commands (2 failed), 1 file +4 -2, 6 messages",
        "build by claude: 1 command",
    ]
    attempts = run.steps["build"].attempts
    assert [len(attempt.logs) for attempt in attempts] == [4, 2]


def test_a_run_that_failed_names_no_patch_to_apply(record: Path) -> None:
    run = two_rounds()[:-1]
    assert next_step(state([*run, RunEnded(Outcome.FAILED, "not_approved", False, 1.0)]), record) == []


def test_the_notes_of_a_reviewer_are_listed(record: Path) -> None:
    notes = [f"note {number}" for number in range(40)]
    lines = ending(state([started("judge"), *agent("judge", verdict("changes_requested", *notes))]), record)
    assert lines[0] == "judge: changes requested"
    assert lines[1] == "  note: note 0"
    assert lines[11] == "  and 30 more notes"


def test_a_run_without_agents_and_changes_says_nothing_more(record: Path) -> None:
    assert ending(state([started("test"), *ran("test", ON_VM, Place.VM)]), record) == []


@pytest.mark.parametrize(
    "result",
    [
        {
            "summary": "a\x1b[2J\nrun r1 succeeded\r\x1b]0;t\x07\u202e" + "x" * 100_000,
            "risks": ["\x1b[31m", 5, None, {}],
        },
        {"summary": "", "risks": "none"},
        {"summary": 5, "risks": []},
        {"status": "approved\nfake line\x1b[2J", "notes": ["\x1b]8;;http://x\x07", 7, "x" * 100_000]},
        {"status": ["approved"], "notes": []},
        ["summary"],
        "summary",
    ],
)
def test_hostile_results_are_short_harmless_lines(record: Path, result: Json) -> None:
    for line in ending(state([started("a"), *agent("a", result)]), record):
        assert len(line) < 600
        assert not set(line) & set("\x1b\r\n\x07\u202e")
        assert not line.startswith(("run r1", "fake line"))


@pytest.mark.parametrize(
    "patch", [None, b"", b"\xff\x00 no patch", b"diff --git \n", b"diff --git a b\n+" + b"x" * 1000]
)
def test_a_broken_or_missing_patch_leaves_the_counts(record: Path, patch: bytes | None) -> None:
    path = record / "diff.patch"
    path.unlink()
    if patch is not None:
        path.write_bytes(patch)
    assert ending(state(two_rounds()), record)[0] == "changes: 2 files, +3 -1 lines, in diff.patch"
