"""Background commands: they run beside the next steps, and end with their group."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pccpipe.executor.plan import make_plan
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, IsolationMode, Outcome
from pccpipe.record.events import BackgroundReady, CommandEnded, CommandStarted, InputGiven, StepEnded, StepStarted
from pccpipe.record.run_events import RunWaiting
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.project_model import Project, Vm
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play, says
from tests.executor.rehearsal import Notes, Played, Stage
from tests.executor.test_input_request import PLEA, report
from tests.executor.test_replay import began
from tests.record.script import events as stamped

SERVER = """
    steps:
      - {id: server, on: vm, background: true, run: serve, ready: {run: ask, every: 1s, timeout: 5s}}
      - {id: test, on: vm, run: test}
      - {id: more, on: vm, run: more}
    always:
      - {id: after, run: after}
"""


def plays(**scripts: Play) -> Callable[[Command], Play]:
    """Return a script by the step's id; the check of `server` is `ready`, and `server` itself lasts."""
    all_plays = {"server": Play(lasts=60), **scripts}

    def script(command: Command) -> Play:
        name = "ready" if command.id.endswith(".ready") else command.step
        return all_plays.get(name, Play())

    return script


def kinds(played: Played) -> list[str]:
    """Return the order of what happened, in words."""
    words: list[str] = []
    for what in played.notes.happenings:
        match what:
            case CommandStarted(step=step):
                words.append(f"{step} runs")
            case BackgroundReady(step=step):
                words.append(f"{step} is ready")
            case StepEnded(step=step, outcome=outcome):
                words.append(f"{step} {outcome}")
            case _:
                pass
    return words


def test_a_background_command_runs_beside_the_next_steps_and_ends_with_its_group(tmp_path: Path) -> None:
    played = Stage(tmp_path, plays()).play(SERVER)
    assert kinds(played) == [
        "server runs",
        "server is ready",
        "test runs",
        "test succeeded",
        "more runs",
        "more succeeded",
        "server succeeded",
        "after runs",
        "after succeeded",
    ]
    assert played.end_of("server").message == "ended with its group"
    (over,) = [end for end in played.notes.of(CommandEnded) if end.step == "server"]
    assert (over.with_group, over.signal) == (True, "TERM")
    assert not any(target.left for target in played.targets.values())
    assert [started.background for started in played.notes.of(StepStarted)] == [True, False, False, False]


def test_its_check_is_one_command_at_its_place(tmp_path: Path) -> None:
    played = Stage(tmp_path, plays()).play(SERVER)
    server, check = (
        command for target in played.targets.values() for command in target.commands if command.step == "server"
    )
    assert check.script == 'until sh -e -c ask; do echo "(exit code $?)" >&2; sleep 1; done\n'
    assert (check.id, check.cwd, check.env) == (f"{server.id}.ready", server.cwd, server.env)


def test_without_a_check_the_next_step_begins_at_once(tmp_path: Path) -> None:
    played = Stage(tmp_path, plays()).play(SERVER.replace(", ready: {run: ask, every: 1s, timeout: 5s}", ""))
    assert kinds(played)[:3] == ["server runs", "server is ready", "test runs"]


def test_a_command_that_fails_ends_the_group_after_the_running_step(tmp_path: Path) -> None:
    script = plays(server=Play(lasts=0.2, exit=Exit(3)), test=Play(lasts=0.6))
    played = Stage(tmp_path, script).play(SERVER)
    assert played.ends == [("server", "failed"), ("test", "succeeded"), ("after", "succeeded")]
    assert (played.state.outcome, played.state.message) == (Outcome.FAILED, "server failed: exit code 3")


def test_a_command_that_ends_well_by_itself_says_so(tmp_path: Path) -> None:
    script = plays(server=Play(lasts=0.2), test=Play(lasts=0.4))
    played = Stage(tmp_path, script).play(SERVER)
    assert played.state.outcome is Outcome.SUCCEEDED
    assert played.end_of("server").message == "it ended by itself, before its group"


def test_the_failure_of_an_ignored_one_ends_nothing(tmp_path: Path) -> None:
    script = plays(server=Play(lasts=0.1, exit=Exit(3)), test=Play(lasts=0.3))
    played = Stage(tmp_path, script).play(SERVER.replace("run: serve", "run: serve, continue_on_error: true"))
    assert played.state.outcome is Outcome.SUCCEEDED
    assert ("more", "succeeded") in played.ends


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (Play(exit=Exit(3)), "server failed: it ended before it was ready: exit code 3"),
        (Play(), "server failed: it ended before it was ready: exit code 0"),
        (Play(lasts=60), "server failed: not ready within 0.2 s; its check says: refused"),
    ],
)
def test_a_command_that_is_never_ready_fails_before_the_next_step(tmp_path: Path, server: Play, message: str) -> None:
    script = plays(server=server, ready=Play(lasts=60, output=(says("refused\n"),)))
    played = Stage(tmp_path, script).play(SERVER.replace("timeout: 5s", "timeout: 200ms"))
    assert (played.state.outcome, played.state.message) == (Outcome.FAILED, message)
    assert played.end_of("server").code is Code.NOT_READY
    assert "test@vm" not in played.order


def test_a_cancel_ends_it_as_all_others(tmp_path: Path) -> None:
    stage = Stage(tmp_path, plays(test=Play(lasts=60)))
    stage.on_event = lambda what: (
        stage.cancel.request() if isinstance(what, CommandStarted) and what.step == "test" else None
    )
    played = stage.play(SERVER)
    assert sorted(played.ends) == [("after", "succeeded"), ("server", "cancelled"), ("test", "cancelled")]
    assert played.state.outcome is Outcome.CANCELLED


def test_expressions_see_that_it_runs(tmp_path: Path) -> None:
    text = SERVER.replace(
        "run: test}", "run: 'test ${{ steps.server.outcome }}', if: steps.server.outcome == 'running'}"
    )
    played = Stage(tmp_path, plays()).play(text.replace("run: after", "run: 'after ${{ steps.server.outcome }}'"))
    scripts = [command.script for target in played.targets.values() for command in target.commands]
    assert {"test running", "after succeeded"} <= set(scripts)


def test_its_own_time_limit_ends_the_group(tmp_path: Path) -> None:
    played = Stage(tmp_path, plays(test=Play(lasts=0.5))).play(
        SERVER.replace("run: serve", "run: serve, timeout: 200ms")
    )
    assert played.state.outcome is Outcome.TIMED_OUT
    assert ("more", "succeeded") not in played.ends


def test_it_ends_with_the_round_of_a_repeat(tmp_path: Path) -> None:
    played = Stage(tmp_path, plays()).play(
        """
        steps:
          - id: rounds
            repeat: {max: 2}
            steps:
              - {id: server, on: vm, background: true, run: serve, ready: {run: ask}}
              - {id: test, on: vm, run: test}
        """
    )
    assert [end for end in played.ends if end[0] != "rounds"] == [
        ("rounds[1].test", "succeeded"),
        ("rounds[1].server", "succeeded"),
        ("rounds[2].test", "succeeded"),
        ("rounds[2].server", "succeeded"),
    ]


def test_too_many_at_once_are_refused(tmp_path: Path) -> None:
    many = "\n".join(f"      - {{id: s{n}, on: vm, background: true, run: serve}}" for n in range(5))

    def script(command: Command) -> Play:
        return Play(lasts=60) if command.script == "serve" else Play()

    played = Stage(tmp_path, script).play(f"    steps:\n{many}\n      - {{id: test, run: test}}\n")
    assert played.ends[0][0] == "s4"
    assert (
        "the background commands of a run at one place, at a time exceeds the limit of 4" in played.end_of("s4").message
    )


def test_no_container_step_waits_in_vain_for_a_background_command(tmp_path: Path) -> None:
    text = """
        containers: {box: {image: alpine}}
        steps:
          - {id: server, on: vm, background: true, run: serve}
          - {id: boxed, on: container, container: box, run: test}
        """
    with_account = Stage(tmp_path, plays(), run_as="pccrun").play(text)
    assert with_account.state.outcome is Outcome.FAILED
    assert "server runs on the VM in the background" in with_account.end_of("boxed").message
    assert Stage(tmp_path, plays()).play(text).state.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("run_as", [None, "pccrun"])
def test_the_plan_warns_of_a_container_step_beside_one(tmp_path: Path, run_as: str | None) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        """
version: 1
name: rehearsal
containers: {box: {image: alpine}}
steps:
  - {id: server, on: vm, background: true, run: serve}
  - {id: boxed, on: container, container: box, run: test}
always:
  - {id: late, on: container, container: box, run: test}
"""
    )
    project = Project("p", IsolationMode.VM, Vm("192.0.2.1", "pcc", run_as=run_as))
    warned = [words for words in make_plan(load_pipeline(path), project, {}).warnings if "beside" in words]
    assert warned == (["boxed will fail: with `run_as`, no container runs beside server"] if run_as else [])


def test_a_command_ends_while_the_run_waits_for_a_person_and_begins_again_with_the_answer(tmp_path: Path) -> None:
    def script(command: Command) -> Play:
        if command.step == "server" and not command.id.endswith(".ready"):
            return Play(lasts=60)
        if command.step == "build":
            return Play(files=report(PLEA if command.serial == 1 else ""))
        return Play()

    text = """
        steps:
          - {id: server, background: true, run: serve, ready: {run: ask}}
          - {id: build, run: build, result: {path: builder/result.json}}
          - {id: test, run: test}
        """
    stage = Stage(tmp_path, script)
    waiting = stage.play(text)
    assert isinstance(waiting.ending, RunWaiting)
    given = InputGiven("build", {"db_host": "db", "db_port": 1})
    record = [began(), *waiting.notes.happenings, waiting.ending, given]
    played = stage.play(text, Notes(), waiting.targets, Replay(stamped(record, time.time())))
    assert played.state.outcome is Outcome.SUCCEEDED
    words = [word for word in kinds(played) if word != "build succeeded"]
    assert words == ["server runs", "server is ready", "build runs", "test runs", "test succeeded", "server succeeded"]
