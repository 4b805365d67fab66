from __future__ import annotations

import re
from pathlib import Path

import msgspec.structs
import pytest

from pccpipe.outcome import Code, Outcome, Place, Reason
from pccpipe.record.agent_events import ModelUsed
from pccpipe.record.events import (
    CommandStarted,
    Happening,
    Output,
    SecretsGiven,
    StepDowngraded,
    StepEnded,
    StepStarted,
    TargetUnavailable,
    Warned,
)
from pccpipe.record.run_events import RunEnded
from pccpipe.record.state import RunState
from pccpipe.target import Isolation
from pccpipe.views.show import show_text
from pccpipe.views.summary import downgrades
from pccpipe.views.words import reason_text
from tests.record.script import BOXED, WORDS, default_run, events, failed_run, started


def shown(count: int | None = None) -> str:
    state = RunState()
    for event in events(default_run()[:count]):
        state.apply(event)
    return "\n".join(show_text(state, Path("runs/r1")))


def test_each_step_says_what_it_really_had() -> None:
    text = shown()
    assert "had: container pcc-runner:latest on 10.0.0.2, user 1000:1000" in text
    assert "memory 4g, cpus 2, pids 1000" in text
    assert "attempt 1: unavailable: no permission to use the Docker Engine (engine_permission_denied): " + WORDS in text
    assert "attempt 2: had: local" in text
    assert 'result: reviewer/result.json: {"status": "approved"}' in text
    assert "logs: logs/iterate[2].review-2.stdout.log" in text
    assert "review: skipped" in text


def test_the_engines_account_says_what_isolated_a_step() -> None:
    lines = [line.strip() for line in shown().splitlines()]
    build = lines.index("build: succeeded in 2.0s", lines.index("round 2 of 3") if "round 2 of 3" in lines else 0)
    assert lines[build + 1 : build + 9] == [
        "asked for: container pcc-runner:latest, network host, memory 4g, cpus 2, pids 1000",
        "loosened by the pipeline: network: host",
        "had: container pcc-runner:latest on 10.0.0.2, user 1000:1000, name pcc-run-r1-build-1, image "
        "sha256:abababababab, network host, memory 4g, cpus 2, pids 1000, workspace /workspace",
        "capabilities none; no-new-privileges, seccomp=builtin",
        "runtime runc, init, root file system writable",
        "shared with 10.0.0.2: network",
        "mount /home/project/ws:/workspace:rw",
        "mount tmpfs:/pcc/home:rw,nosuid,nodev",
    ]
    baseline = lines.index("attempt 1: had: vm 10.0.0.2, user pcc, workspace /home/project/ws")
    assert lines[baseline + 1] == "ran on the VM directly, in no container, as pcc, who may use Docker (so: as root)"


def test_a_code_follows_the_words() -> None:
    state = RunState()
    happenings: list[Happening] = [
        *(started("a", "b"), StepStarted("a", "run", Place.VM), Warned("the end of its output is lost", "a")),
        StepEnded("a", Outcome.SUCCEEDED, 1.0, 0, code=Code.OUTPUT_LOST),
        StepStarted("b", "run", Place.VM),
        StepEnded("b", Outcome.FAILED, 1.0, 0, message="r.json is empty", code=Code.NO_RESULT),
        RunEnded(Outcome.FAILED, "failed", seconds=2.0, message="b failed: r.json is empty", code=Code.NO_RESULT),
    ]
    for event in events(happenings):
        state.apply(event)
    lines = show_text(state, Path("/runs/r1"))
    assert lines[0].endswith(": b failed: r.json is empty (no_result)")
    assert "  a: succeeded in 1.0s (output_lost)" in lines
    assert "  b: failed in 1.0s: r.json is empty (no_result)" in lines
    assert "warning: a: the end of its output is lost" in lines


def test_the_user_outside_of_a_container_has_a_name() -> None:
    state = RunState()
    had = Isolation(Place.VM, "10.0.0.2", "1000:1000", workspace="/ws", engine_at_hand=True, login="pcc")
    here = Isolation(Place.LOCAL, "localhost", "0:0", login="root\x1b[31m")
    happenings: list[Happening] = [
        *(started("a"), StepStarted("a", "run", Place.VM), CommandStarted("a", 1, "a-1", had, "out", "err")),
        *(StepStarted("b", "run", Place.LOCAL), CommandStarted("b", 1, "b-1", here, "out", "err")),
    ]
    for event in events(happenings):
        state.apply(event)
    text = "\n".join(show_text(state, Path("/runs/r1")))
    assert "had: vm 10.0.0.2, user pcc (1000:1000), workspace /ws" in text
    assert "directly, in no container, as pcc (1000:1000), who may use Docker (so: as root)" in text
    assert "\x1b[31m" not in text


def test_secrets_and_the_use_of_a_model_are_shown() -> None:
    state = RunState()
    happenings: list[Happening] = [
        started("a"),
        StepStarted("a", "run", Place.CONTAINER),
        SecretsGiven("a", 1, {"KEY": "proxy", "OTHER": "direct"}, {"KEY": "ab" * 32}),
        CommandStarted("a", 1, "a-1", BOXED, "out", "err"),
        ModelUsed("a", 1, 0, 100, 20, 30, 0, 500),
        ModelUsed("a", 3, 1, 400, 20, 90, 60, 500),
    ]
    for event in events(happenings):
        state.apply(event)
    text = "\n".join(show_text(state, Path("runs/r1")))
    assert "secrets: KEY proxy, OTHER direct" in text
    assert "model: 3 calls, 400 tokens in (20 cached), 90 out, 60 by size, of at most 500, then refused" in text


def test_the_isolation_of_a_run_is_shown_above_its_steps() -> None:
    line = next(line for line in shown().splitlines() if line.startswith("  ran:"))
    words = " ".join(line.split())
    assert "2 in a container" in words
    assert "on the VM in no container" in words
    assert "less than asked for: iterate[2].review; loosened: iterate[1].build, iterate[2].build" in words
    assert "  ran:" not in shown(2)


def test_a_running_run_shows_running_steps_and_steps_to_come() -> None:
    text = shown(16)
    assert "run r1 running" in text
    assert "build: run, running since" in text
    assert "clean: did not begin" in text


def test_a_failed_run_names_a_log_that_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = RunState()
    for event in events(failed_run()):
        state.apply(event)
    record = tmp_path / ".system/runs/r1"
    (record / "logs").mkdir(parents=True)
    assert "to see why" not in "\n".join(show_text(state, record))
    (record / "logs/test-1.stderr.log").write_text("why\n")
    assert "to see why: pccpipe logs r1 test" in show_text(state, record)
    monkeypatch.chdir("/")
    assert f"to see why: pccpipe logs --runs-dir {record.parent} r1 test" in show_text(state, record)


def test_each_reason_has_words_before_its_code() -> None:
    for reason in Reason:
        words = reason_text(reason)
        assert re.fullmatch(rf".*[a-z].* \({reason.value}\)", words), reason
        assert "_" not in words.removesuffix(f" ({reason.value})").replace("run_as", "")


def test_the_terminal_obeys_nothing_that_an_agent_wrote() -> None:
    evil = "\x1b]0;own\x07\u202e"
    state = RunState()
    happenings: list[Happening] = [
        msgspec.structs.replace(what, result={"status": evil}, message=evil) if isinstance(what, StepEnded) else what
        for what in default_run()
        if not isinstance(what, Output)
    ]
    for event in events(happenings):
        state.apply(event)
    text = "\n".join(show_text(state, Path("runs/r1")))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text


def test_an_unavailable_fallback_is_not_shown_as_had() -> None:
    state = RunState()
    happenings: list[Happening] = [
        started("work"),
        StepStarted("work", "run", Place.VM),
        TargetUnavailable("work", 1, Place.VM, Reason.SSH_REFUSED, "refused"),
        StepDowngraded("work", Place.VM, Place.LOCAL, Reason.SSH_REFUSED, "refused"),
        TargetUnavailable("work", 2, Place.LOCAL, Reason.SHELL_MISSING, "no sh"),
        StepEnded("work", Outcome.UNAVAILABLE, 0.1, reason=Reason.SHELL_MISSING),
    ]
    for event in events(happenings):
        state.apply(event)
    text = "\n".join(downgrades(state))
    assert text.startswith("DOWNGRADED work: asked for vm, fell back to local and began nowhere:")
