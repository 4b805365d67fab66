"""A step with `download:` in the walk: its paths, what is missing, and `required:`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, Outcome
from pccpipe.record.events import ActionDone
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Download
from tests.executor.rehearsal import Stage
from tests.executor.test_replay import began
from tests.record.script import events as stamped


def test_paths_and_what_to_leave_out_reach_the_workspace(stage: Stage) -> None:
    played = stage.play("""
        steps:
          - {id: a, download: dist/}
          - {id: b, download: ["*.whl", "${{ steps.a.outcome }}/*"]}
          - {id: c, download: {paths: "**/*.xml", exclude: ["*.map"]}}
    """)
    assert played.workspace.calls == [
        "download dist/",
        "download *.whl succeeded/*",
        "download **/*.xml !*.map",
    ]
    assert all("seconds" in done.facts for done in played.notes.of(ActionDone))


@pytest.mark.parametrize(("required", "outcome"), [(True, Outcome.FAILED), (False, Outcome.SUCCEEDED)])
def test_a_missing_file_fails_a_step_that_requires_it(stage: Stage, required: bool, outcome: Outcome) -> None:
    stage.missing = frozenset({"dist/*.whl"})
    played = stage.play(f"""
        steps:
          - {{id: a, download: {{paths: [report.xml, dist/*.whl], required: {str(required).lower()}}}}}
          - {{id: b, run: x}}
    """)
    end = played.end_of("a")
    assert end.outcome is outcome
    assert played.notes.of(ActionDone)[0].facts["missing"] == ["dist/*.whl"]
    assert ("b", "succeeded") in played.ends or required
    if required:
        assert end.code is Code.FILES_MISSING
        assert "'dist/*.whl'" in end.message
        assert "report.xml" not in end.message
        assert "fix: " in end.message


def test_a_step_that_requires_files_is_retried(stage: Stage) -> None:
    stage.missing = frozenset({"x"})
    played = stage.play("steps: [{id: a, download: {paths: x, required: true}, retry: {attempts: 3, backoff: 0}}]")
    assert played.workspace.calls.count("download x") == 3


def test_a_killed_download_is_repeated_as_a_whole(stage: Stage) -> None:
    text = "steps: [{id: a, download: {paths: [x], required: true}}]"
    whole = stage.play(text)
    stage.missing = frozenset({"x"})
    for life in range(len(whole.notes.happenings)):
        events = whole.notes.happenings[:life]
        resumed = stage.play(text, replay=Replay(stamped([began("a"), *events])))
        has_ended = any(getattr(event, "outcome", None) is Outcome.SUCCEEDED for event in events)
        assert resumed.state.outcome is (Outcome.SUCCEEDED if has_ended else Outcome.FAILED)


@pytest.mark.parametrize("given", ["/etc/passwd", "../x", "!x", "{a,b}"])
def test_an_expression_cannot_give_what_no_author_may_write(stage: Stage, given: str) -> None:
    text = """
        inputs: {path: {type: string}}
        steps: [{id: a, download: "${{ inputs.path }}"}]
    """
    end = stage.play(text, path=given).end_of("a")
    assert end.outcome is Outcome.FAILED
    assert end.message.startswith("download ")


@pytest.mark.parametrize("older", [True, False])
def test_the_record_of_an_earlier_version_knows_no_patterns(tmp_path: Path, older: bool) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("version: 1\nname: x\nsteps: [{id: a, download: ['dist/*.whl', 'x[1]']}]\n")
    (step,) = load_pipeline(path, older=older).steps
    assert isinstance(step.body, Download)
    assert step.body.by_name is older
