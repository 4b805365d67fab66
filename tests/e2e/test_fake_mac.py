"""Runs whose controller is a Mac, as far as one can be had on Linux."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.control import DEMO, KEY, ROOT, Control, happened, wait_until
from tests.fake_mac import FakeMac
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM

CHANGES = """
    steps:
      - {id: up, upload: workspace}
      - id: change
        on: vm
        run: ln -s a.txt link && echo new >>a.txt && rm old-link && ln -s b.txt old-link
      - {id: patch, diff: diff.patch}
"""


def test_the_fake_lacks_what_macos_lacks(mac: FakeMac) -> None:
    code = """
import fcntl, os, platform, socket, urllib.request
print(platform.system(), os.listdir("/proc"), len(os.listdir("/dev/fd")) > 2)
print(hasattr(os, "fdatasync"), hasattr(socket, "TCP_QUICKACK"))
"""
    assert _python(mac, code) == "Darwin [] True\nFalse False\n"


def test_the_fakes_disk_takes_names_for_one_that_differ_in_case_or_form(mac: FakeMac) -> None:
    folder = mac.one_name[0]
    folder.mkdir()
    code = f"""
import os
from pathlib import Path
folder = Path({str(folder)!r})
(folder / "Readme").write_text("one")
print((folder / "README").read_text(), os.listdir(folder))
for make in (Path.mkdir, lambda path: path.open("xb"), lambda path: path.symlink_to("x")):
    try:
        make(folder / "README")
    except FileExistsError:
        print("refused")
(folder / "caf\\u00e9").mkdir()
print((folder / "cafe\\u0301").is_dir())
"""
    assert _python(mac, code) == "one ['Readme']\n" + "refused\n" * 3 + "True\n"


def _python(mac: FakeMac, code: str) -> str:
    argv, env = mac.argv([sys.executable, "-c", code]), {**os.environ, **mac.env}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def test_a_run_on_a_vm_brings_new_and_changed_links_home_in_a_diff(mac_control: Control, mac: FakeMac) -> None:
    for name in ("a.txt", "b.txt"):
        (mac_control.workspace / name).write_text(f"{name}\n")
    (mac_control.workspace / "old-link").symlink_to("a.txt")
    ran = mac_control.run(CHANGES)
    assert ran.code == 0, ran.stdout + ran.stderr
    patch = (ran.record / "diff.patch").read_text()
    assert "new file mode 120000" in patch
    assert "-a.txt\n\\ No newline at end of file\n+b.txt" in patch
    assert "+new" in patch


def test_what_is_thrown_away_on_an_events_account_is_on_the_medium_first(mac_control: Control, mac: FakeMac) -> None:
    ran = mac_control.run("steps: [{id: a, on: vm, run: echo hello}]")
    assert ran.code == 0, ran.stdout + ran.stderr
    # Ordinary events, and the one before the VM's copy of the output goes.
    assert mac.synced.count("B") > mac.synced.count("F") >= 1


@pytest.fixture
def demo(tmp_path: Path, vm: VM, mac: FakeMac) -> Control:
    control = Control(tmp_path, vm, {"OPENAI_API_KEY": KEY}, run_as=True, mac=mac)
    shutil.copytree(DEMO / "project", control.workspace, dirs_exist_ok=True)
    return control


def test_the_default_pipeline_with_the_real_agent_in_containers_on_a_vm(demo: Control, vm: VM, tmp_path: Path) -> None:
    scenario = json.loads((DEMO / "scenario.json").read_text())
    with ModelServer(vm.host_side, key=KEY, scenario=scenario) as model:
        ran = demo.run(
            ROOT / "pipelines/default-run.yaml",
            *("--input", f"work_order={DEMO / 'work-order.md'}", "--input", "test=sh test.sh"),
            *("--input", f"endpoint={model.url}/v1"),
        )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.state["outcome"] == "succeeded"
    assert not ran.state["downgraded"]
    agents = [step for step in ran.state["steps"] if step["path"].endswith((".build", ".review"))]
    assert {step["attempts"][-1]["had"]["place"] for step in agents if step["attempts"]} == {"container"}
    shutil.copytree(DEMO / "project", tmp_path / "p")
    subprocess.run(["git", "apply", str(ran.record / "diff.patch")], cwd=tmp_path / "p", check=True)
    subprocess.run(["sh", "test.sh"], cwd=tmp_path / "p", check=True, capture_output=True)


def test_a_run_whose_process_was_killed_is_cancelled_though_the_mac_has_another_name(
    mac_control: Control, mac: FakeMac
) -> None:
    process, record = mac_control.start(
        "steps: [{id: a, on: vm, run: sleep 60}]\nalways: [{id: b, on: vm, run: echo at the end}]"
    )
    wait_until(lambda: happened(record, "command_started"))
    process.kill()
    process.communicate()
    mac.name = "mac-2.example.net"
    assert "interrupted" in mac_control.do("runs").stdout
    done = mac_control.do("cancel", record.name, limit=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the process of the run" in done.stdout
    assert json.loads((record / "run.json").read_text())["outcome"] == "cancelled"


def test_a_cancel_that_nobody_here_hears_says_how_to_go_on(mac_control: Control) -> None:
    process, record = mac_control.start("steps: [{id: a, on: vm, run: sleep 60}]")
    wait_until(lambda: happened(record, "command_started"))
    process.kill()
    process.communicate()
    # As if it were another machine's, which shares the disk.
    lock = json.loads((record / "lock").read_text())
    (record / "lock").write_text(json.dumps({**lock, "machine": "f" * 32, "host": "build-server"}))
    with pytest.raises(subprocess.TimeoutExpired) as waited:
        mac_control.do("cancel", record.name, limit=15)
    said = (waited.value.stdout or b"").decode()
    assert f"process {lock['pid']} of build-server" in said
    assert f"pccpipe resume {record.name}" in said
    (record / "lock").write_text(json.dumps(lock))
    assert mac_control.do("cancel", record.name).returncode == 0


def test_a_signal_on_the_vm_has_the_name_that_it_has_there(mac_control: Control) -> None:
    ran = mac_control.run("steps: [{id: a, on: vm, run: 'kill -USR1 $$'}]")
    assert ran.code == 1
    assert ran.step("a")["attempts"][-1]["signal"] == "USR1", ran.step("a")["attempts"][-1]


TWINS = """
    steps:
      - {id: up, upload: workspace}
      - id: work
        on: vm
        run: |
          mkdir -p out/dir out/DIR && echo 1 >out/Readme && echo 2 >out/README && echo 3 >A.txt
          echo 4 >out/dir/x && echo 5 >out/DIR/y
          printf 6 >"$(printf 'caf\\303\\251')" && printf 7 >"$(printf 'cafe\\314\\201')"
          ln -s Readme out/readme && ln -s x link && ln -s y LINK && echo more >>a.txt
      - {id: out, download: out}
      - {id: patch, diff: diff.patch}
    always:
      - {id: gone, remove: workspace}
"""


def test_names_that_are_one_here_are_refused_with_a_reason_and_the_run_goes_on(mac_control: Control) -> None:
    (mac_control.workspace / "a.txt").write_text("a\n")
    ran = mac_control.run(TWINS)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert len(ran.step("out")["facts"]["refused"]) == 3
    brought = {path.name for path in (ran.record / "artifacts" / "out").iterdir()}
    assert len(brought & {"Readme", "README", "readme"}) == len(brought & {"dir", "DIR"}) == 1
    # What was sent keeps its name, whichever comes first.
    refused = " ".join(ran.step("patch")["facts"]["refused"])
    assert "'A.txt': the disk here takes its name for that of 'a.txt'" in refused
    patch = (ran.record / "diff.patch").read_text()
    assert "+more" in patch
    assert "A.txt" not in patch
    assert "deleted" not in patch


def test_a_run_that_a_linux_began_goes_on_from_a_mac(control: Control, mac: FakeMac) -> None:
    control.workspace.joinpath("a.txt").write_text("a\n")
    process, record = control.start("""
        steps:
          - {id: up, upload: workspace}
          - id: long
            on: vm
            run: 'echo began; n=0; while [ $n -lt 40 ]; do n=$((n+1)); echo $n; sleep 0.1; done; ln -s a.txt l'
          - {id: patch, diff: diff.patch}
        always:
          - {id: gone, remove: workspace}
    """)
    wait_until(lambda: happened(record, "command_started"))
    process.kill()
    process.communicate()
    # Another machine of the same user, with the same folders: say, a disk that both have.
    lock = json.loads((record / "lock").read_text())
    (record / "lock").write_text(json.dumps({**lock, "host": "linux-1"}))
    control.mac = mac
    done = control.do("resume", record.name)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (record / json.loads((record / "run.json").read_text())["steps"][1]["attempts"][-1]["stdout"]).read_text()
    assert log == "began\n" + "".join(f"{number}\n" for number in range(1, 41))
    assert "120000" in (record / "diff.patch").read_text()
