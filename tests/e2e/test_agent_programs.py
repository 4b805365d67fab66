"""Codex and Claude Code, the real programs in real containers, prove each line of the table in docs/agents.md.

One run a program: its steps play the lines, and the last one hangs until the run is cancelled.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct

from tests.docs.agents_table import LINES, PROGRAMS
from tests.e2e.control import KEY, Control, Ran, containers, wait_until
from tests.e2e.test_workspace_config import APIS
from tests.testbed.model import Json, ModelServer
from tests.testbed.vm import VM

GOOD: Json = {"summary": "made it", "risks": [], "escalation": "", "tests": [], "changes": []}
LEFT = "sleep 81234"
"""The command that the agent leaves running."""
HEAD = """
inputs: {endpoint: {type: string}}
agents:
  good: {use: USE, model: a-model, secret: MODEL_KEY}
  locked: {use: USE, model: a-model, secret: WRONG_KEY}
secrets:
  MODEL_KEY: {from: env, via: proxy, api: API, upstream: "${{ inputs.endpoint }}"}
  WRONG_KEY: {from: env, via: proxy, api: API, upstream: "${{ inputs.endpoint }}"}
containers: {agent: {image: "pcc-runner:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
"""
STEP = """
  - id: NAME
    on: container
    container: agent
    agent: AGENT
    prompt: {text: "Do the work that is called NAME."}
    result: {path: NAME.json, schema: builder-result}
    timeout: TIMEOUT
    repair: 0
    continue_on_error: true
"""
# The shell's loop leaves no copy of the key's pattern in an argument list.
INSIDE = f"""
env; cat /proc/[0-9]*/environ | tr '\\0' '\\n'; cat "$HOME"/.*/*.json "$HOME"/.*/*.toml /pcc/in/*
setsid nohup {LEFT} >/dev/null 2>&1 &
sleep 0.2; cat /proc/[0-9]*/cmdline | tr '\\0' ' '
"""


def step(name: str, agent: str = "good", *, timeout: str = "60s", repair: int = 0) -> str:
    text = STEP.replace("NAME", name).replace("AGENT", agent).replace("TIMEOUT", timeout)
    return text.replace("repair: 0", f"repair: {repair}")


STEPS = "".join(
    [
        *(step("works"), step("limits"), step("no-work"), step("empty"), step("repair", repair=1)),
        *(
            step("wrong-key", "locked"),
            step("time", timeout="8s"),
            "  - {id: changes, diff: diff.patch}\n",
            step("cancel"),
        ),
    ]
)
SCENARIO: Json = {
    "scenarios": [
        {
            "when": "called works",
            "replies": [{"shell": INSIDE}, {"write": {"path": "made.txt", "text": "made\n"}}, {"result": GOOD}],
        },
        {
            "when": "called limits",
            "replies": [
                {"shell": "echo one", "fail": {"status": 429, "headers": {"retry-after": "1"}}},
                {"shell": "echo two", "fail": {"status": 529}},
                {"result": GOOD, "cut": {}},
            ],
        },
        {"when": "called no-work", "replies": [{"text": "All done!"}]},
        {"when": "called empty", "replies": [{"empty": True}]},
        {"when": "called repair", "replies": [{"result": {"summary": 1}}, {"result": GOOD}]},
        {"when": "required property", "replies": [{"result": GOOD}]},
        {"when": "called time", "replies": [{"shell": "echo began; sleep 81235"}]},
        {"when": "called cancel", "replies": [{"hang": True}]},
    ],
    # Claude Code asks by itself once more for a result that it did not get.
    "replies": [{"text": "All done!"}],
}


class Proof(Struct, frozen=True):
    """A whole run of one program, and the words that the VM had meanwhile."""

    ran: Ran
    vm: VM
    model: ModelServer
    on_vm: str


def play(control: Control, model: ModelServer, program: str) -> Proof:
    """Run all steps; look at the VM and cancel while the last one hangs."""
    assert control.vm is not None
    vm, on_vm = control.vm, ""
    model.set(SCENARIO)
    control.env = {"MODEL_KEY": KEY, "WRONG_KEY": "sk-wrong-5b1f7c"}

    def asked(name: str) -> bool:
        return any(request.asked and f"called {name}" in request.asked.prompt for request in model.requests)

    def look_and_cancel(process: subprocess.Popen[str], record: Path) -> None:
        nonlocal on_vm
        wait_until(lambda: asked("cancel") or process.poll() is not None, 150)
        if process.poll() is not None:
            return
        on_vm = vm.sh(
            "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; docker inspect $(docker ps -q)"
            f"; grep -rash {KEY[:-4]}'{KEY[-4:]}' /home /root /tmp /run /var/tmp /dev/shm || :"
        ).stdout
        assert containers(vm, record.name), "its container runs"
        control.do("cancel", record.name)

    api, base = APIS[program]
    pipeline = HEAD.replace("USE", program).replace("API", api) + STEPS
    ran = control.run(*(pipeline, "--input", f"endpoint={model.url}{base}"), meanwhile=look_and_cancel, limit=200)
    assert on_vm, ran.stdout + ran.stderr
    return Proof(ran, vm, model, on_vm)


def works(proof: Proof) -> None:
    assert proof.ran.step("works")["outcome"] == "succeeded", proof.ran.stdout + proof.ran.log("works", "stderr")
    assert proof.ran.step("works")["result"] == GOOD
    assert "+++ b/made.txt\n@@ -0,0 +1 @@\n+made\n" in (proof.ran.record / "diff.patch").read_text()


def key(proof: Proof) -> None:
    requests = [request for request in proof.model.requests if request.asked]
    keys = {str(request.headers.get("authorization") or request.headers.get("x-api-key")) for request in requests}
    assert {KEY in each for each in keys} == {True, False}, "the wrong one too"
    assert not [request for request in requests if KEY in str(request.body)], "the container's words"
    assert any("PCC_PROXY_URL=" in str(request.body) for request in requests), "the agent did look"
    assert "PCC_" in proof.on_vm
    assert KEY not in proof.on_vm
    files = [path for path in proof.ran.record.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def children(proof: Proof) -> None:
    assert any(LEFT in str(request.body) for request in proof.model.requests if request.asked), "it ran"
    assert LEFT not in proof.on_vm.replace("\n", " ")
    assert not containers(proof.vm, proof.ran.record.name)


def limits(proof: Proof) -> None:
    assert proof.ran.step("limits")["outcome"] == "succeeded", proof.ran.log("limits")
    assert proof.ran.step("limits")["result"] == GOOD


def no_work(proof: Proof) -> None:
    failed(proof, "no-work", exit_code=0)


def empty(proof: Proof) -> None:
    failed(proof, "empty")


def repair(proof: Proof) -> None:
    assert proof.ran.step("repair")["outcome"] == "succeeded", proof.ran.step("repair")
    assert proof.ran.step("repair")["result"] == GOOD


def wrong_key(proof: Proof) -> None:
    failed(proof, "wrong-key")
    ended = proof.ran.step("wrong-key")
    assert "401" in ended["message"] + proof.ran.log("wrong-key") + proof.ran.log("wrong-key", "stderr")
    assert not ended.get("fallback")


def time(proof: Proof) -> None:
    assert proof.ran.step("time")["outcome"] == "timed_out"
    assert proof.ran.log("time")
    assert "81235" not in proof.on_vm


def cancel(proof: Proof) -> None:
    assert proof.ran.state["outcome"] == "cancelled"
    assert proof.ran.step("cancel")["outcome"] == "cancelled"


def failed(proof: Proof, name: str, *, exit_code: int | None = None) -> None:
    ended = proof.ran.step(name)
    assert ended["outcome"] == "failed", ended
    if exit_code is not None:
        assert ended["attempts"][-1]["exit_code"] == exit_code


PROOFS: dict[str, Callable[[Proof], None]] = {
    **{"works": works, "key": key, "children": children, "limits": limits, "no-work": no_work, "empty": empty},
    **{"repair": repair, "wrong-key": wrong_key, "time": time, "cancel": cancel},
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_real_program_proves_each_line_of_the_docs(control: Control, model: ModelServer, program: str) -> None:
    proof = play(control, model, program)
    wrong = []
    for name, proves in PROOFS.items():
        try:
            proves(proof)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join(wrong)


def test_each_line_of_the_docs_has_a_proof() -> None:
    assert [*PROOFS, "hostile"] == [*LINES], "tests/docs/agents_table.py"
