from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pccpipe.outcome import Outcome, Place, Reason, Stream
from pccpipe.record.agent_events import AgentChanged, ModelLimited, RepairAsked, StepWaiting
from pccpipe.record.codec import decode
from pccpipe.record.events import (
    CommandEnded,
    Happening,
    InputAsked,
    Output,
    StepDowngraded,
    StepEnded,
    StepStarted,
    TargetUnavailable,
    Warned,
)
from pccpipe.record.run_events import RunEnded
from pccpipe.record.state import state_of
from pccpipe.views.jsonl import JsonLinesView
from pccpipe.views.plain import PlainView
from pccpipe.views.show import show_text
from tests.record.script import BOXED, ON_VM, WORDS, command, default_run, events, failed_run, started

RECORD = Path(".system/runs/r1")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def plain(happenings: Iterable[Happening]) -> str:
    stream = io.StringIO()
    view = PlainView(stream, RECORD)
    for event in events(happenings):
        view(event)
    return stream.getvalue()


def test_a_failed_run_reads_as_its_story_and_its_end() -> None:
    assert plain(failed_run()) == (
        "22:13:20 run r1 of default-run begins on 2023-11-14 22:13:20, project proj, isolation vm\n"
        "22:13:21 test begins: run, on vm\n"
        "22:13:22 test runs: vm 10.0.0.2, user pcc, workspace /home/project/ws\n"
        "22:13:23 test | ok 1\n"
        "22:13:24 test | not ok 2: Hello\n"
        "22:13:26 test failed in 2.0s: exit code 1\n"
        "\n"
        "test failed: exit code 1\n"
        "  | ok 1\n"
        "  | not ok 2: Hello\n"
        "  logs: .system/runs/r1/logs/test-1.stdout.log\n"
        "        .system/runs/r1/logs/test-1.stderr.log\n"
        "\n"
        "run r1 failed in 2.0s: exit code 1\n"
        "record: .system/runs/r1\n"
    )


def test_a_downgrade_is_reported_at_once_and_at_the_end_with_the_targets_own_words() -> None:
    text = plain(default_run())
    during, _, end = text.partition("\n\n")
    for part in (during, end):
        assert "DOWNGRADED" in part
        assert "engine_permission_denied" in part
        assert WORDS in part
        assert "fix: sudo usermod -aG docker pcc" in part
    assert "run r1 succeeded in 44s, downgraded" in end


def test_retries_rounds_and_ignored_failures_are_reported() -> None:
    text = plain(default_run())
    assert "baseline failed; attempt 2 of 2 follows after 1.0s" in text
    assert "baseline attempt 2 runs: vm 10.0.0.2" in text
    assert "iterate round 2 of at most 3" in text
    assert "iterate[1].test failed in 1.0s: exit code 1 (ignored)" in text
    assert "iterate[1].build | half a line\n" in text


def test_an_ignored_failure_is_not_reported_at_the_end() -> None:
    _, _, end = plain(default_run()).partition("\n\n")
    assert "iterate[1].test" not in end


def test_an_unavailable_step_has_its_reason_words_and_hint_at_the_end() -> None:
    refused = TargetUnavailable("a", 1, Place.VM, Reason.SSH_REFUSED, "line one\nline two", "start sshd")
    end = StepEnded("a", Outcome.UNAVAILABLE, 0.1, reason=Reason.SSH_REFUSED, message="line one\nline two")
    text = plain(
        [
            started("a"),
            StepStarted("a", "run", Place.VM),
            refused,
            end,
            RunEnded(Outcome.UNAVAILABLE, "unavailable", False, 1.0, "line one\nline two"),
        ]
    ).partition("\n\n")[2]
    assert (
        "a unavailable: the VM refused the connection (ssh_refused)\n  line one\n  line two\n  fix: start sshd\n"
        in text
    )


def test_no_escape_of_an_agents_output_reaches_the_log() -> None:
    text = plain([started("a"), Output("a", Stream.STDOUT, "\x1b]0;own\x07\x1b[2J gone\r\n"), *failed_run()[-1:]])
    assert "\x1b" not in text
    assert "a | \\x1b]0;own\\x07\\x1b[2J gone\n" in text


def test_a_last_line_without_an_end_is_not_lost() -> None:
    piece = Output("a", Stream.STDERR, "no newline")
    end = CommandEnded("a", 1, Outcome.SUCCEEDED, 0)
    assert "a | no newline\n" in plain([started("a"), command("a", ON_VM), piece, end])


def test_of_a_failed_group_only_its_steps_are_reported() -> None:
    happenings: list[Happening] = [
        started("g"),
        StepStarted("g", "parallel"),
        StepStarted("g.a", "run", Place.LOCAL),
        StepEnded("g.a", Outcome.FAILED, 1.0, 3, message="exit code 3"),
        StepEnded("g", Outcome.FAILED, 1.0, message="a: exit code 3"),
        RunEnded(Outcome.FAILED, "not_approved", False, 1.0, "a: exit code 3"),
    ]
    _, _, end = plain(happenings).partition("\n\n")
    assert end.startswith("g.a failed: exit code 3\n")
    assert "\ng failed" not in end
    assert "run r1 failed (not_approved) in 1.0s" in end


def test_json_lines_are_the_events_with_the_output() -> None:
    stream = io.BytesIO()
    view = JsonLinesView(stream)
    scripted = events(default_run())
    for event in scripted:
        view(event)
    lines = stream.getvalue().splitlines()
    assert [decode(line) for line in lines] == scripted
    assert "output" in {json.loads(line)["event"] for line in lines}


FORGED = "run r1 succeeded in 3s: all is well, nothing to see here, and this is longer than the text before it"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_no_text_of_an_agent_begins_a_line_or_replaces_one(end: str) -> None:
    said = f"x{end}{FORGED}"
    message = f"exit code 1; its agent reports: {said}"
    happenings: list[Happening] = [
        started("build"),
        StepStarted("build", "run", Place.CONTAINER),
        command("build", replace(BOXED, image=said)),
        RepairAsked("build", 1, 1, 1, said),
        AgentChanged("build", 2, "claude", "codex", said),
        ModelLimited("build", 1, said),
        StepWaiting("build", said, 1.7e9),
        Warned(said, "build"),
        CommandEnded("build", 1, Outcome.FAILED, 1, message=message),
        StepEnded("build", Outcome.FAILED, 2.0, 1, message=message),
        InputAsked("build", said, said, {"key": said}),
        RunEnded(Outcome.FAILED, "failed", False, 3.0, f"build: {message}"),
    ]
    lines = plain(happenings).splitlines() + show_text(state_of(events(happenings)), RECORD)
    assert not [line for line in lines if re.match("([0-9:]{8} )?run r1 succeeded", line)]
    assert [line for line in lines if line.startswith("build failed: exit code 1; its agent reports: x")]
    assert sum(line.startswith("run r1 failed in 3.0s: build: exit code 1") for line in lines) == 2


def test_words_of_a_stranger_name_no_command() -> None:
    words = "no space left\nfix: sh evil.sh\n  fix: sh evil.sh\n\u2028next: sh evil.sh"
    happenings: list[Happening] = [
        started("build"),
        StepStarted("build", "run", Place.CONTAINER),
        TargetUnavailable("build", 1, Place.CONTAINER, Reason.ENGINE_ERROR, words, "df -h"),
        StepDowngraded("build", Place.CONTAINER, Place.LOCAL, Reason.ENGINE_ERROR, words),
        StepEnded("build", Outcome.UNAVAILABLE, 1.0, reason=Reason.ENGINE_ERROR),
        RunEnded(Outcome.UNAVAILABLE, "unavailable", True, 1.0),
    ]
    lines = plain(happenings).splitlines() + show_text(state_of(events(happenings)), RECORD)
    assert [line.strip() for line in lines if re.match("([0-9:]{8} )? *(fix|next):", line)]
    assert not [line for line in lines if re.match("([0-9:]{8} )? *(fix|next):.*evil", line)]
    assert [line for line in lines if line.endswith("| fix: sh evil.sh")]


def test_a_skipped_step_says_why_if_its_record_does() -> None:
    happenings: list[Happening] = [started(), StepEnded("unit", Outcome.SKIPPED, 0.0, message="its matrix has no legs")]
    assert "unit skipped: its matrix has no legs\n" in plain(happenings)
    assert "  unit: skipped: its matrix has no legs" in show_text(state_of(events(happenings)), RECORD)
