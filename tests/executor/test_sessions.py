"""An agent's session goes on in the step's next turn, and a refused result goes back to its agent once."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, Outcome, Reason
from pccpipe.record.agent_events import RepairAsked
from pccpipe.record.events import CommandEnded, CommandStarted, RoundStarted, Warned
from pccpipe.target import PACKED, Command, Exit
from pccpipe.targets.dummy import Play, says
from tests.executor.rehearsal import Notes, Played, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began, what_began
from tests.record.script import events as stamped

ID, OTHER = "0199-aaaa", "0199-bbbb"
SECRET = "sk-a-key-in-a-transcript"
AGENTS = """
agents:
  one: {use: codex, model: m, secret: KEY}
  two: {use: codex, model: m, secret: KEY}
secrets: {KEY: {from: env}}
containers: {box: {image: "box:1"}}
"""
ROUNDS = f"""{AGENTS}
steps:
  - id: iterate
    repeat: {{max: 3, until: "steps.build.result.done"}}
    steps:
      - id: build
        on: container
        container: box
        agent: one
        prompt: {{text: "round ${{{{ iteration }}}}"}}
        session: builder
        result: {{path: "builder/iter-${{{{ iteration }}}}/result.json", schema: done.json}}
"""
SCHEMA = {"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"]}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    (tmp_path / "done.json").write_text(json.dumps(SCHEMA))
    return Stage(tmp_path, secrets={"KEY": SECRET})


def packed(*names: str, data: bytes = b"{}\n") -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", format=tarfile.GNU_FORMAT) as file:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return whole.getvalue()


def names_in(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        return file.getnames()


TRANSCRIPT = "2026/11/30/rollout-0199-aaaa.jsonl"


def turn(result: object = None, session: str = ID, archive: bytes | None = packed(TRANSCRIPT), code: int = 0) -> Play:
    """Play one turn of Codex: it reports its session, leaves a result, and its container packs the transcripts."""
    files: dict[str, bytes] = {}
    if result is not None:
        files["result.json"] = result if isinstance(result, bytes) else json.dumps(result).encode()
    if archive is not None:
        files[PACKED] = archive
    said = json.dumps({"type": "thread.started", "thread_id": session}) + "\n"
    return Play(output=(says(said),), exit=Exit(code), files=files)


def playing(*plays: Play) -> Callable[[Command], Play]:
    """Play these turns in order; the last one again and again."""
    of: dict[str, Play] = {}
    left = [*plays]

    def script(command: Command) -> Play:
        if command.id == "probe":
            return Play()
        if command.id not in of:
            of[command.id] = left.pop(0) if len(left) > 1 else left[0]
        return of[command.id]

    return script


def commands(played: Played) -> list[Command]:
    return [command for target in played.targets.values() for command in target.commands]


def warnings(played: Played) -> list[str]:
    return [warned.message for warned in played.notes.of(Warned)]


NOT_YET, DONE = {"done": False}, {"done": True}


def test_the_next_round_continues_the_session_of_the_round_before(stage: Stage) -> None:
    stage.script = playing(turn(NOT_YET), turn(NOT_YET), turn(DONE))
    played = stage.play(ROUNDS)
    first, second, third = commands(played)
    assert [command.env["PCC_SESSION"] for command in (first, second, third)] == ["", ID, ID]
    assert first.memory == b""
    assert names_in(second.memory) == [f".codex/sessions/{TRANSCRIPT}"]
    assert [event.session for event in played.notes.of(CommandStarted)] == ["", ID, ID]
    assert warnings(played) == []


def test_the_record_has_one_private_file_of_a_session(stage: Stage) -> None:
    stage.script = playing(turn(NOT_YET), turn(NOT_YET), turn(DONE))
    played = stage.play(ROUNDS)
    folder = played.run_dir / "sessions"
    (kept,) = folder.iterdir()
    assert (kept.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    last = played.notes.of(CommandEnded)[-1].session
    assert last
    assert (last.id, last.file) == (ID, f"sessions/{kept.name}")


def test_another_step_and_another_agent_begin_their_own_session(stage: Stage) -> None:
    step = "{{id: {}, on: container, container: box, agent: {}, prompt: {{text: go}}, session: s}}"
    stage.script = playing(turn())
    played = stage.play(f"{AGENTS}\nsteps: [{step.format('a', 'one')}, {step.format('b', 'one')}]")
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ""]


def test_a_step_without_a_session_starts_each_turn_cold_and_keeps_nothing(stage: Stage) -> None:
    stage.script = playing(turn(NOT_YET), turn(DONE))
    played = stage.play(ROUNDS.replace("session: builder", "timeout: 60s"))
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ""]
    assert not (played.run_dir / "sessions").exists()


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (packed("../../x.jsonl"), "name"),
        (packed("auth.json"), "login"),
        (b"no archive", "gzip"),
        (packed(TRANSCRIPT)[:-20], "ends in the middle"),
        (packed(TRANSCRIPT, data=SECRET.encode()), "secret"),
    ],
)
def test_an_odd_archive_starts_the_next_turn_cold_and_fails_nothing(stage: Stage, archive: bytes, why: str) -> None:
    stage.script = playing(turn(NOT_YET), turn(NOT_YET, archive=archive), turn(DONE))
    played = stage.play(ROUNDS)
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ID, ""]
    assert [command.memory != b"" for command in commands(played)] == [False, True, False]
    assert played.end_of("iterate").outcome is Outcome.SUCCEEDED
    (warned,) = warnings(played)
    assert "builder" in warned
    assert why in warned
    assert SECRET not in warned


def test_a_turn_that_left_no_archive_leaves_the_session_before_it(stage: Stage) -> None:
    stage.script = playing(turn(NOT_YET), turn(NOT_YET, archive=None), turn(DONE))
    assert [command.env["PCC_SESSION"] for command in commands(stage.play(ROUNDS))] == ["", ID, ID]


def test_a_session_that_the_agent_did_not_continue_is_reported(stage: Stage) -> None:
    stage.script = playing(turn(NOT_YET), turn(NOT_YET, session=OTHER), turn(DONE, session=OTHER))
    played = stage.play(ROUNDS)
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ID, OTHER]
    (warned,) = warnings(played)
    assert ID in warned
    assert OTHER in warned


def test_a_session_that_the_agent_cannot_continue_fails_one_attempt_only(stage: Stage) -> None:
    refused = Play(exit=Exit(1), files={PACKED: packed(TRANSCRIPT, data=b"damaged")})
    stage.script = playing(turn(NOT_YET), refused, turn(DONE))
    played = stage.play(
        ROUNDS.replace("session: builder", "session: builder\n        retry: {attempts: 2, backoff: 0s}")
    )
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ID, ""]
    assert played.end_of("iterate").outcome is Outcome.SUCCEEDED
    assert [warned for warned in warnings(played) if "starts cold" in warned]


@pytest.mark.parametrize("code", [1, 137])
def test_a_failure_after_the_session_went_on_leaves_it(stage: Stage, code: int) -> None:
    failed = turn(code=code) if code == 1 else Play(exit=Exit(code), files={PACKED: packed(TRANSCRIPT)})
    stage.script = playing(turn(NOT_YET), failed, turn(DONE))
    played = stage.play(
        ROUNDS.replace("session: builder", "session: builder\n        retry: {attempts: 2, backoff: 0s}")
    )
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ID, ID]


def test_a_fallback_gets_no_transcripts_and_says_so(stage: Stage) -> None:
    plays = playing(turn(NOT_YET), turn(DONE))
    away = Unavailable(Reason.IMAGE_MISSING, "no such image")

    def script(command: Command) -> Play:
        if command.container and command.serial > 1:
            return Play(unavailable=away)
        return plays(command)

    stage.script, stage.accepted = script, frozenset({"build"})
    played = stage.play(ROUNDS.replace("session:", "fallback: {on: local}\n        session:"))
    last = [command for command in commands(played) if command.container is None][-1]
    assert ("PCC_SESSION" in last.env, last.memory, last.keeps) == (False, b"", None)
    assert f"{ID}" not in last.script
    assert any("builder" in warned and "cold" in warned for warned in warnings(played))


def test_a_container_with_too_little_memory_for_a_session_starts_cold(stage: Stage) -> None:
    stage.script = playing(turn(NOT_YET, archive=packed(TRANSCRIPT, data=os.urandom(200_000))), turn(DONE))
    played = stage.play(ROUNDS.replace('"box:1"', '"box:1", memory: 1m'))
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ""]
    assert "memory" in warnings(played)[0]


def test_a_resumed_run_continues_the_session_of_the_last_recorded_attempt_and_repairs_once(stage: Stage) -> None:
    turns = (turn(NOT_YET), turn({"done": "perhaps"}), turn({"done": False}), turn(DONE))
    stage.script = playing(*turns)
    whole = stage.play(ROUNDS)
    sessions = [started.session for started in whole.notes.of(CommandStarted)]
    assert sessions == ["", ID, ID, ID]
    for life in range(len(whole.notes.happenings)):
        stage.script = playing(*turns)
        notes, targets = MortalNotes(life), stage.targets()
        with pytest.raises(KilledError):
            stage.play(ROUNDS, notes, targets)
        rest = Notes()
        rest.happenings = list(notes.happenings)
        replay = Replay(stamped([began(), *notes.happenings], time.time(), 0.001))
        resumed = stage.play(ROUNDS, rest, targets, replay)
        assert resumed.ending == whole.ending, f"killed after {life} events"
        assert [started.session for started in rest.of(CommandStarted)] == sessions, f"killed after {life} events"
        assert len(rest.of(RepairAsked)) == 1, f"killed after {life} events"
        assert what_began(resumed) == what_began(whole), f"killed after {life} events"


def test_a_session_whose_file_is_gone_starts_cold_and_says_so(stage: Stage) -> None:
    stage.script = playing(turn(NOT_YET), turn(DONE))
    kept = stage.folder / "run" / "sessions"
    stage.on_event = lambda event: shutil.rmtree(kept, ignore_errors=True) if isinstance(event, RoundStarted) else None
    played = stage.play(ROUNDS)
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ""]
    assert "cannot be read" in warnings(played)[0]


def test_a_result_against_its_schema_goes_back_to_the_same_session_with_its_errors(stage: Stage) -> None:
    stage.script = playing(turn({"done": "perhaps"}), turn(DONE))
    played = stage.play(ROUNDS)
    _, second = commands(played)
    prompt = second.files["prompt.md"].decode()
    assert "$.done" in prompt
    assert "round 1" not in prompt
    assert second.env["PCC_SESSION"] == ID
    (asked,) = played.notes.of(RepairAsked)
    assert (asked.attempt, asked.repair, asked.of) == (1, 1, 1)
    assert [ended.attempt for ended in played.notes.of(CommandEnded)] == [1, 1]
    assert played.end_of("iterate[1].build").outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("first", [b"All done!", b"[", None])
def test_a_result_that_is_no_json_or_is_missing_goes_back_too(stage: Stage, first: bytes | None) -> None:
    stage.script = playing(turn(first), turn(DONE))
    played = stage.play(ROUNDS)
    assert len(commands(played)) == 2
    assert played.end_of("iterate[1].build").outcome is Outcome.SUCCEEDED


def test_without_a_session_the_prompt_has_the_task_the_errors_and_the_refused_result(stage: Stage) -> None:
    stage.script = playing(turn({"done": "perhaps"}, archive=None), turn(DONE))
    _, second = commands(stage.play(ROUNDS))
    prompt = second.files["prompt.md"].decode()
    assert second.env["PCC_SESSION"] == ""
    assert all(words in prompt for words in ("round 1", "$.done", '"perhaps"'))


def test_a_step_without_a_session_name_is_repaired_in_its_session_and_forgets_it(stage: Stage) -> None:
    stage.script = playing(turn({"done": "perhaps"}), turn(NOT_YET), turn(DONE))
    played = stage.play(ROUNDS.replace("session: builder", "timeout: 60s"))
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ID, ""]


def test_a_group_that_is_retried_starts_a_session_without_a_name_cold(stage: Stage) -> None:
    stage.script = playing(turn({"done": "perhaps"}))
    text = ROUNDS.replace("session: builder", "timeout: 60s")
    played = stage.play(text.replace("max: 3", "max: 1").replace("    steps:", "    retry: {attempts: 2}\n    steps:"))
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ID, "", ID]


def test_a_record_that_cannot_take_a_session_starts_it_cold_and_fails_nothing(stage: Stage) -> None:
    (stage.folder / "run").mkdir()
    (stage.folder / "run" / "sessions").touch()
    stage.script = playing(turn(NOT_YET), turn(DONE))
    played = stage.play(ROUNDS)
    assert [command.env["PCC_SESSION"] for command in commands(played)] == ["", ""]
    assert played.end_of("iterate").outcome is Outcome.SUCCEEDED
    assert "cannot be written" in warnings(played)[0]


def test_a_result_is_repaired_no_more_often_than_the_step_says(stage: Stage) -> None:
    stage.script = playing(turn({"done": "perhaps"}))
    for repair, asked in ((None, 1), (0, 0), (3, 3)):
        text = ROUNDS if repair is None else ROUNDS.replace("session:", f"repair: {repair}\n        session:")
        played = stage.play(text)
        assert len(played.notes.of(RepairAsked)) == asked
        end = played.end_of("iterate[1].build")
        assert (end.outcome, end.code) == (Outcome.FAILED, Code.BAD_RESULT)


@pytest.mark.parametrize(
    "play",
    [
        turn({"done": SECRET}),
        turn({"done": "perhaps"}, code=1),
    ],
)
def test_a_result_with_a_secret_or_of_a_failed_agent_is_not_repaired(stage: Stage, play: Play) -> None:
    stage.script = playing(play, turn(DONE))
    played = stage.play(ROUNDS)
    assert played.notes.of(RepairAsked) == []
    assert len(commands(played)) == 1


def test_a_cancelled_run_asks_no_agent_again(stage: Stage) -> None:
    stage.script = playing(turn({"done": "perhaps"}), turn(DONE))
    stage.on_event = lambda event: stage.cancel.request("INT") if isinstance(event, CommandEnded) else None
    assert len(commands(stage.play(ROUNDS))) == 1
