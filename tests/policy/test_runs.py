"""A policy while runs begin and are resumed: inputs, sources of secrets, records that were tampered with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

import pccpipe
from tests.cli.command import Folder

HERE = pccpipe.Policy.untrusted(places=[pccpipe.Place.LOCAL])
"""A policy by which local steps may run: it needs no VM to try it."""
STEP = "  - {id: a, on: local, run: echo hello}\n"
SECRET = "secrets: {K: {from: env, name: SERVER_DB_PASSWORD}}\n"
DIRECT = pccpipe.SecretRule(via="direct")


def text(steps: str = STEP, more: str = "") -> str:
    return f"version: 1\nname: x\n{more}steps:\n{steps}"


def test_a_policy_is_held_when_only_run_knows_it(tmp_path: Path) -> None:
    pipeline = pccpipe.load(text())
    with pytest.raises(pccpipe.PolicyRefused, match="a step `on: local`"):
        pccpipe.run(pipeline, run_id="r1", policy=pccpipe.Policy.untrusted(), runs_dir=tmp_path, workspace=tmp_path)
    assert list(tmp_path.iterdir()) == []
    result = pccpipe.run(pipeline, run_id="r1", policy=HERE, runs_dir=tmp_path, workspace=tmp_path)
    assert result.outcome is pccpipe.Outcome.SUCCEEDED


def test_a_callers_secret_comes_from_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_DB_PASSWORD", "the-servers-own-password")
    steps = "  - {id: a, on: local, secrets: [K], run: 'printf %s \"$K\" | rev'}\n"
    policy = pccpipe.Policy.untrusted(places=[pccpipe.Place.LOCAL], secrets={"K": DIRECT})
    pipeline = pccpipe.load(text(steps, SECRET), policy=policy)
    with pytest.raises(pccpipe.UsageError, match="leaves it to the caller"):
        pccpipe.run(pipeline, run_id="r1", policy=policy, runs_dir=tmp_path, workspace=tmp_path)
    given = {"K": "a-project's-own-value"}
    pccpipe.run(pipeline, run_id="r2", policy=policy, secrets=given, runs_dir=tmp_path, workspace=tmp_path)
    assert pccpipe.read_log("r2", "a", runs_dir=tmp_path).data == b"eulav-nwo-s'tcejorp-a"
    with pytest.raises(pccpipe.PolicyRefused, match="the secret K"):
        pccpipe.run(pipeline, run_id="r3", policy=HERE, secrets=given, runs_dir=tmp_path, workspace=tmp_path)


def test_a_commands_secret_does_not_run_when_it_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    more = f"secrets: {{K: {{from: command, command: 'touch {made}; echo 1'}}}}\n"
    steps = "  - {id: a, on: local, secrets: [K], run: 'true'}\n"
    for policy in (HERE, pccpipe.Policy.untrusted(places=[pccpipe.Place.LOCAL], secrets={"K": DIRECT})):
        with pytest.raises(pccpipe.UsageError):
            pccpipe.run(pccpipe.load(text(steps, more)), run_id="r1", policy=policy, runs_dir=tmp_path)
    with pytest.raises(pccpipe.PolicyRefused):
        pccpipe.plan(pccpipe.load(text(steps, more)), policy=HERE)
    assert not made.exists()


def test_values_of_the_call_stand_before_the_environment(tmp_path: Path) -> None:
    steps = "  - {id: a, on: local, secrets: [K], run: 'printf %s \"$K\" | rev'}\n"
    pipeline = pccpipe.load(text(steps, SECRET))
    environ: Mapping[str, str] = {"SERVER_DB_PASSWORD": "from-the-environment"}
    given = {"K": "from-the-call-itself"}
    pccpipe.run(pipeline, run_id="r1", environ=environ, secrets=given, runs_dir=tmp_path, workspace=tmp_path)
    assert pccpipe.read_log("r1", "a", runs_dir=tmp_path).data == b"flesti-llac-eht-morf"


def _waiting_run(runs: Path, policy: pccpipe.Policy | None) -> None:
    """Leave a run that can be resumed: its second step was never reached by the process that began it."""
    pipeline = pccpipe.load(text(STEP))
    pccpipe.run(pipeline, run_id="r1", policy=policy, runs_dir=runs, workspace=runs)
    journal = runs / "r1" / "events.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if json.loads(line)["event"] == "run_started"))


def test_a_run_that_began_under_a_policy_is_resumed_under_one(tmp_path: Path) -> None:
    _waiting_run(tmp_path, HERE)
    with pytest.raises(pccpipe.UsageError, match="began under a policy"):
        pccpipe.resume("r1", runs_dir=tmp_path)
    assert pccpipe.resume("r1", runs_dir=tmp_path, policy=HERE).outcome is pccpipe.Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("steps", "more", "words"),
    [
        ("  - {id: a, on: local, run: id, files: {k: {file: /etc/shadow}}}\n", "", "the path `/etc/shadow`"),
        ("  - {id: a, on: local, run: id, files: {k: {template: ../../x}}}\n", "", "the path `../../x`"),
        (STEP, "include: /etc/shadow\n", "the path `/etc/shadow`"),
        ("  - {id: a, on: local, secrets: [K], run: id}\n", SECRET, "the secret K"),
        ("  - {id: a, on: vm, run: id}\n", "", "leads it there|a step `on: vm`"),
    ],
)
def test_a_record_that_was_tampered_with_gets_no_more(tmp_path: Path, steps: str, more: str, words: str) -> None:
    _waiting_run(tmp_path, HERE)
    kept = tmp_path / "r1" / "pipeline.yaml"
    kept.write_text(text(steps, more) if "include" not in more else f"version: 1\nname: x\n{more}")
    with pytest.raises(pccpipe.PolicyRefused, match=words):
        pccpipe.resume("r1", runs_dir=tmp_path, policy=HERE)
    (tmp_path / "r1" / "pipeline-files").mkdir()
    (tmp_path / "r1" / "pipeline-files" / "up").symlink_to("/etc")
    kept.write_text(text("  - {id: a, on: local, run: id, files: {k: {file: up/shadow}}}\n"))
    with pytest.raises(pccpipe.PolicyRefused, match="the path `up/shadow`"):
        pccpipe.resume("r1", runs_dir=tmp_path, policy=HERE)


def test_a_record_cannot_open_a_folder_by_naming_it(tmp_path: Path) -> None:
    _waiting_run(tmp_path, HERE)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("the-key")
    journal = tmp_path / "r1" / "events.jsonl"
    began = json.loads(journal.read_text())
    journal.write_text(json.dumps({**began, "pipeline_path": str(tmp_path / "secrets" / "p.yaml")}) + "\n")
    for name in ("key", str(tmp_path / "secrets" / "key")):
        steps = f"  - {{id: a, on: local, run: 'cat $PCC_IN/k', files: {{k: {{file: {name}}}}}}}\n"
        (tmp_path / "r1" / "pipeline.yaml").write_text(text(steps))
        with pytest.raises(pccpipe.SpecError, match=r"the policy refuses|there is no file"):
            pccpipe.resume("r1", runs_dir=tmp_path, policy=HERE)
    (tmp_path / "r1" / "pipeline.yaml").unlink()
    (tmp_path / "r1" / "pipeline.yaml").symlink_to(tmp_path / "secrets" / "key")
    with pytest.raises(pccpipe.UsageError, match="is a link"):
        pccpipe.resume("r1", runs_dir=tmp_path, policy=HERE)


def test_a_policys_time_ends_a_run_without_a_timeout_of_its_own(tmp_path: Path) -> None:
    policy = pccpipe.Policy.untrusted(places=[pccpipe.Place.LOCAL], ceilings=pccpipe.Ceilings(timeout=1))
    pipeline = pccpipe.load(text("  - {id: a, on: local, run: sleep 60}\n"), policy=policy)
    result = pccpipe.run(pipeline, run_id="r1", policy=policy, runs_dir=tmp_path, workspace=tmp_path)
    assert result.outcome is pccpipe.Outcome.TIMED_OUT


def test_a_link_that_comes_after_the_check_leads_nowhere(tmp_path: Path) -> None:
    work, runs = tmp_path / "work", tmp_path / "runs"
    work.mkdir()
    (work / "notes.txt").write_text("notes")
    (tmp_path / "outside.txt").write_text("outside")
    steps = (
        f"  - {{id: swap, on: local, run: 'ln -sf {tmp_path}/outside.txt {work}/notes.txt'}}\n"
        "  - {id: a, on: local, run: 'cat $PCC_IN/k', files: {k: {file: notes.txt}}}\n"
    )
    pipeline = pccpipe.load(text(steps), root=work, policy=HERE)
    result = pccpipe.run(pipeline, run_id="r1", policy=HERE, runs_dir=runs, workspace=work)
    assert result.outcome is pccpipe.Outcome.FAILED
    step = result.state.steps["a"]
    assert step.ended
    assert step.ended.code is pccpipe.Code.POLICY_REFUSED
    assert pccpipe.read_log("r1", "a", runs_dir=runs).data == b""
    allowed = pccpipe.Policy.untrusted(places=[pccpipe.Place.LOCAL], folders=[tmp_path])
    pccpipe.run(pipeline, run_id="r2", policy=allowed, runs_dir=runs, workspace=work)
    assert pccpipe.read_log("r2", "a", runs_dir=runs).data == b"outside"


POLICY = "version: 1\npreset: untrusted\nplaces: [local]\nceilings: {timeout: 1h}\n"


def test_the_command_takes_a_policy(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "good.yaml").write_text(text())
    (tmp_path / "bad.yaml").write_text(text("  - {id: a, on: local, run: id, files: {k: {file: /etc/shadow}}}\n"))
    assert Folder(tmp_path).do("run", "good.yaml", "--policy", "policy.yaml", "--run-id", "r1").code == 0
    for command in (("run", "--run-id", "r2"), ("plan",), ("validate",)):
        done = Folder(tmp_path).do(command[0], "bad.yaml", "--policy", "policy.yaml", *command[1:])
        assert done.code == 2
        assert "bad.yaml:4:51: the policy refuses the path `/etc/shadow`" in done.stderr
        assert "root:" not in done.stderr + done.stdout
    assert not (tmp_path / ".system" / "runs" / "r2").exists()


def test_what_is_wrong_with_a_policy_file_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY.replace("[local]", "[lokal]").replace("preset", "presett"))
    (tmp_path / "good.yaml").write_text(text())
    done = Folder(tmp_path).do("plan", "good.yaml", "--policy", "policy.yaml")
    assert done.code == 2
    assert "policy.yaml:2:1" in done.stderr
    assert "policy.yaml:3:10" in done.stderr
