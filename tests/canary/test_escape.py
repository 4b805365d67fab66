"""`selfcheck --escape` tries real ways out on a real VM, and judges each by its own look."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pccpipe.canary import escape
from pccpipe.canary.escape import check_escape
from pccpipe.canary.routes import BOX, ROUTES, EscapeReport, Routes, RouteVerdict
from pccpipe.canary.routes import VM as ON_VM
from pccpipe.outcome import IsolationMode
from pccpipe.spec.project import load_project
from pccpipe.spec.project_model import Project
from pccpipe.views.escape import lines
from tests.canary.test_selfcheck import left_on, project_file
from tests.cli.command import Folder
from tests.e2e.control import ROOT
from tests.testbed.engine import Engine
from tests.testbed.vm import VM

NEVER = {"box_alone"}
"""Routes that a living pccpipe cannot try."""


def verdicts(report: EscapeReport, side: str) -> dict[str, RouteVerdict]:
    return {route.name: route.verdict for route in report.routes if route.side == side}


def processes(vm: VM) -> str:
    return vm.sh("grep -l 'pccescape[0-9a-f]*-' /proc/[0-9]*/cmdline || true").stdout


def test_containers_hold_and_a_vm_without_an_account_does_not(tmp_path: Path, fresh_vm: VM) -> None:
    vm = fresh_vm
    project = project_file(tmp_path, vm)
    done = Folder(tmp_path).do("selfcheck", "--escape", "--project", project, "--json", limit=110)
    assert done.code == 1, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["run"]["whole"], report
    assert not report["held"]
    by_name = {route["route"]: route for route in report["routes"]}
    assert {name for name, one in by_name.items() if one["from"] == "vm"} == set(ROUTES[ON_VM])
    assert {(one["verdict"], one["words"]) for one in by_name.values() if one["from"] == "vm"} == {
        ("did not hold", "no run_as")
    }
    not_held = {name: one for name, one in by_name.items() if one["from"] == "container" and one["verdict"] != "held"}
    assert set(not_held) == NEVER, not_held
    assert left_on(vm) == ""
    assert processes(vm) == ""


def with_account(folder: Path, vm: VM) -> Path:
    path = project_file(folder, vm)
    path.write_text(f"{path.read_text()}  run_as: {vm.run_as}\n")
    return path


def test_with_an_account_everything_holds_and_an_open_wall_is_named(tmp_path: Path, fresh_vm: VM) -> None:
    vm, project = fresh_vm, with_account(tmp_path, fresh_vm)
    done = Folder(tmp_path).do("selfcheck", "--escape", "--project", project, limit=110)
    assert done.code == 0, done.stdout + done.stderr
    assert "did not hold" not in done.stdout
    assert "routes held" in done.stdout
    not_tried = [line for line in done.stdout.splitlines() if "not tried" in line]
    # The bed's VM has no cron, no at and no systemd.
    assert len(not_tried) == 5, not_tried
    assert left_on(vm) == ""
    assert processes(vm) == ""

    login = "pcc"
    vm.sh(f"usermod -aG docker {vm.run_as}; echo '{vm.run_as} ALL=({login}) NOPASSWD: ALL' >/etc/sudoers.d/zz")
    vm.sh(f"touch /home/{login}/.profile; chmod 666 /home/{login}/.profile; chmod 755 /home/{login}")
    report = check_escape(load_project(project))
    assert report.whole, report.message
    broke = {route.name: route.words for route in report.routes if route.verdict is RouteVerdict.BROKE}
    assert set(broke) == {"become", "engine", "login_files"}
    # The rule for sudo has no effect: the account gains nothing from a setuid program.
    assert broke["become"] == f"groups {vm.run_as} docker"
    assert "docker.sock" in broke["engine"]
    assert f"writes /home/{login}/.profile" in broke["login_files"]


def test_each_route_of_a_step_on_the_vm_can_break(
    tmp_path: Path, fresh_vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps run as the login, as before accounts existed: then almost nothing holds, and the report names all of it."""
    vm = fresh_vm
    text = (ROOT / "pipelines/selfcheck-escape.yaml").read_text().replace("on: vm\n", "on: vm\n    account: login\n")
    box, overrun = text.index("  - id: box"), text.index("  - id: vm\n")
    use(monkeypatch, tmp_path, text[:box] + text[overrun : text.index("  - id: next")] + text[text.index("always:") :])
    report = check_escape(load_project(with_account(tmp_path, vm)))
    assert report.whole, report.message
    broke = {route.name: route.words for route in report.routes if route.verdict is RouteVerdict.BROKE}
    assert set(broke) == {
        *("become", "engine", "signal", "inspect", "read", "write", "verdict", "login_files", "vm_stays"),
    }, broke
    assert "it runs as pcc" in broke["become"]
    assert "reads /home/project/.system/run-state of another run" in broke["read"]
    assert left_on(vm) == ""
    assert processes(vm) == ""


def use(monkeypatch: pytest.MonkeyPatch, folder: Path, pipeline: str) -> None:
    """Make the check run this pipeline, with the usual one's files."""
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    file = folder / "pipelines/selfcheck-escape.yaml"
    file.write_text(pipeline)
    monkeypatch.setattr(escape, "PIPELINE", (str(file),))


USUAL: dict[str, dict[str, object]] = {
    "box": {"image": "${{ inputs.image }}", "network": "none", "memory": "256m", "pids": 100, "home_size": "8m"},
    "reader": {"extends": "box", "workspace": "read-only", "read_only_root": True},
}
LOOSENED = [
    ({"network": "bridge"}, {}, {"network"}),
    ({"user": "root", "capabilities": ["SYS_PTRACE"]}, {}, {"privileges"}),
    ({"new_privileges": True}, {}, {"privileges"}),
    ({"seccomp": "unconfined"}, {}, {"privileges"}),
    ({"pids": "unlimited"}, {}, {"pids"}),
    ({"home_size": "64m"}, {}, {"home", "tmp"}),
    ({}, {"workspace": "read-write"}, {"readonly", "instructions"}),
    ({}, {}, {"key"}),
    (
        {"user": "root", "capabilities": ["SYS_ADMIN"], "seccomp": "unconfined", "apparmor": "unconfined"},
        {},
        {"privileges", "devices", "readonly"},
    ),
]


@pytest.mark.parametrize(("box", "reader", "broken"), LOOSENED, ids=["-".join(sorted(one[2])) for one in LOOSENED])
def test_a_container_with_weaker_isolation_is_reported(
    tmp_path: Path,
    vm: VM,
    monkeypatch: pytest.MonkeyPatch,
    box: dict[str, object],
    reader: dict[str, object],
    broken: set[str],
) -> None:
    text = (ROOT / "pipelines/selfcheck-escape.yaml").read_text()
    for name, settings in (("box", box), ("reader", reader)):
        begins = text.index(f"  {name}: {{")
        ends = text.index("\n", begins)
        usual = {**USUAL[name], **settings}
        text = f"{text[:begins]}  {name}: {json.dumps(usual)}{text[ends:]}"
    if "key" in broken:
        text = text.replace(', via: proxy, upstream: "http://127.0.0.1:9"', "")
    # Slow parts that this test does not need.
    use(monkeypatch, tmp_path, text[: text.index("  - id: overrun")] + text[text.index("  - id: reader") :])
    report = check_escape(load_project(project_file(tmp_path, vm)))
    assert report.whole, report.message
    by_route = verdicts(report, BOX)
    assert {name for name, verdict in by_route.items() if verdict is RouteVerdict.BROKE} == broken
    assert not report.held


def test_on_an_engine_of_this_machine_only_containers_are_tried(
    tmp_path: Path, local_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", local_engine.url)
    report = check_escape(Project("p", IsolationMode.CONTAINER), image="bb:latest")
    assert report.whole, report.message
    not_held = {route.name: route.words for route in report.routes if route.side == BOX and route.words}
    # The user who runs the tests owns the workspace, and is root here.
    assert not_held.pop("privileges", "its user is root").rstrip("; ") == "its user is root"
    assert set(not_held) == NEVER
    assert set(verdicts(report, ON_VM).values()) == {RouteVerdict.NOT_TRIED}


def test_a_later_step_does_not_make_a_broken_route_hold() -> None:
    routes = Routes()
    routes.judge("network", ["reaches 1.1.1.1"])
    routes.read({"routes": [{"route": "network", "verdict": "held", "words": ""}]})
    assert routes.verdict("network") is RouteVerdict.BROKE


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        "x",
        {"routes": "x"},
        {"routes": [1, {}, {"route": "nothing", "verdict": "held", "words": ""}]},
        {"forged": 1},
    ],
)
def test_a_result_of_another_shape_says_nothing(result: object) -> None:
    routes = Routes()
    routes.read(result)  # type: ignore[arg-type]
    assert {route.verdict for route in routes.all} == {RouteVerdict.NOT_TRIED}


def test_trying_nothing_is_not_a_success_and_the_sum_says_so() -> None:
    report = EscapeReport(Routes().all, "unavailable", "no engine\x1b[2J", whole=False)
    assert not report.held
    text = list(lines(report))
    assert text[-1] == f"0 of 0 routes held; {len(report.routes)} were not tried"
    assert "\x1b" not in "".join(text)


def test_an_unreachable_vm_is_exit_3(tmp_path: Path) -> None:
    project = tmp_path / "p.yaml"
    project.write_text("id: p\nvm: {external_ip: 127.0.0.1, port: 1, user: x, key_path: k, run_as: y}\n")
    (tmp_path / "k").write_text("")
    done = Folder(tmp_path).do("selfcheck", "--escape", "--project", project)
    assert done.code in {2, 3}, done.stdout
    assert "held" not in done.stdout or "0 of 0 routes held" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--strict",), "--strict cannot be used with --escape"),
        (("--workspace", "."), "--workspace cannot be used with --escape"),
        (("--input", "model=x"), "--input model cannot be used with --escape"),
    ],
)
def test_options_that_escape_cannot_use_are_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = Folder(tmp_path).do("selfcheck", "--escape", *arguments)
    assert done.code == 2
    assert words in done.stderr


def test_a_project_without_isolation_has_nothing_to_try(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("id: p\nisolation_mode: local\n")
    done = Folder(tmp_path).do("selfcheck", "--escape", "--project", "p.yaml")
    assert done.code == 2
    assert "no isolation to try" in done.stderr
