from __future__ import annotations

import json
import time
from pathlib import Path

from pccpipe.layout import RUN_JSON
from pccpipe.outcome import Outcome, Place, Reason
from pccpipe.record.events import Happening, RoundStarted, StepEnded, StepStarted, Warned
from pccpipe.record.journal import Journal
from pccpipe.record.run_events import RunEnded
from pccpipe.record.state import RunState, load_state
from pccpipe.record.state_file import WRITE_EVERY, StateFile
from tests.growth import is_linear
from tests.record.script import BOXED, DIGEST, LOCAL, WORDS, default_run, downgraded, events, ran, started


def fold(happenings: list[Happening]) -> RunState:
    state = RunState()
    for event in events(happenings):
        state.apply(event)
    return state


def test_the_state_has_the_end_of_each_step_and_its_real_place() -> None:
    state = fold(default_run())
    assert (state.outcome, state.status, state.downgraded) == (Outcome.SUCCEEDED, "succeeded", True)
    assert state.steps["iterate[1].build"].had == BOXED
    assert state.steps["iterate[1].test"].ignored
    assert state.steps["iterate[1].review"].outcome is Outcome.SKIPPED
    assert [attempt.outcome for attempt in state.steps["baseline"].attempts] == [Outcome.FAILED, Outcome.SUCCEEDED]
    review = state.steps["iterate[2].review"]
    reasons = [attempt.unavailable and attempt.unavailable.reason for attempt in review.attempts]
    assert reasons == [Reason.ENGINE_PERMISSION_DENIED, None]
    assert (review.asked, review.had) == (Place.CONTAINER, LOCAL)
    assert state.warnings == ["the disk is nearly full"]


def test_run_json_has_the_names_that_a_server_reads() -> None:
    data = fold(default_run()).to_json()
    assert json.loads(json.dumps(data)) == data
    assert (data["run_id"], data["pipeline"], data["isolation_mode"]) == ("r1", "default-run", "vm")
    assert data["started_at"] == "2023-11-14T22:13:20.000+00:00"
    assert data["downgrades"] == [
        {
            "step": "iterate[2].review",
            "asked": "container",
            "had": "local",
            "reason": "engine_permission_denied",
            "words": WORDS,
        }
    ]
    assert isinstance(data["steps"], list)
    steps = {step["path"]: step for step in data["steps"] if isinstance(step, dict)}
    build = steps["iterate[1].build"]
    assert (build["id"], build["kind"], build["outcome"], build["asked"]) == ("build", "run", "succeeded", "container")
    assert isinstance(build["had"], dict)
    assert build["had"]["image_digest"] == DIGEST
    assert isinstance(build["attempts"], list)
    assert isinstance(build["attempts"][0], dict)
    assert build["attempts"][0]["exit_code"] == 0
    assert build["attempts"][0]["stdout"] == "logs/iterate[1].build-1.stdout.log"
    assert steps["iterate[2].review"]["result"] == {"status": "approved"}
    assert data["artifacts"] == [
        {"step": "collect", "action": "download", "files": 1, "bytes": 9, "missing": [], "refused": ["x: a link"]}
    ]


def test_an_unavailable_step_has_the_words_of_the_target() -> None:
    tried = downgraded("review")[:2]
    end = StepEnded("review", Outcome.UNAVAILABLE, 1.0, reason=Reason.ENGINE_PERMISSION_DENIED)
    step = fold([started("review"), *tried, end]).steps["review"].entry()
    assert (step.reason, step.words) == (Reason.ENGINE_PERMISSION_DENIED, WORDS)
    assert step.hint == "sudo usermod -aG docker pcc"


def test_a_step_of_a_retried_group_starts_with_an_empty_state() -> None:
    first = ran("g.a", LOCAL, Place.LOCAL, code=3)
    state = fold([started("g"), StepStarted("g", "parallel"), *first, StepStarted("g.a", "run", Place.LOCAL)])
    assert state.steps["g.a"].outcome is None
    assert state.steps["g.a"].attempts == []


def test_unreadable_events_are_counted() -> None:
    state = RunState()
    scripted = events(default_run())
    for event in [event for event in scripted if event.seq not in {3, 4}]:
        state.apply(event)
    assert state.unread == 2


def test_run_json_exists_at_once_and_is_complete_at_the_end(tmp_path: Path) -> None:
    state_file = StateFile(tmp_path)
    scripted = events(default_run())
    state_file(scripted[0])
    assert json.loads((tmp_path / RUN_JSON).read_text())["status"] == "running"
    for event in scripted[1:]:
        state_file(event)
    assert json.loads((tmp_path / RUN_JSON).read_text()) == state_file.state.to_json()
    assert [path.name for path in tmp_path.iterdir()] == [RUN_JSON]


def test_run_json_catches_up_when_no_event_follows(tmp_path: Path) -> None:
    state_file = StateFile(tmp_path)
    for event in events([started("a"), StepStarted("a", "run"), Warned("last")]):
        state_file(event)
    until = time.monotonic() + 10
    while json.loads((tmp_path / RUN_JSON).read_text())["warnings"] != ["last"]:
        assert time.monotonic() < until
        time.sleep(WRITE_EVERY / 10)


def test_the_state_is_folded_from_the_journal(tmp_path: Path) -> None:
    state_file = StateFile(tmp_path / "r1")
    journal = Journal.create(tmp_path / "r1", [state_file])
    for happening in default_run():
        journal.append(happening)
    journal.close()
    assert load_state(tmp_path / "r1").to_json() == state_file.state.to_json()
    assert json.loads((tmp_path / "r1" / RUN_JSON).read_text()) == state_file.state.to_json()


def test_many_steps_cost_linear_time(tmp_path: Path) -> None:
    def read(steps: int) -> None:
        state_file = StateFile(tmp_path)
        happenings: list[Happening] = [started("g"), RoundStarted("g", 1, 1)]
        for number in range(steps):
            happenings += ran(f"g[1].s{number}", LOCAL, Place.LOCAL)
        for event in events([*happenings, RunEnded(Outcome.SUCCEEDED, "succeeded", False, 1.0)]):
            state_file(event)

    assert is_linear(read, 500)
