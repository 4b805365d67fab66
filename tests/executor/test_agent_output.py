"""Follows an agent at its work: actions for the views and the record, masked, also after a killed pccpipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from pccpipe import limits
from pccpipe.agents.rules import read_rules
from pccpipe.agents.stream import AgentReader
from pccpipe.cancel import Cancel
from pccpipe.executor.agent_output import MORE, AgentOutput
from pccpipe.executor.context import RunContext
from pccpipe.executor.follow import MARGIN, follow
from pccpipe.outcome import ActionKind, Place, Stream
from pccpipe.record.activity import ActivityLog
from pccpipe.record.agent_events import Activity
from pccpipe.record.agent_report import AgentReport, EditedFile
from pccpipe.record.events import Event, Output
from pccpipe.record.journal import Journal, make_run_dir, read_events
from pccpipe.record.logs import CommandLog
from pccpipe.record.room import Room
from pccpipe.secrets.mask import Masker
from pccpipe.target import Chunk, Command
from pccpipe.targets.dummy import DummyTarget, Play
from pccpipe.values import Json

SECRET = "sk-made-up-0123456789abcdef"
RULES = read_rules(
    [
        {"match": {"type": "say"}, "as": "message", "text": "text", "piece": "piece"},
        {"match": {"type": "run"}, "as": "command", "id": "id", "command": "command"},
        {"match": {"type": "ran"}, "as": "command_end", "id": "id", "exit": "exit"},
        {"match": {"type": "edit"}, "as": "edit", "file": "file", "added": "added"},
        {"match": {"type": "error"}, "as": "error", "text": "text"},
    ]
)


def line(**values: Json) -> bytes:
    return json.dumps(values).encode() + b"\n"


WORK = [
    line(type="run", id="1", command="npm test"),
    line(type="ran", id="1", exit=1),
    line(type="edit", file="/workspace/a.py", added=2),
    line(type="say", text="done"),
]


class Followed:
    """One process that follows the agent in the run's folder, to its end."""

    def __init__(self, folder: Path, chunks: Sequence[bytes | Chunk]) -> None:
        self.seen: list[Event] = []
        run = folder / "run"
        if not run.exists():
            make_run_dir(run)
        masker = Masker([SECRET])
        journal = Journal(run, [self.seen.append], masker.text)
        context = cast("RunContext", SimpleNamespace(masker=masker, journal=journal, cancel=Cancel(), room=Room(run)))
        self.file = run / "activity.jsonl"
        self.agent = AgentOutput(
            context, "build", AgentReader(RULES, folder="/workspace"), ActivityLog(self.file, Room(run))
        )
        output = tuple(each if isinstance(each, Chunk) else Chunk(Stream.STDOUT, each) for each in chunks)
        running = DummyTarget(Place.LOCAL, lambda _: Play(output=output)).start(Command("build-1", "build", 0, ""))
        with CommandLog(run, "stdout.log", "stderr.log", from_start=True) as log:
            follow(context, "build", running, log, None, agent=self.agent)
        journal.close()
        self.log = (run / "stdout.log").read_bytes()

    @property
    def actions(self) -> list[Activity]:
        return [event.what for event in self.seen if isinstance(event.what, Activity)]

    @property
    def texts(self) -> list[tuple[ActionKind, str]]:
        return [(action.kind, action.text) for action in self.actions]


def test_its_actions_reach_the_views_and_a_file_and_not_the_journal(tmp_path: Path) -> None:
    done = Followed(tmp_path, WORK)
    assert done.texts == [
        (ActionKind.COMMAND, "npm test"),
        (ActionKind.COMMAND_END, "npm test"),
        (ActionKind.EDIT, "a.py"),
        (ActionKind.MESSAGE, "done"),
    ]
    end = done.actions[1]
    assert (end.exit_code, end.failed) == (1, True)
    assert end.seconds is not None
    assert all(event.seq == 0 for event in done.seen)
    assert list(read_events(tmp_path / "run")) == []
    assert ActivityLog(done.file).earlier == tuple(done.actions)
    # The raw lines are in the log, and reach programs as output.
    assert done.log == b"".join(WORK)
    assert "".join(event.what.text for event in done.seen if isinstance(event.what, Output)).encode() == done.log


def test_the_report_has_the_sum(tmp_path: Path) -> None:
    assert Followed(tmp_path, WORK).agent.report() == AgentReport(
        commands=1, failed_commands=1, files=(EditedFile("a.py", 2, 0),), messages=1, last_message="done"
    )


def test_the_next_process_gets_all_actions_again_and_the_file_has_each_once(tmp_path: Path) -> None:
    first = Followed(tmp_path, WORK[:2])
    torn = first.file.read_bytes() + b'{"seq":0,"time":17'
    first.file.write_bytes(torn)
    then = Followed(tmp_path, WORK)
    assert [kind for kind, _ in then.texts] == ["command", "command_end", "edit", "message"]
    # A command that ended before has the time that it took, not that of the second reading.
    assert then.actions[1].seconds == first.actions[1].seconds
    assert then.agent.report().commands == 1
    assert ActivityLog(then.file).earlier == tuple(then.actions)


def test_no_form_of_a_secret_is_in_an_action(tmp_path: Path) -> None:
    hidden = "".join(f"\\u{ord(character):04x}" for character in SECRET)
    lines = [
        line(type="say", text=f"the key is {SECRET}"),
        b'{"type": "say", "text": "the key is ' + hidden.encode() + b'"}\n',
        line(type="run", id=SECRET, command="x" * (limits.AGENT_TEXT.most - 10) + SECRET),
        line(type="error", text=SECRET),
        line(type="edit", file=SECRET),
        # Neither piece has it, the message has.
        line(type="say", text=f"the key is {SECRET[:12]}", piece=True) + line(type="say", text=SECRET[12:], piece=True),
    ]
    done = Followed(tmp_path, lines)
    report = done.agent.report()
    for seen in (repr(done.actions), done.file.read_text(), repr(report), done.log.decode()):
        assert SECRET not in seen
    assert SECRET[:10] not in f"{done.actions[:-1]}"
    assert len(done.actions) == len(lines)


def test_a_gap_drops_the_torn_line_alone(tmp_path: Path) -> None:
    dropped = b"x" * (MARGIN + Masker([SECRET]).longest)
    after = dropped + b'rest"}\n' + WORK[3]
    hole = Chunk(Stream.STDOUT, after, skipped=10**9)
    done = Followed(tmp_path, [WORK[0] + b'{"type": "say", "text": "half ', hole])
    assert (ActionKind.COMMAND, "npm test") in done.texts
    assert done.texts[-1] == (ActionKind.MESSAGE, "done")
    assert not [text for _, text in done.texts if "half" in text or "rest" in text]


def test_a_flood_of_actions_is_counted_and_not_kept(tmp_path: Path) -> None:
    count = 5000
    done = Followed(tmp_path, [line(type="say", text="x" * limits.AGENT_TEXT.most)] * count)
    assert done.file.stat().st_size <= limits.AGENT_ACTIVITY.most
    assert done.texts[-1] == (ActionKind.OUTPUT, MORE)
    assert len(done.actions) < count
    assert done.agent.report().messages == count
    # `logs --agent` says so too, and a process that reads it all again adds nothing.
    kept = done.file.read_bytes()
    assert ActivityLog(done.file).earlier[-1].text == MORE
    again = Followed(tmp_path, [line(type="say", text="x" * limits.AGENT_TEXT.most)] * (count + 1) + WORK)
    assert again.file.read_bytes() == kept
    assert again.agent.report().messages == count + 2


def test_stderr_is_no_action(tmp_path: Path) -> None:
    assert Followed(tmp_path, [Chunk(Stream.STDERR, WORK[0])]).texts == []
