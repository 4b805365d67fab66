"""Runs whose controller is a Mac, as far as Linux can imitate one."""

from __future__ import annotations

import json
import os
import re
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


def test_names_that_differ_in_case_or_form_are_one_on_the_fakes_disk(mac: FakeMac) -> None:
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


def test_a_diff_has_new_and_changed_links_from_the_vm(mac_control: Control, mac: FakeMac) -> None:
    for name in ("a.txt", "b.txt"):
        (mac_control.workspace / name).write_text(f"{name}\n")
    (mac_control.workspace / "old-link").symlink_to("a.txt")
    ran = mac_control.run(CHANGES)
    assert ran.code == 0, ran.stdout + ran.stderr
    patch = (ran.record / "diff.patch").read_text()
    assert "new file mode 120000" in patch
    assert "-a.txt\n\\ No newline at end of file\n+b.txt" in patch
    assert "+new" in patch


def test_data_is_discarded_only_after_its_event_is_on_the_medium(mac_control: Control, mac: FakeMac) -> None:
    ran = mac_control.run("steps: [{id: a, on: vm, run: echo hello}]")
    assert ran.code == 0, ran.stdout + ran.stderr
    # Ordinary events, and the one before the VM's copy of the output is discarded.
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


def test_a_killed_run_is_cancelled_although_the_mac_has_another_name(mac_control: Control, mac: FakeMac) -> None:
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
    assert "its process is gone" in done.stdout
    assert json.loads((record / "run.json").read_text())["outcome"] == "cancelled"


def test_a_cancel_without_a_local_process_names_the_next_command(mac_control: Control) -> None:
    process, record = mac_control.start("steps: [{id: a, on: vm, run: sleep 60}]")
    wait_until(lambda: happened(record, "command_started"))
    process.kill()
    process.communicate()
    # As if another machine that shares the disk had the run.
    lock = json.loads((record / "lock").read_text())
    (record / "lock").write_text(json.dumps({**lock, "machine": "f" * 32, "host": "build-server"}))
    with pytest.raises(subprocess.TimeoutExpired) as waited:
        mac_control.do("cancel", record.name, limit=15)
    said = (waited.value.stdout or b"").decode()
    assert f"process {lock['pid']} on build-server" in said
    assert f"pccpipe resume {record.name}" in said
    (record / "lock").write_text(json.dumps(lock))
    assert mac_control.do("cancel", record.name).returncode == 0


def test_a_signal_on_the_vm_has_the_name_of_that_system(mac_control: Control) -> None:
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


def test_names_that_collide_locally_are_refused_with_a_reason_and_the_run_continues(mac_control: Control) -> None:
    (mac_control.workspace / "a.txt").write_text("a\n")
    ran = mac_control.run(TWINS)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert len(ran.step("out")["facts"]["refused"]) == 3
    brought = {path.name for path in (ran.record / "artifacts" / "out").iterdir()}
    assert len(brought & {"Readme", "README", "readme"}) == len(brought & {"dir", "DIR"}) == 1
    # An uploaded file keeps its name, whichever name comes first.
    refused = " ".join(ran.step("patch")["facts"]["refused"])
    assert "'A.txt': the disk of this machine takes its name for that of 'a.txt'" in refused
    patch = (ran.record / "diff.patch").read_text()
    assert "+more" in patch
    assert "A.txt" not in patch
    assert "deleted" not in patch


def test_a_mac_resumes_a_run_that_a_linux_began(control: Control, mac: FakeMac) -> None:
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
    # Another machine of the same user with the same folders, such as a shared disk.
    lock = json.loads((record / "lock").read_text())
    (record / "lock").write_text(json.dumps({**lock, "host": "linux-1"}))
    control.mac = mac
    done = control.do("resume", record.name)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (record / json.loads((record / "run.json").read_text())["steps"][1]["attempts"][-1]["stdout"]).read_text()
    assert log == "began\n" + "".join(f"{number}\n" for number in range(1, 41))
    assert "120000" in (record / "diff.patch").read_text()


LOCAL = """
    steps:
      - {id: a, run: echo hello}
      - {id: late, run: 'sleep 60', timeout: 1s, continue_on_error: true}
      - {id: many, matrix: {n: [1, 2, 3, 4]}, run: 'echo ${{ matrix.n }}'}
      - {id: fails, run: 'echo so; exit 7', continue_on_error: true}
"""


@pytest.fixture(params=["mac", "busybox"])
def bare(request: pytest.FixtureRequest, local_control: Control, tmp_path: Path) -> Control:
    """A control centre that is all local, on a fake Mac, and on a Linux with busybox alone in its PATH."""
    if request.param == "mac":
        local_control.mac = request.getfixturevalue("mac")
    else:
        tools = tmp_path / "tools"
        tools.mkdir()
        busybox = str(shutil.which("busybox"))
        for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
            (tools / name).symlink_to(busybox)
        (tools / "timeout").unlink()
        (tools / "git").symlink_to(str(shutil.which("git")))
        local_control.env["PATH"] = str(tools)
    return local_control


def test_local_steps_need_neither_proc_nor_gnu_tools(bare: Control) -> None:
    ran = bare.run(LOCAL)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("a") == "hello\n"
    assert ran.step("late")["outcome"] == "timed_out"
    assert (ran.step("fails")["outcome"], ran.step("fails")["exit_code"]) == ("failed", 7)
    assert ran.step("a")["had"]["escapes_unseen"] is bool(bare.mac)


def test_a_resumed_run_follows_its_local_step_again(bare: Control) -> None:
    process, record = bare.start(
        "steps: [{id: a, run: 'echo began; n=0; while [ $n -lt 30 ]; do n=$((n+1)); echo $n; sleep 0.1; done'}]"
    )
    wait_until(lambda: happened(record, "command_started"))
    process.kill()
    process.communicate()
    done = bare.do("resume", record.name)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (record / "logs" / "a-1.stdout.log").read_text()
    assert log == "began\n" + "".join(f"{number}\n" for number in range(1, 31))


def test_a_cancel_ends_all_processes_of_a_local_step(bare: Control) -> None:
    word = f"37.{os.getpid()}"

    def cancel(process: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, "command_started"))
        wait_until(lambda: _is_running(f"sleep {word}"))
        assert bare.do("cancel", record.name).returncode == 0

    ran = bare.run(f"steps: [{{id: a, run: 'sleep {word} & sleep {word}'}}]", meanwhile=cancel)
    assert ran.code == 130
    assert not _is_running(f"sleep {word}")


def _is_running(command: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"^{command}"], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_a_pipeline_with_fallbacks_runs_without_its_unreachable_vm(bare: Control) -> None:
    (bare.folder / "key").write_text("no key")
    bare.mode = "vm"
    bare.settings = f"vm: {{external_ip: 127.0.0.1, port: 1, user: u, key_path: {bare.folder / 'key'}}}\n"
    ran = bare.run("steps: [{id: a, on: vm, run: echo here, fallback: {on: local}}]")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.state["downgraded"]
    assert ran.log("a") == "here\n"
    assert "DOWNGRADED a: asked for vm, had local: the VM refused the connection (ssh_refused)" in ran.stdout


CODEX = """#!{python}
# Does what the demo's scripted model has Codex do: Codex itself is a program of another system here.
import json, re, subprocess, sys
prompt, arguments = sys.stdin.read(), sys.argv
for scene in json.load(open({scenario!r}))["scenarios"]:
    if re.search(scene["when"], prompt, re.DOTALL):
        break
for reply in scene["replies"]:
    if "shell" in reply:
        subprocess.run(["sh", "-c", reply["shell"]], cwd=arguments[arguments.index("-C") + 1], capture_output=True)
    else:
        open(arguments[arguments.index("-o") + 1], "w").write(reply["text"])
print('{{"type": "thread.started"}}')
"""


def test_the_demo_without_a_vm_runs_all_of_the_default_pipeline_locally(bare: Control, tmp_path: Path) -> None:
    codex = tmp_path / "codex-bin" / "codex"
    codex.parent.mkdir()
    codex.write_text(CODEX.format(python=sys.executable, scenario=str(DEMO / "scenario.json")))
    codex.chmod(0o755)
    shutil.copytree(DEMO / "project", bare.workspace, dirs_exist_ok=True)
    if bare.mac:
        (bare.mac.folder / "bin" / "codex").symlink_to(codex)
    else:
        bare.env["PATH"] += f":{codex.parent}"
    bare.env["OPENAI_API_KEY"] = KEY
    ran = bare.run(
        ROOT / "pipelines/default-run.yaml",
        *("--input", f"work_order={DEMO / 'work-order.md'}", "--input", "test=sh test.sh"),
        *("--input", "endpoint=http://127.0.0.1:9/v1"),
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.step("iterate[3].review")["result"]["status"] == "approved"
    patch = ran.record / "diff.patch"
    subprocess.run(["git", "apply", str(patch)], cwd=bare.workspace, check=True)
    subprocess.run(["sh", "test.sh"], cwd=bare.workspace, check=True, capture_output=True)


def test_gc_removes_ended_runs_and_spares_those_of_a_living_supervisor(local_mac_control: Control, vm: VM) -> None:
    control = local_mac_control
    word = f"38.{os.getpid()}"
    over = control.run("steps: [{id: a, run: echo over}]").record.name
    process, record = control.start(f"steps: [{{id: a, run: 'sleep {word}; echo x >>file'}}]")
    wait_until(lambda: _is_running(f"sleep {word}"))
    process.kill()
    process.communicate()
    states = control.folder / ".system" / "run-state"
    (states / over).mkdir()
    (states / over / "file").write_text("x" * 9000)
    (states / "unknown").mkdir()
    gc = ("gc", "--project", str(control.project_file()), "--older-than", "0s")
    dry = control.do(*gc, "--dry-run")
    assert re.search(rf"would go  run-state/{over} of run {over}, 1\d.\d kB: the run is over", dry.stdout), dry.stdout
    done = control.do(*gc)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this system hides the processes that runs left" in done.stdout
    assert f"kept      run-state/{record.name} of run {record.name}" in done.stdout
    assert "a command of it runs" in done.stdout
    assert {path.name for path in states.iterdir()} - {".git"} == {record.name}
    assert _is_running(f"sleep {word}")
    assert control.do("cancel", record.name).returncode == 0
    assert not _is_running(f"sleep {word}")


def test_gc_on_a_vm_from_a_mac_exits_with_0(mac_control: Control) -> None:
    ran = mac_control.run("steps: [{id: a, on: vm, run: echo over}]")
    assert ran.code == 0
    done = mac_control.do("gc", "--project", str(mac_control.project_file()))
    assert done.returncode == 0, done.stdout + done.stderr


def test_doctor_checks_a_mac_and_its_vm(mac_control: Control) -> None:
    done = mac_control.do("doctor", "--project", str(mac_control.project_file()))
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    said = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines() if line[:1].isalpha()}
    assert {said[name] for name in ("ssh", "login", "programs", "engine", "container", "here", "here-files")} == {"ok"}
    assert "Darwin" in done.stdout


@pytest.mark.timeout(300)
def test_selfcheck_finds_no_leak_and_names_what_a_mac_does_not_show(mac_control: Control) -> None:
    # Other tests change thousands of files in /tmp, and the fake stat is slow.
    temporary = mac_control.folder / "tmp"
    temporary.mkdir()
    mac_control.env["TMPDIR"] = str(temporary)
    done = mac_control.do("selfcheck", "--project", str(mac_control.project_file()), limit=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the secret was found only where it may be" in done.stdout
    here = done.stdout.partition("here:\n")[2].partition("\n10.")[0]
    assert re.search(r"clean +arguments of processes +[1-9]", here), here
    assert re.search(r"could not look +environment of processes", here), here
    assert "shows no program the environment of another" in here
    for place in ("workspace", "what is kept of commands"):
        assert re.search(rf"clean +{place} +[1-9]", here), here
