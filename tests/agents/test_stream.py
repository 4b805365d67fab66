"""Reads hostile and broken output of an agent's program: nothing of it disturbs, and memory has a limit."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from pccpipe import limits
from pccpipe.agents.final_json import final_json
from pccpipe.agents.rules import read_result, read_rules
from pccpipe.agents.stream import Action, AgentReader
from pccpipe.outcome import ActionKind
from pccpipe.values import Json

RULES: list[dict[str, Json]] = [
    {"match": {"type": "start"}, "as": "session", "id": "id"},
    {"match": {"type": "say"}, "as": "message", "text": "text", "piece": "piece"},
    {"match": {"type": "run"}, "as": "command", "id": "id", "command": "command"},
    {"match": {"type": "ran"}, "as": "command_end", "id": "id", "command": "command", "exit": "exit"},
    {"match": {"type": "edit"}, "as": "edit", "file": "files[].name", "added": "files[].added", "diff": "files[].diff"},
    {"match": {"type": "used"}, "as": "usage", "input_tokens": ["in", "cached"], "output_tokens": "out", "usd": "usd"},
    {"match": {"type": "done"}, "as": "result", "text": "text", "failed": "failed"},
]


def reader(*, adds_up: bool = False) -> AgentReader:
    result = read_result({"type": "done"}, "value")
    return AgentReader(read_rules(RULES), result, usage_adds_up=adds_up, folder="/workspace")


def line(**values: Json) -> bytes:
    return json.dumps(values).encode() + b"\n"


def read(agent: AgentReader, data: bytes) -> list[Action]:
    return [*agent.feed(data), *agent.finish()]


def texts(actions: list[Action]) -> list[tuple[ActionKind, str]]:
    return [(action.kind, action.text) for action in actions]


def test_a_line_may_come_in_pieces_of_any_size() -> None:
    data = line(type="start", id="s-1") + line(type="say", text="Grüße") + line(type="run", id="1", command="ls")
    for size in (1, 7, len(data)):
        agent = reader()
        found = [one for at in range(0, len(data), size) for one in agent.feed(data[at : at + size])]
        assert texts(found) == [(ActionKind.MESSAGE, "Grüße"), (ActionKind.COMMAND, "ls")]
        assert agent.session_id == "s-1"


def test_the_last_line_counts_without_its_newline() -> None:
    agent = reader()
    assert read(agent, line(type="done", text="bye", value={"a": 1})[:-1]) == []
    assert (agent.last_message, agent.result()) == ("bye", b'{"a": 1}')


@pytest.mark.parametrize(
    "junk",
    [
        b"{half\n",
        b'{"type": "new_kind", "x": [1, 2]}\n',
        b'{"type": {"deep": []}}\n',
        b"[1, 2]\n",
        b"\xff\xfe{}\n",
        b'{"type": "run", "id": {}, "command": 5}\n',
        b'{"type": "ran", "id": "never-began", "exit": 1}\n',
        b'{"type": "edit", "files": "no list"}\n',
        b'{"type": "edit", "files": [1, null, {"name": 3}, {"name": ""}]}\n',
        b'{"type": "used", "in": -5, "out": 1e400, "usd": "free"}\n',
        b'{"type": "used", "in": true, "out": 99999999999999999999999, "usd": -1}\n',
        b'{"type": "start", "id": "--dangerous"}\n',
        b'{"type": "start", "id": "a b; rm -rf /"}\n',
        b'{"type": "say", "text": "\\ud800"}\n',
        b"{" * 5000 + b"\n",
        b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"\n",
        b'{"n": ' + b"9" * 5000 + b"}\n",
        b"\n\r\n   \n",
    ],
)
def test_junk_changes_nothing(junk: bytes) -> None:
    agent = reader()
    after = [*agent.feed(junk), *agent.feed(line(type="say", text="on"))]
    shown = [one for one in after if one.kind is not ActionKind.OUTPUT]
    assert texts(shown) == [(ActionKind.MESSAGE, "on")]
    assert agent.session_id == ""
    assert (agent.usage.input_tokens, agent.usage.output_tokens, agent.usage.usd) == (None, None, None)
    assert not agent.counts.commands
    assert not agent.counts.files


def test_a_line_that_is_no_json_is_an_action_of_its_own() -> None:
    assert texts(read(reader(), b"Not logged in\n")) == [(ActionKind.OUTPUT, "Not logged in")]


def test_an_endless_line_takes_no_memory_and_the_next_one_is_read() -> None:
    agent = reader()
    tracemalloc.start()
    piece = b'{"type": "say", "text": "' + b"x" * (1 << 20)
    for _ in range(100):
        assert not list(agent.feed(piece))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * limits.AGENT_LINE.most + (4 << 20)
    assert texts(list(agent.feed(b'"}\n' + line(type="say", text="on")))) == [(ActionKind.MESSAGE, "on")]
    assert agent.counts.unread == 1


def test_pieces_of_a_message_without_end_take_no_memory() -> None:
    agent = reader()
    tracemalloc.start()
    for _ in range(40):
        assert not list(agent.feed(line(type="say", piece=True, text="x" * (1 << 20))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * limits.AGENT_LINE.most
    (said,) = agent.finish()
    assert len(said.text) < limits.AGENT_TEXT.most + 10


def test_pieces_make_one_message_before_the_next_action() -> None:
    agent = reader()
    data = line(type="say", piece=True, text="Hel") + line(type="say", piece=True, text="lo")
    found = list(agent.feed(data + line(type="run", id="1", command="ls")))
    assert texts(found) == [(ActionKind.MESSAGE, "Hello"), (ActionKind.COMMAND, "ls")]


def test_a_gap_drops_the_line_with_the_gap_alone() -> None:
    agent = reader()
    assert not list(agent.feed(b'{"type": "say", "te'))
    agent.skip()
    found = list(agent.feed(b'xt": "lie"}\n' + line(type="say", text="on")))
    assert texts(found) == [(ActionKind.MESSAGE, "on")]


def test_commands_that_never_end_and_files_without_number_are_bounded() -> None:
    agent = reader()
    for number in range(2 * limits.AGENT_COMMANDS.most):
        assert list(agent.feed(line(type="run", id=f"c{number}", command="sleep")))
    assert agent.counts.commands == 2 * limits.AGENT_COMMANDS.most
    for number in range(0, 1000, 10):
        files: Json = [{"name": f"f{number + each}", "added": 1} for each in range(10)]
        list(agent.feed(line(type="edit", files=files)))
    assert len(agent.counts.files) == limits.AGENT_FILES.most
    assert agent.counts.more_files == 1000 - limits.AGENT_FILES.most


def test_texts_are_cut_and_a_command_loses_the_shell_around_it() -> None:
    (action,) = read(reader(), line(type="run", id="1", command="/bin/bash -lc 'npm test'"))
    assert action.text == "npm test"
    (action,) = read(reader(), line(type="run", id="1", command="x" * 100_000))
    assert len(action.text) < limits.AGENT_TEXT.most + 10


def test_commands_without_an_id_and_those_reported_at_their_end_count_once() -> None:
    agent = reader()
    data = line(type="run", command="make") + line(type="ran", exit=2) + line(type="ran", id="7", command="ls", exit=0)
    assert [
        (action.kind, action.text, action.exit_code) for action in read(agent, data + line(type="ran", exit=1))
    ] == [
        (ActionKind.COMMAND, "make", None),
        (ActionKind.COMMAND_END, "make", 2),
        (ActionKind.COMMAND_END, "ls", 0),
    ]
    assert (agent.counts.commands, agent.counts.failed_commands) == (2, 1)


def test_an_edit_counts_lines_by_number_text_or_diff() -> None:
    files: Json = [
        {"name": "/workspace/a.py", "added": 3},
        {"name": "b.py", "added": "one\ntwo\n"},
        {"name": "c.py", "diff": "--- c.py\n+++ c.py\n@@\n-a\n+b\n+c\n"},
        {"name": "d.py", "diff": [{"lines": [" x", "-y", 5]}, "no hunk"]},
    ]
    edits = read(reader(), line(type="edit", files=files))
    assert [(edit.text, edit.added, edit.removed) for edit in edits] == [
        ("a.py", 3, None),
        ("b.py", 2, None),
        ("c.py", 2, 1),
        ("d.py", 0, 1),
    ]


def test_usage_is_summed_or_the_last_counts() -> None:
    data = line(type="used", cached=1, out=2, usd=0.5, **{"in": 10}) * 2
    for adds_up, expected in ((False, (22, 4, 1.0)), (True, (11, 2, 0.5))):
        agent = reader(adds_up=adds_up)
        read(agent, data)
        assert (agent.usage.input_tokens, agent.usage.output_tokens, agent.usage.usd) == expected


def test_an_error_is_forgotten_when_a_turn_ends_well_after_it() -> None:
    agent = reader()
    read(agent, line(type="done", text='{"error": {"message": "no money"}}', failed=True))
    assert agent.error == "no money"
    read(agent, line(type="done", text="fine", failed=False))
    assert agent.error == ""


def test_the_first_session_counts() -> None:
    agent = reader()
    read(agent, line(type="start", id="real") + line(type="start", id="forged"))
    assert agent.session_id == "real"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('Done.\n```json\n{"a": {"b": "}"}}\n```\n', '{"a": {"b": "}"}}'),
        ('See {x} and {"no": 1}: {"a": 1}', '{"a": 1}'),
        ('{"a": "cut o{"a": "cut off"}', '{"a": "cut off"}'),
        ('{"a": 1} and more', None),
        ("no JSON", None),
        ("}", None),
        ("{" * 100_000 + "}", None),
        ('{"a":' * 100_000 + "}", None),
    ],
)
def test_the_object_at_the_end_of_a_message_is_its_result(text: str, found: str | None) -> None:
    assert final_json(text) == (found.encode() if found else None)


def test_a_rule_reads_one_list() -> None:
    with pytest.raises(ValueError, match=r"rule 1 .* two lists: a\[\], b\[\]"):
        read_rules([{"match": {"a[].x": 1}, "as": "edit", "file": "b[].y"}])


def test_a_result_of_any_depth_is_read_or_counted() -> None:
    for depth in range(1, 1100):
        agent = reader()
        list(agent.feed(b'{"type": "done", "value": ' + b"[" * depth + b"]" * depth + b"}\n"))
        assert (agent.result() is None) == bool(agent.counts.unread)
    assert agent.counts.unread


def test_many_items_with_one_large_diff_take_little_longer_than_one() -> None:
    rules: list[dict[str, Json]] = [{"match": {"all[].type": "edit"}, "as": "edit", "file": "file", "diff": "diff"}]
    diff = "+a\n-b\n" * 20_000

    def seconds(count: int) -> float:
        agent = AgentReader(read_rules(rules))
        items: list[Json] = [{"type": "edit"}] * count
        began = time.process_time()
        assert len(read(agent, line(file="a", diff=diff, all=items))) == count
        assert agent.counts.files["a"].removed == 20_000 * count
        return time.process_time() - began

    assert min(seconds(500) for _ in range(3)) < 30 * max(seconds(1) for _ in range(3))
