"""Steps with `workspace: own`: what they work in, what comes back, what a resumed run makes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.executor.replay import Replay
from pccpipe.outcome import Outcome, Place
from pccpipe.record.events import StepEnded
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Played, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began
from tests.record.script import events as stamped

UPLOAD = "- {id: up, upload: workspace}"
LEGS = f"""
steps:
  {UPLOAD}
  - {{id: legs, matrix: {{node: [18, ../20]}}, workspace: own, on: vm, run: "x"}}
  - {{id: after, on: vm, run: x}}
"""
GROUPS = f"""
steps:
  {UPLOAD}
  - id: legs
    matrix: {{node: [18, 20]}}
    workspace: own
    repeat: {{max: 1}}
    steps:
      - {{id: unit, on: vm, run: x}}
      - {{id: get, download: report.xml}}
  - id: both
    retry: {{attempts: 2, backoff: 0s}}
    parallel:
      - {{id: one, workspace: own, on: vm, run: x}}
      - {{id: two, on: vm, run: x}}
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def folders(played: Played) -> dict[str, str]:
    commands = played.targets[Place.VM].commands
    return {command.id: command.workspace for command in commands}


def test_each_leg_works_in_a_copy_and_no_value_of_a_matrix_is_a_path(stage: Stage) -> None:
    played = stage.play(LEGS)
    first, second, after = folders(played).values()
    assert after == ""
    assert first.startswith("/own/legs-node-18-")
    assert second.startswith("/own/legs-node-")
    assert second.count("/") == 2
    assert first != second
    assert sum(call.endswith(": end") for call in played.workspace.calls) == 2
    assert played.workspace.calls.index("touched vm") > max(
        index for index, call in enumerate(played.workspace.calls) if call.endswith(": end")
    )


def test_a_group_works_in_one_copy_and_its_downloads_have_a_folder_of_their_own(stage: Stage) -> None:
    played = stage.play(GROUPS)
    into = [call for call in played.workspace.calls if "download" in call]
    assert len(set(into)) == 2
    assert all(call.partition(": download into ")[0] == call.rpartition(" ")[2] for call in into)


def test_a_retried_group_gives_its_step_a_new_copy(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(1)) if command.id == "both.two-1" else Play()
    played = stage.play(GROUPS)
    assert [call for call in played.workspace.calls if call.startswith("own both")] == [
        "own both.one-1",
        "own both.one-2",
    ]


def test_only_the_work_of_an_agent_is_kept(stage: Stage) -> None:
    stage.secrets = {"KEY": "sk-123456"}
    played = stage.play(
        f"""
        secrets: {{KEY: {{from: env, via: proxy}}}}
        containers: {{box: {{image: x}}}}
        steps:
          {UPLOAD}
          - id: both
            parallel:
              - {{id: agent, workspace: own, on: container, container: box, secrets: [KEY], run: x}}
              - {{id: test, workspace: own, on: container, container: box, run: x}}
        """
    )
    assert {call for call in played.workspace.calls if call.startswith("own ")} == {
        "own both.agent-1 of an agent",
        "own both.test-1",
    }


@pytest.mark.parametrize("pipeline", [LEGS, GROUPS], ids=["legs", "groups"])
def test_a_resumed_run_works_in_the_same_copies(stage: Stage, pipeline: str) -> None:
    def script(command: Command) -> Play:
        return Play(exit=Exit(1)) if command.id == "both.two-1" else Play()

    stage.script = script
    whole = stage.play(pipeline)
    wanted = folders(whole)
    ends = {end.step: end.outcome for end in whole.notes.of(StepEnded)}
    assert set(ends.values()) == {Outcome.SUCCEEDED}
    for life in range(1, len(whole.notes.happenings)):
        notes, targets = MortalNotes(life), stage.targets()
        with pytest.raises(KilledError):
            stage.play(pipeline, notes, targets)
        events = stamped([began(), *notes.happenings])
        resumed = stage.play(pipeline, None, targets, Replay(events))
        assert folders(resumed) == wanted, f"killed after event {life}"
        # Each copy that a process may have made is asked to go, also if its step had ended.
        made = {folder.removeprefix("/own/") for folder in wanted.values() if folder}
        ended = {call.removesuffix(": end") for call in resumed.workspace.calls if call.endswith(": end")}
        assert made <= ended, f"killed after event {life}"
