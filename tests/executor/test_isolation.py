"""Where less isolation is forbidden, no path of a run leads to it; the record has the isolation of each command."""

from __future__ import annotations

from pathlib import Path

import msgspec.structs
import pytest

import pccpipe
from pccpipe import Fallback
from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import IsolationMode, Outcome, Place, Reason
from pccpipe.record.events import CommandStarted, Happening, StepDowngraded, StepEnded, TargetUnavailable, Warned
from pccpipe.record.run_events import RunStarted
from pccpipe.spec.project import load_project
from pccpipe.target import Command, Isolation
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Notes, Stage
from tests.record.script import events as stamped

NO_ENGINE = Unavailable(Reason.ENGINE_STOPPED, "connection refused")

# Each way that leads to a step's turn; `STEP` stands for the step whose container is missing.
PATHS = {
    "plain": "steps: [STEP]",
    "retry": "steps: [{..., retry: {attempts: 3, backoff: 0s}}]",
    "matrix": "steps: [{..., matrix: {n: [1, 2]}, max_parallel: 2}]",
    "repeat": "steps: [{id: again, repeat: {max: 2}, steps: [STEP]}]",
    "repeat, tried again": "steps: [{id: again, repeat: {max: 2}, retry: {attempts: 2, backoff: 0s}, steps: [STEP]}]",
    "parallel": "steps: [{id: both, parallel: [STEP]}]",
    "ignored": "steps: [{..., continue_on_error: true}]",
    "always": "steps: [{id: first, run: x}]\nalways: [STEP]",
    "always after a failure": 'steps: [{id: first, run: x, if: "1 / 0"}]\nalways: [STEP]',
    "defaults": "steps: [STEP]\ndefaults: {shell: bash, env: {A: b}}",
}
FORBIDDEN = ("no fallback", "step", "defaults")
"""Sources of the ban; the executor treats `--no-fallback` and the project's `isolation: required` alike."""


def pipeline(path: str, forbidden: str) -> str:
    required = ", isolation: required" if forbidden == "step" else ""
    step = f"id: a, on: container, container: box, run: x, fallback: {{on: local}}{required}"
    text = PATHS[path].replace("STEP", f"{{{step}}}").replace("...", step)
    if forbidden == "defaults":
        if "defaults:" in text:
            text = text.replace("defaults: {", "defaults: {isolation: required, ")
        else:
            text += "\ndefaults: {isolation: required}"
    return f'containers: {{box: {{image: "i"}}}}\n{text}\n'


def no_container(command: Command) -> Play:
    return Play(unavailable=NO_ENGINE) if command.container else Play()


@pytest.mark.parametrize("forbidden", FORBIDDEN)
@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_to_less_isolation_where_that_is_forbidden(stage: Stage, path: str, forbidden: str) -> None:
    stage.script = no_container
    stage.fallback_allowed = forbidden != "no fallback"
    played = stage.play(pipeline(path, forbidden))
    assert [began for began in played.order if began != "first@local"] == []
    assert not played.notes.of(StepDowngraded)
    ended = [end.outcome for end in played.notes.of(StepEnded) if end.step.rpartition(".")[2].startswith("a")]
    assert set(ended) == {Outcome.UNAVAILABLE}
    assert played.state.outcome is not Outcome.SUCCEEDED or path == "ignored"


@pytest.mark.parametrize("path", PATHS)
def test_the_same_paths_lead_to_the_fallback_where_it_is_allowed(stage: Stage, path: str) -> None:
    stage.script = no_container
    played = stage.play(pipeline(path, "nobody"))
    assert "local" in {began.partition("@")[2] for began in played.order if began != "first@local"}
    assert played.notes.of(StepDowngraded)


@pytest.mark.parametrize("required", [True, False])
def test_an_upload_stays_local_only_where_that_is_allowed(stage: Stage, required: bool) -> None:
    stage.vm_gone = Unavailable(Reason.SSH_REFUSED, "no")
    stage.fallback_allowed = required
    word = ", isolation: required" if required else ""
    played = stage.play(f"steps: [{{id: sync, upload: workspace, fallback: {{on: local}}{word}}}]")
    assert played.end_of("sync").outcome is Outcome.UNAVAILABLE
    assert not played.notes.of(StepDowngraded)


@pytest.mark.parametrize("life", range(1, 8))
def test_a_resumed_run_keeps_the_ban_on_fallbacks(stage: Stage, life: int) -> None:
    """A run that may not fall back does not do so on resume either, whatever its last event."""
    text = pipeline("retry", "no fallback")
    stage.script = no_container
    stage.fallback_allowed, stage.lost_after = False, 0.2
    whole = stage.play(text).notes.happenings
    begun: list[Happening] = [
        RunStarted("rehearsal-1", "r", "/p", "p", IsolationMode.VM, {}, "/w", ("a",), "0", "h", 1)
    ]
    kept = [*begun, *whole[:life]]
    rest = stage.play(text, Notes(), replay=Replay(stamped(kept)))
    assert rest.order == []
    assert not rest.notes.of(StepDowngraded)
    assert rest.state.outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize("fallback", [", fallback: {on: local}", ""])
def test_a_step_that_requires_its_container_does_not_run_where_the_project_has_none(
    stage: Stage, fallback: str
) -> None:
    stage.mode = IsolationMode.LOCAL
    text = 'containers: {box: {image: "i"}}\nsteps: [{id: a, on: container, container: box, run: x, isolation: required'
    played = stage.play(f"{text}{fallback}}}]")
    assert played.order == []
    (gone,) = played.notes.of(TargetUnavailable)
    assert gone.reason is Reason.ENGINE_MISSING
    assert "isolation_mode is local" in gone.words
    assert "isolation_mode: container" in gone.hint
    # Without `required`, the project's choice is not a downgrade.
    chosen = stage.play(f"{text.replace('isolation: required', 'isolation: preferred')}{fallback}}}]")
    assert chosen.order == ["a@local"]
    assert not chosen.notes.of(StepDowngraded)


def test_the_record_has_a_containers_settings_its_isolation_and_the_shortfall(stage: Stage) -> None:
    had = Isolation(
        Place.CONTAINER,
        "vm",
        "1000:1000",
        image="i",
        network="bridge",
        memory=4 << 30,
        pids=None,
        capabilities=(),
        security=("no-new-privileges", "seccomp=builtin"),
    )
    stage.script = lambda command: Play(had=had)
    played = stage.play('containers: {box: {image: "i"}}\nsteps: [{id: a, on: container, container: box, run: x}]')
    (started,) = played.notes.of(CommandStarted)
    assert started.had == had
    assert started.settings
    assert (started.settings.image, started.settings.pids) == ("i", 2048)
    assert played.notes.of(Warned) == [
        Warned("its container has less isolation than requested: pids unlimited instead of 2048", "a")
    ]
    stage.script = lambda command: Play(had=msgspec.structs.replace(had, pids=2048))
    assert not stage.play((stage.folder / "pipeline.yaml").read_text().partition("rehearsal\n")[2]).notes.of(Warned)


def test_the_record_has_the_settings_of_an_unavailable_container_too(stage: Stage) -> None:
    stage.script = no_container
    stage.play(pipeline("plain", "nobody"))
    gone, *_ = stage.play(pipeline("plain", "nobody")).notes.of(TargetUnavailable)
    assert gone.settings
    assert (gone.settings.image, gone.settings.network) == ("i", "bridge")


PROJECT = "id: p\nisolation_mode: container\n"
BUILDING = """
version: 1
name: building
containers: {box: {image: "i"}}
steps:
  - {id: sync, upload: workspace}
  - {id: a, on: container, container: box, run: "echo here >made", fallback: {on: local}, continue_on_error: true}
  - {id: image, build: {image: "i:1", context: .}}
"""


@pytest.mark.parametrize("forbidden", ["project", "argument", "nobody"])
def test_the_ban_of_the_project_or_the_caller_holds_for_the_whole_run_and_its_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    path, project = tmp_path / "pipeline.yaml", tmp_path / "project.yaml"
    path.write_text(BUILDING)
    project.write_text(PROJECT + ("isolation: required\n" if forbidden == "project" else ""))
    (tmp_path / "w").mkdir()

    allowed = Fallback.FORBIDDEN if forbidden == "argument" else Fallback.ALLOWED
    loaded, runs = load_project(project), tmp_path / "runs"
    done = pccpipe.run(
        pccpipe.load(path), run_id="one", project=loaded, workspace=tmp_path / "w", runs_dir=runs, fallback=allowed
    )
    # Its process is killed during that, and another one resumes the run.
    record = runs / "one" / "events.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    killed = next(number for number, line in enumerate(lines) if '"target_unavailable"' in line)
    record.write_text("".join(lines[: killed + 1]))
    resumed = pccpipe.resume("one", project=loaded, runs_dir=runs)
    for each in (done, resumed):
        assert each.state.steps["a"].outcome is (Outcome.SUCCEEDED if forbidden == "nobody" else Outcome.UNAVAILABLE)
        assert each.downgraded is (forbidden == "nobody")
        # Only the engine builds an image: there is no fallback.
        image = each.state.steps["image"]
        assert (image.outcome, image.reason) == (Outcome.UNAVAILABLE, Reason.ENGINE_MISSING)
