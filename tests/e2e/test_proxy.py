"""`via: proxy` and `egress:`: the real Codex in a container without a network reaches only its API."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.control import KEY, Control, containers, wait_until
from tests.e2e.test_resume import resume
from tests.ssh.test_connection import reconfigure
from tests.testbed.engine import Engine
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM

pytestmark = pytest.mark.also_on_a_mac

AGENT = """
inputs: {endpoint: {type: string}, budget: {type: integer, default: 1000000}}
secrets: {OPENAI_API_KEY: {from: env, via: proxy, upstream: "${{ inputs.endpoint }}"}}
containers: {agent: {image: "pcc-runner:latest", network: none}}
steps:
  - id: build
    on: container
    container: agent
    run: |
      pcc-codex --json --ephemeral --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox \\
        -C "$PCC_WORKSPACE" -m gpt-5.2-codex -o "$PCC_OUT/result.json" - <"$PCC_IN/prompt.md"
    files: {prompt.md: {text: Do it.}}
    secrets: [OPENAI_API_KEY]
    max_tokens: ${{ inputs.budget }}
    timeout: 80s
    result: {path: "builder/iter-1/result.json"}
"""
DONE = {"text": '{"summary": "done"}'}
LONG = {"text": '{"summary": "' + "done " * 80 + '"}', "trickle_s": 0.3}
ASK = 'curl -s -m 10 -o /dev/null -w "%{http_code}\\n"'


def played(model: ModelServer) -> int:
    return len([request for request in model.requests if request.body])


def test_codex_works_without_a_network_and_its_key_stays_here(control: Control, model: ModelServer) -> None:
    """Look from inside of the container, and from the VM while it runs."""
    vm = control.vm
    assert vm is not None
    inside = "env; cat /proc/*/environ | tr '\\0' '\\n'; ls /sys/class/net; touch /workspace/now; sleep 4"
    model.set({"replies": [{"shell": inside}, DONE]})
    seen = ""

    def look(_: subprocess.Popen[str], record: Path) -> None:
        nonlocal seen
        now = f"{vm.root}/.system/run-workspaces/{record.name}/now"
        wait_until(lambda: vm.sh(f"test -e {now}", check=False).returncode == 0)
        seen = vm.sh(
            "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; docker inspect $(docker ps -q);"
            f"grep -rlF {KEY[3:]} /home /root /tmp /run /var/lib/docker/containers /etc 2>/dev/null; echo looked",
            check=False,
        ).stdout

    ran = control.run(AGENT, "--input", f"endpoint={model.url}/v1", meanwhile=look)
    assert ran.code == 0, ran.stdout + ran.stderr + ran.log("build", "stderr")
    assert "looked" in seen
    assert '"NetworkMode": "none"' in seen
    # The search lists its own process too.
    assert [line for line in seen.splitlines() if KEY[3:] in line and "grep -rlF" not in line and line != KEY[3:]] == []
    assert {request.authorization for request in model.requests if request.body} == {f"Bearer {KEY}"}
    output = ran.log("build").replace("\\n", "\n")
    assert "PCC_PROXY_URL=http://127.0.0.1:" in output
    assert KEY not in output
    assert "pcct-" not in "".join(path.read_text(errors="replace") for path in ran.record.rglob("*") if path.is_file())
    step = ran.step("build")
    assert step["attempts"][0]["secrets"] == {"OPENAI_API_KEY": "proxy"}
    assert step["attempts"][0]["had"]["network"] == "none"
    assert ran.state["warnings"] == []
    assert (step["model"]["calls"], step["model"]["input_tokens"], step["model"]["output_tokens"]) == (2, 200, 40)


def test_an_agent_survives_a_killed_ssh_session_during_an_answer(control: Control, model: ModelServer) -> None:
    vm = control.vm
    assert vm is not None
    model.set({"replies": [LONG]})

    def kill(_: subprocess.Popen[str], __: Path) -> None:
        wait_until(lambda: played(model) > 0)
        time.sleep(1)
        assert vm.kill_sessions()

    ran = control.run(AGENT, "--input", f"endpoint={model.url}/v1", meanwhile=kill)
    assert ran.code == 0, ran.stdout + ran.stderr + ran.log("build") + ran.log("build", "stderr")
    assert played(model) == 2
    step = ran.step("build")
    assert len(step["attempts"]) == 1
    # The proxy read the interrupted answer to its end.
    assert (step["model"]["calls"], step["model"]["output_tokens"]) == (2, 40)


def test_a_killed_pccpipe_is_resumed_and_serves_the_same_agent_again(
    control: Control, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert control.vm is not None
    model.set({"replies": [{"shell": "true"}, LONG]})
    process, record = control.start(AGENT, "--input", f"endpoint={model.url}/v1")
    wait_until(lambda: played(model) == 2)
    time.sleep(0.7)
    process.kill()
    process.communicate()
    (name,) = containers(control.vm)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ran = resume(control, record)
    assert ran.code == 0, ran.stdout + ran.stderr + ran.log("build") + ran.log("build", "stderr")
    step = ran.step("build")
    assert [attempt["had"]["container"] for attempt in step["attempts"]] == [name]
    assert step["attempts"][0]["secrets"] == {"OPENAI_API_KEY": "proxy"}
    # The tokens used before the kill count as well.
    assert (step["model"]["calls"], step["model"]["input_tokens"]) == (2, 200)
    assert played(model) == 3


def test_max_tokens_ends_an_agent_and_the_record_has_the_cause(control: Control, model: ModelServer) -> None:
    usage = {"input_tokens": 12_000, "output_tokens": 20}
    replies = [{"shell": "true", "usage": usage}, {"shell": "true", "usage": usage}, DONE]
    model.set({"replies": replies})
    began = time.monotonic()
    ran = control.run(AGENT, "--input", f"endpoint={model.url}/v1", "--input", "budget=25000")
    assert ran.code == 1
    assert time.monotonic() - began < 30
    step = ran.step("build")
    assert step["code"] == "budget_exceeded"
    assert "24,040 of this turn's max_tokens of 25,000 are used" in step["message"]
    assert any("budget_exceeded" in warning for warning in ran.state["warnings"])
    assert "budget_exceeded" in ran.stdout
    assert (step["model"]["calls"], step["model"]["max_tokens"]) == (2, 25_000)
    assert step["model"]["refused"] >= 1
    assert "max_tokens of 25,000 are used" in ran.log("build")
    assert played(model) == 2


def test_the_proxy_refuses_wrong_and_revoked_tokens_and_other_paths(control: Control, model: ModelServer) -> None:
    step = """
      on: container
      container: agent
      secrets: [OPENAI_API_KEY]
      run: |
        auth="Authorization: Bearer $OPENAI_API_KEY"
        """
    script = f"""
        {ASK} -H "$auth" $PCC_PROXY_URL/models
        {ASK} -H "$auth" $PCC_PROXY_URL/files
        {ASK} -X DELETE -H "$auth" $PCC_PROXY_URL/models/x
        {ASK} -H "Authorization: Bearer wrong" $PCC_PROXY_URL/models
        {ASK} $PCC_PROXY_URL/models
        {ASK} {model.url}/v1/models || echo no network
    """
    head = AGENT[: AGENT.index("steps:")]
    ran = control.run(
        f"{head}steps:\n"
        f"    - id: first{step}printf '%s' \"$OPENAI_API_KEY\" >token\n{script}\n"
        f'    - id: second{step}{ASK} -H "$auth" $PCC_PROXY_URL/models\n'
        f'        {ASK} -H "Authorization: Bearer $(cat token)" $PCC_PROXY_URL/models\n',
        *("--input", f"endpoint={model.url}/v1"),
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("first").split("\n")[:7] == ["200", "403", "403", "401", "401", "000", "no network"]
    assert ran.log("second").split() == ["200", "400"]
    assert any("first: GET /v1/files was refused" in warning for warning in ran.state["warnings"])


BY_HAND = """
inputs: {endpoint: {type: string}}
secrets: {OPENAI_API_KEY: {from: env, via: proxy, upstream: "${{ inputs.endpoint }}"}}
steps:
  - id: ask
    on: PLACE
    shell: bash
    secrets: [OPENAI_API_KEY]
    run: |
      echo "$OPENAI_API_KEY" | cut -c 1-5
      port=${PCC_PROXY_URL#http://127.0.0.1:}; port=${port%/v1}
      for turn in 1 2; do
        while ! exec 3<>/dev/tcp/127.0.0.1/$port; do sleep 0.3; done
        printf '%s\\r\\n' 'GET /v1/models HTTP/1.1' 'Host: x' "Authorization: Bearer $OPENAI_API_KEY" '' >&3
        head -n 1 <&3; exec 3>&-
        touch "$PCC_WORKSPACE/asked"; sleep 3
      done
"""


@pytest.mark.parametrize("place", ["vm", "local"])
def test_a_step_in_no_container_has_a_proxy_port_also_after_a_resume(
    control: Control, model: ModelServer, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    process, record = control.start(BY_HAND.replace("PLACE", place), "--input", f"endpoint={model.url}/v1")
    # Its answer has arrived too, because one under way at the kill would be lost.
    wait_until(lambda: any("HTTP/1.1 200" in log.read_text() for log in record.glob("logs/ask-*.stdout.log")))
    process.kill()
    process.communicate()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ran = resume(control, record)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("ask").count("HTTP/1.1 200") == 2
    assert [request.authorization for request in model.requests] == [f"Bearer {KEY}"] * 2


OUT = """
containers: {box: {image: "pcc-runner:latest", network: none, egress: ["ALLOWED"]}}
steps:
  - id: fetch
    on: container
    container: box
    run: |
      env | grep -i proxy | sed 's/[0-9]*$//'
      curl -s -m 10 MODEL/v1/models
      curl -s -m 10 -p MODEL/v1/models
      curl -s -m 10 -o /dev/null -w '%{http_connect}\\n' https://example.org/ || :
      curl -s -m 10 --noproxy '*' MODEL/v1/models || echo no network
"""


def test_a_container_without_a_network_reaches_the_domains_of_its_egress_and_no_others(
    control: Control, model: ModelServer
) -> None:
    model.key = None
    pipeline = OUT.replace("ALLOWED", model.url.removeprefix("http://")).replace("MODEL", model.url)
    ran = control.run(pipeline)
    assert ran.code == 0, ran.stdout + ran.stderr
    output = ran.log("fetch")
    assert output.count('{"object": "list"') == 2
    assert output.endswith("403\nno network\n")
    assert "HTTPS_PROXY=http://pccpipe:***@127.0.0.1:" in output
    assert ran.state["warnings"] == [
        "fetch: a connection to example.org:443 was refused: it is not in the container's `egress:`"
    ]


def test_the_local_engines_containers_need_no_network_either(
    tmp_path: Path, local_engine: Engine, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", local_engine.url)
    model.set({"replies": [DONE]})
    # The path of a run's folder may be longer than a socket's address can be.
    control = Control(tmp_path / ("deep" * 20), mode="container")
    control.folder.mkdir()
    ran = control.run(AGENT, "--input", f"endpoint={model.url}/v1")
    assert ran.code == 0, ran.stdout + ran.stderr + ran.log("build", "stderr")
    assert ran.step("build")["model"]["calls"] == 1


def test_a_server_that_forwards_nothing_makes_the_step_unavailable_and_names_the_setting(
    tmp_path: Path, fresh_vm: VM
) -> None:
    reconfigure(fresh_vm, "AllowStreamLocalForwarding no")
    ran = Control(tmp_path, fresh_vm).run("""
        secrets: {OPENAI_API_KEY: {from: env, via: proxy}}
        containers: {box: {image: "bb:latest", network: none}}
        steps:
          - id: ask
            on: container
            container: box
            secrets: [OPENAI_API_KEY]
            run: echo never
            fallback: {on: local, run: echo here}
    """)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("ask") == "here\n"
    (downgrade,) = ran.state["downgrades"]
    assert downgrade["reason"] == "proxy_refused"
    assert "AllowStreamLocalForwarding yes" in ran.step("ask")["attempts"][0]["hint"]


def test_importing_the_library_does_not_load_the_proxy() -> None:
    check = "import sys, pccpipe; print({'h11', 'ssl', 'http.client', 'http.server'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
