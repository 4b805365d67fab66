"""The canary secret is nowhere after a real run; if a pipeline leaks it, the check finds it."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pccpipe.secrets.values
from pccpipe.canary.check import selfcheck
from pccpipe.canary.ledger import Row, SelfcheckReport, Spot, SpotVerdict
from pccpipe.canary.value import SPECIAL, Canary
from pccpipe.outcome import IsolationMode, Outcome
from pccpipe.secrets.mask import Masker
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.project import load_project
from pccpipe.spec.project_model import Project
from pccpipe.views.selfcheck import lines
from tests.cli.command import Folder, finish, wait_until
from tests.testbed.engine import Engine
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM


def project_file(folder: Path, vm: VM, user: str = VM.user) -> Path:
    path = folder / f"{user}.yaml"
    path.write_text(
        f"id: p\nisolation_mode: vm\nvm:\n  external_ip: {vm.host}\n  user: {user}\n"
        f"  key_path: {vm.key}\n  known_hosts: {vm.known_hosts}\n  root: {vm.root}\n"
    )
    return path


def rows_of(report: SelfcheckReport, *verdicts: SpotVerdict) -> dict[tuple[str, Spot], Row]:
    return {(row.where, row.spot): row for row in report.rows if row.verdict in verdicts}


def left_on(vm: VM) -> str:
    """List what of a run is on the VM; only the lease's order stays."""
    folders = "find /home/project/.system -mindepth 2 ! -path '*/lease/*' ! -path '*/.system/.git/*' 2>/dev/null"
    # A slow containerd leaves its stacks there, when its dockerd asks for them.
    return vm.sh(f"{folders}; ls -A -I 'containerd.*.stacks.log' /tmp; docker ps -aq").stdout


def test_on_a_real_vm_everything_is_searched_nothing_is_found_and_nothing_is_left(tmp_path: Path, fresh_vm: VM) -> None:
    vm = fresh_vm
    env = {"TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    project = project_file(tmp_path, vm, "root")
    done = Folder(tmp_path).do(
        *("selfcheck", "--project", project, "--strict", "--json"),
        env=env,
        limit=110,
    )
    assert done.code == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["clean"]
    assert {row["verdict"] for row in report["rows"]} == {"clean", "expected"}
    expected = {(row["where"], row["place"]) for row in report["rows"] if row["verdict"] == "expected"}
    places = {"own_environment", "spools"}
    assert expected == {(where, place) for where in ("here", vm.host) for place in places}
    assert all(row["looks"] for row in report["rows"])
    assert left_on(vm) == ""
    assert list((tmp_path / "tmp").iterdir()) == []


LEAKY = """
version: 1
name: leaky
inputs:
  here: {type: string}
secrets:
  KEY: {from: env}
containers:
  box: {image: "bb:latest", network: none}
steps:
  - {id: sync, upload: workspace}
  - id: vm
    on: vm
    secrets: [KEY]
    timeout: 1m
    run: |
      printf '%s' "$KEY" >in-workspace.txt
      printf '%s' "x$KEY" | base64 -w0 >in-base64.txt
      printf '%s' "$KEY" >/tmp/leaky-file
      touch "/tmp/leaky-$(printf '%s' "$KEY" | od -An -v -tx1 | tr -d ' \\n')"
      ln -s "$KEY" /tmp/leaky-link
      docker create --name leaky --env KEY bb:latest >/dev/null
      docker commit --change "ENV CODED=$(printf '%s' "$KEY" | base64 -w0)" leaky leaky:latest >/dev/null
      sh -c 'sleep 30; :' leaky "$KEY" & one=$!
      env -i OTHER="$KEY" sleep 30 & two=$!
      echo look
      until [ -e .looked ]; do sleep 0.1; done
      kill $one $two
      printf '{"leaky": "%s"}' "$(printf '%s' "$KEY" | base64 -w0)" >"$PCC_OUT/result.json"
    result: {path: result.json}
    continue_on_error: true
  - id: container
    on: container
    container: box
    secrets: [KEY]
    timeout: 1m
    run: |
      rm -f .looked
      printf '%s' "$KEY" >/tmp/leaky-file
      sh -c 'sleep 30; :' leaky "$KEY" &
      echo look
      until [ -e .looked ]; do sleep 0.1; done
  - id: local
    on: local
    secrets: [KEY]
    run: printf '%s' "$KEY" >${{ inputs.here }}/leaky-file
"""


@pytest.fixture(scope="module")
def leaky(temporary_folder: Path, vm: VM) -> Iterator[SelfcheckReport]:
    """Check a pipeline that leaks in every way, as a user who is not root."""
    folder = temporary_folder / "leaky"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(LEAKY)

    def let_go(progress: str) -> None:
        if progress.endswith("spoke: searched"):
            vm.sh("for w in /home/project/.system/run-workspaces/*; do setpriv --reuid pcc touch $w/.looked; done")

    try:
        yield selfcheck(
            load_project(project_file(folder, vm)),
            pipeline=load_pipeline(folder / "pipeline.yaml"),
            inputs={"here": str(folder)},
            on_progress=let_go,
        )
    finally:
        vm.sh("rm -f /tmp/leaky-*; docker rm -f leaky; docker rmi -f leaky:latest")


@pytest.mark.parametrize(
    ("where", "spot", "what"),
    [
        ("vm", Spot.WORKSPACE, "in-workspace.txt"),
        ("vm", Spot.WORKSPACE, "in-base64.txt"),
        ("vm", Spot.DISK, "/tmp/leaky-file"),
        ("vm", Spot.DISK, "in the name '/tmp/leaky-link' -> "),
        ("vm", Spot.DISK, "in the name /tmp/leaky-***"),
        ("vm", Spot.ARGUMENTS, "(sh)"),
        ("vm", Spot.ENVIRONMENT, "(sleep)"),
        ("vm", Spot.STATE, "result.json"),
        ("vm", Spot.INSPECT, "/leaky"),
        ("vm", Spot.IMAGES, "leaky:latest"),
        ("vm", Spot.CONTAINER_DISK, "/tmp/leaky-file"),
        ("vm", Spot.CONTAINER_PROCESSES, "in /pcc-run-"),
        ("here", Spot.TEMPORARY, "leaky-file"),
    ],
)
def test_a_leak_is_found_and_its_place_named(leaky: SelfcheckReport, vm: VM, where: str, spot: Spot, what: str) -> None:
    row = rows_of(leaky, SpotVerdict.FOUND)[vm.host if where == "vm" else where, spot]
    assert any(what in found for found in row.found), row.found
    assert f"FOUND           {spot.value}" in "\n".join(lines(leaky))


def test_a_place_that_cannot_be_searched_is_reported_and_never_counted_as_clean(leaky: SelfcheckReport, vm: VM) -> None:
    engine = rows_of(leaky, SpotVerdict.NOT_LOOKED)[vm.host, Spot.ENGINE_FILES]
    assert "pcc may not read /var/lib/docker" in engine.unread
    assert leaky.unlooked >= 1
    assert not any("could not look" in line and "engine" not in line for line in lines(leaky))


def test_nothing_is_left_by_a_pipeline_that_removes_nothing(leaky: SelfcheckReport, vm: VM) -> None:
    assert "selfcheck" not in vm.sh("ls /home/project/.system/run-*").stdout
    assert not [name for name in os.environ if name.startswith("PCCPIPE_CANARY")]


PROXIED = """
version: 1
name: proxied
inputs:
  endpoint: {type: string}
secrets:
  KEY: {from: env, via: proxy, upstream: "${{ inputs.endpoint }}"}
containers:
  box: {image: "node:20-slim", network: none}
steps:
  - id: asks
    on: container
    container: box
    secrets: [KEY]
    env:
      ASK: |
        fetch(process.env.PCC_PROXY_URL + "/responses", {
          method: "POST",
          headers: {authorization: "Bearer " + process.env.KEY, "content-type": "application/json"},
          body: "{}",
        }).then(answer => answer.text()).then(console.log)
    run: |
      env
      node -e "$ASK"
    timeout: 1m
"""


def test_a_key_that_stays_local_is_nowhere_not_even_in_its_own_step(tmp_path: Path, vm: VM, model: ModelServer) -> None:
    (tmp_path / "pipeline.yaml").write_text(PROXIED)
    report = selfcheck(
        load_project(project_file(tmp_path, vm)),
        pipeline=load_pipeline(tmp_path / "pipeline.yaml"),
        inputs={"endpoint": f"{model.url}/v1"},
    )
    assert report.outcome is Outcome.SUCCEEDED
    assert SPECIAL in str(model.requests[-1].authorization), "the model got the key, and not the token"
    assert not rows_of(report, SpotVerdict.FOUND, SpotVerdict.EXPECTED)
    assert rows_of(report, SpotVerdict.CLEAN)[vm.host, Spot.OWN_ENVIRONMENT].looks


def test_without_masking_every_part_of_the_record_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pccpipe.secrets.values, "Masker", lambda _: Masker([]))
    report = selfcheck(Project("p", IsolationMode.LOCAL))
    assert report.whole
    found = {spot for where, spot in rows_of(report, SpotVerdict.FOUND)}
    assert found == {Spot.RUN_JSON, Spot.EVENTS, Spot.LOGS, Spot.JSONL, Spot.PLAIN}
    assert "FOUND in 5 places" in "\n".join(lines(report))


def test_a_leaky_pipeline_exits_with_1_and_the_canary_is_not_shown(folder: Folder) -> None:
    pipeline = folder.path / "leaky.yaml"
    pipeline.write_text(
        textwrap.dedent("""
            version: 1
            name: leaky
            secrets: {KEY: {from: env}}
            steps:
              - {id: sync, upload: workspace}
              - {id: leak, on: local, secrets: [KEY], run: 'printf %s "$KEY" >kept.txt'}
        """)
    )
    done = folder.do("selfcheck", "--pipeline", pipeline)
    assert done.code == 1, done.stdout + done.stderr
    assert "kept.txt" in done.stdout


def test_in_mode_container_the_engine_of_this_machine_is_searched(
    tmp_path: Path, local_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", local_engine.url)
    report = selfcheck(Project("p", IsolationMode.CONTAINER), inputs={"image": "bb:latest"})
    assert report.whole, report.message
    assert not report.found, "\n".join(lines(report))
    inspected = rows_of(report, SpotVerdict.CLEAN)["here", Spot.INSPECT]
    assert inspected.things == 1
    assert rows_of(report, SpotVerdict.CLEAN)["here", Spot.ENGINE_FILES].things


def test_an_unavailable_run_is_not_reported_as_clean(folder: Folder, vm: VM) -> None:
    project = project_file(folder.path, vm)
    project.write_text(project.read_text().replace(f"external_ip: {vm.host}", "external_ip: 127.0.0.99"))
    done = folder.do("selfcheck", "--project", project)
    assert done.code == 3, done.stdout + done.stderr
    assert "could not look  arguments of processes" in done.stdout
    assert "ended as unavailable" in done.stdout


def test_a_cancelled_check_leaves_nothing_and_says_what_was_not_searched(folder: Folder) -> None:
    own = folder.path / "tmp"
    own.mkdir()
    process = folder.start("selfcheck", env={"TMPDIR": str(own)})
    wait_until(lambda: any("command_started" in path.read_text() for path in own.glob("*/.system/runs/*/events.jsonl")))
    process.send_signal(signal.SIGINT)
    done = finish(process, 60)
    assert done.code == 130, done.stdout + done.stderr
    assert "could not look  events.jsonl" in done.stdout
    assert "ended as cancelled" in done.stdout
    assert list(own.iterdir()) == []


def test_steps_of_a_checked_pipeline_have_the_canary_and_no_secret_of_the_user(folder: Folder) -> None:
    marker = folder.path / "all-is-well"
    pipeline = folder.pipeline(f"""
        secrets: {{KEY: {{from: env, name: USERS_KEY}}}}
        steps:
          - {{id: own, secrets: [KEY], run: 'test -n "$KEY" && test "$KEY" != sk-0123456789abcdef'}}
          - {{id: other, run: 'test -z "$USERS_KEY" && touch {marker}'}}
    """)
    done = folder.do("selfcheck", "--pipeline", pipeline, env={"USERS_KEY": "sk-0123456789abcdef"})
    assert done.code == 0, done.stdout + done.stderr
    assert marker.exists()


@pytest.mark.parametrize(
    "arguments",
    [("--pipeline", "none.yaml"), ("--project", "none.yaml"), ("--input", "nothing=1"), ("--wait", "soon")],
)
def test_wrong_usage_is_one_line(folder: Folder, arguments: tuple[str, str]) -> None:
    done = folder.do("selfcheck", *arguments)
    assert done.code == 2
    assert done.stdout == ""


def test_a_canary_is_recognized_in_any_form_and_shown_in_none() -> None:
    canary = Canary()
    quoted = canary.value.replace("'", "'\\''")
    for text in (canary.value, f"x{quoted}", canary.value.encode().hex(), canary.value[:20]):
        assert canary.is_in(text.encode())
    assert canary.masked(f"<{canary.value}>") == "<***>"
    assert canary.value not in repr(canary)
    assert not canary.is_in(b"nothing of it")
