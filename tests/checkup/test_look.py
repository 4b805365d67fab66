"""The doctor's way of running checks, and its checks of this machine."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest

import pccpipe
from pccpipe.checkup.check import (
    Check,
    CheckResult,
    CheckVerdict,
    DoctorReport,
    Finding,
    Fix,
    FixResult,
    ok,
    warning,
    wrong,
)
from pccpipe.checkup.checks import agent, all_checks
from pccpipe.checkup.context import CONTEXT, CheckContext, CheckupOptions
from pccpipe.checkup.doctor import run_checks
from pccpipe.docker_api.image import content_of
from pccpipe.errors import Unavailable
from pccpipe.outcome import IsolationMode, Reason
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Run
from pccpipe.spec.project_model import Project
from pccpipe.views.checkup import LiveCheckup, report_lines
from tests.cli.command import Folder
from tests.testbed.engine import Engine
from tests.testbed.model import ModelServer
from tests.views.screen import Screen


@pytest.fixture
def context(tmp_path: Path) -> CheckContext:
    return CheckContext(
        CheckupOptions(Project("p", IsolationMode.LOCAL), tmp_path / ".system/runs", "http://127.0.0.1:9/v1", "")
    )


def check(name: str, finding: Finding, *needs: str, limit: float = 20.0, seconds: float = 0.0) -> Check:
    def look_at(_: CheckContext) -> Finding:
        time.sleep(seconds)
        return finding

    return Check(name, look_at, needs, limit)


def test_checks_that_need_a_wrong_one_are_skipped_and_a_warning_stops_nothing(context: CheckContext) -> None:
    checks = [
        check("a", wrong("broken")),
        check("b", ok("fine"), "a"),
        check("c", ok("fine"), "b"),
        check("d", warning("slow")),
        check("e", ok("fine"), "d"),
    ]
    results = run_checks(checks, context)
    assert [each.name for each in results] == ["a", "b", "c", "d", "e"]
    verdicts = [each.finding.verdict for each in results]
    assert verdicts == [
        CheckVerdict.WRONG,
        CheckVerdict.SKIPPED,
        CheckVerdict.SKIPPED,
        CheckVerdict.WARNING,
        CheckVerdict.OK,
    ]
    assert results[2].finding.words == "skipped until b is ok"


def test_checks_that_wait_for_the_same_one_share_a_line_that_names_it(context: CheckContext) -> None:
    checks = [check("host-key", wrong("it changed")), check("login", ok("fine"), "host-key")]
    checks += [check(f"of-{number}", ok("fine"), "login") for number in range(20)]
    lines = [
        "".join(text for text, _ in line)
        for line in report_lines(DoctorReport("the VM", tuple(run_checks(checks, context))))
    ]
    assert lines == [
        "the VM",
        "WRONG    host-key       it changed",
        "-        21 checks skipped until host-key is ok",
        "",
        "1 wrong, 0 warnings",
    ]


def test_checks_run_side_by_side_and_a_hanging_check_ends_at_its_limit(
    context: CheckContext,
) -> None:
    began = time.monotonic()
    hangs = check("hangs", ok("too late"), limit=0.5, seconds=5)
    results = run_checks([*(check(str(number), ok("fine"), seconds=0.3) for number in range(4)), hangs], context)
    assert time.monotonic() - began < 1.2
    assert results[4].finding == wrong("no answer in 0.5 s")
    assert all(each.finding.verdict is CheckVerdict.OK for each in results[:4])


def test_a_checks_error_is_a_finding_and_an_internal_error_is_raised(context: CheckContext) -> None:
    def unavailable(_: CheckContext) -> Finding:
        raise Unavailable(Reason.START_REFUSED, "no more containers", "docker rm")

    def cut(_: CheckContext) -> Finding:
        raise ConnectionResetError("the SSH connection ended")

    def own(_: CheckContext) -> Finding:
        raise KeyError("x")

    results = run_checks([Check("unavailable", unavailable), Check("cut", cut)], context)
    assert results[0].finding == wrong("start_refused: no more containers; docker rm")
    assert results[1].finding == wrong("the SSH connection ended")
    with pytest.raises(KeyError):
        run_checks([Check("own", own)], context)


def test_a_question_of_several_checks_is_asked_once(context: CheckContext) -> None:
    asked: list[int] = []

    def ask() -> int:
        time.sleep(0.05)
        asked.append(1)
        return len(asked)

    threads = [threading.Thread(target=context.once, args=("x", ask)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(asked), context.once("x", ask)) == (1, 1)
    context.forget()
    assert context.once("x", ask) == 2


@pytest.mark.parametrize("mode", IsolationMode)
def test_every_check_needs_only_existing_checks_before_it(mode: IsolationMode) -> None:
    known: set[str] = set()
    for each in all_checks(mode):
        assert each.name not in known
        known.add(each.name)
    for each in all_checks(mode):
        assert set(each.needs) <= known - {each.name}, each


def test_provision_builds_the_image_from_all_files_that_the_doctor_compares() -> None:
    pipeline = load_pipeline(CONTEXT.parent / "pipelines" / "provision.yaml")
    body = next(step.body for step in pipeline.steps if step.id == "image")
    assert isinstance(body, Run)
    assert {file.name for file in body.files} == {path.name for path in CONTEXT.iterdir()}


def test_an_images_content_changes_with_every_byte_and_name(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    first = content_of(tmp_path)
    (tmp_path / ".hidden").write_text("no part of it")
    assert content_of(tmp_path) == first
    (tmp_path / "Dockerfile").write_text("FROM y\n")
    second = content_of(tmp_path)
    (tmp_path / "Dockerfile").rename(tmp_path / "Containerfile")
    assert len({first, second, content_of(tmp_path)}) == 3


def test_the_live_view_fills_in_each_check_and_leaves_the_whole_report() -> None:
    stream = io.StringIO()
    screen = Screen(70, 12)
    view = LiveCheckup(stream, ["ssh", "engine", "image"])
    fine = CheckResult("ssh", ok("it answers"))
    view.checked(fine)
    screen.feed(stream.getvalue())
    assert screen.lines == ["ok       ssh            it answers", "…        engine", "…        image"]
    fix = Fix("sudo service docker start", is_safe=True)
    results = (
        fine,
        CheckResult("engine", wrong("it does not run\x1b]0;x\x07", fix)),
        CheckResult("image", ok("it is there")),
    )
    for each in results[1:]:
        view.checked(each)
    view.fixed(FixResult("engine", fix.command, "no such service", False))
    view.close(DoctorReport("the VM", results, on_vm=True))
    final = Screen(100, 20)
    final.feed(stream.getvalue())
    assert final.lines == [
        "NOT fixed  engine: sudo service docker start: no such service",
        "the VM",
        "ok       ssh            it answers",
        "WRONG    engine         it does not run\\x1b]0;x\\x07",
        "         fix on the VM: sudo service docker start",
        "ok       image          it is there",
        "",
        "1 wrong, 0 warnings; fix all that is safe to fix: pccpipe doctor --fix",
    ]


def codex(folder: Path, version: str, sandbox: str) -> str:
    """Make a program of that name; returns a PATH that has it."""
    path = folder / "codex"
    path.write_text(f'#!/bin/sh\ncase "$1" in --version) echo "codex-cli {version}" ;; sandbox) {sandbox} ;; esac\n')
    path.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("version", "sandbox", "verdict", "words"),
    [
        (agent.pinned_version(), "exit 0", CheckVerdict.OK, f"Codex {agent.pinned_version()}"),
        ("0.1.0", "exit 0", CheckVerdict.WARNING, f"pccpipe is tested with {agent.pinned_version()}"),
        ("0.1.0", "echo 'bwrap: No permissions (userns)' >&2; exit 1", CheckVerdict.WRONG, "(bwrap: No permissions"),
    ],
)
def test_codex_on_this_machine_and_its_sandbox(
    context: CheckContext,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    version: str,
    sandbox: str,
    verdict: CheckVerdict,
    words: str,
) -> None:
    monkeypatch.setenv("PATH", codex(tmp_path, version, sandbox))
    finding = agent.codex_here(context)
    assert finding.verdict is verdict, finding
    assert words in finding.words


def test_a_local_project_learns_what_this_machine_lacks(tmp_path: Path) -> None:
    with ModelServer(key="k") as model:
        env = {"OPENAI_API_KEY": "k", "PATH": codex(tmp_path, agent.pinned_version(), "exit 0")}
        done = Folder(tmp_path).do("doctor", "--endpoint", f"{model.url}/v1", env=env)
        assert done.code == 0, done
        assert "this machine (isolation_mode local)" in done.stdout
        assert "engine" not in done.stdout
        env["PATH"] = "/usr/bin:/bin"
        done = Folder(tmp_path).do("doctor", "--endpoint", f"{model.url}/v1", env={**env, "OPENAI_API_KEY": "a b"})
    assert done.code == 1, done
    assert "WRONG    codex-here     there is no codex on this machine" in done.stdout
    assert f"npm install -g @openai/codex@{agent.pinned_version()}" in done.stdout
    assert "WRONG    key            OPENAI_API_KEY has a character that no key has" in done.stdout
    assert "a b" not in done.stdout + done.stderr
    wrong_usage = Folder(tmp_path).do("doctor", "--endpoint", "localhost:80")
    assert (wrong_usage.code, "invalid endpoint" in wrong_usage.stderr) == (2, True)


def test_a_key_does_not_follow_a_redirection(context: CheckContext, tmp_path: Path) -> None:
    import http.server

    asked: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization"))
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        options = CheckupOptions(
            context.options.project, tmp_path, f"http://127.0.0.1:{server.server_address[1]}/v1", "k"
        )
        finding = agent.key(CheckContext(options))
        server.shutdown()
    assert finding.verdict is CheckVerdict.WARNING
    assert "answers 302" in finding.words
    assert asked == ["Bearer k"]


def test_in_mode_container_this_machines_engine_is_checked(
    local_engine: Engine, model: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", local_engine.url)
    project = Project("p", IsolationMode.CONTAINER)
    runs = tmp_path / ".system/runs"

    def doctor() -> DoctorReport:
        return pccpipe.doctor(project=project, runs_dir=runs, endpoint=f"{model.url}/v1", key=model.key or "")

    report = doctor()
    assert report["container"].verdict is CheckVerdict.OK, report
    assert report["codex"].verdict is CheckVerdict.OK
    assert report["endpoint"].verdict is CheckVerdict.OK
    assert {each.name for each in report.checks} & {"ssh", "login", "lease"} == set()
    assert local_engine.docker("ps", "-aq", "--filter", "label=pccpipe.run") == ""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    report = doctor()
    assert report["engine-running"].verdict is CheckVerdict.WRONG
    assert report["container"].verdict is CheckVerdict.SKIPPED
    assert report.exit_status == 1
