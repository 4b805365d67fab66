"""examples/server: three projects that the server does not trust, each on a VM of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

import pccpipe
from tests.e2e.control import ROOT, wait_until
from tests.testbed.vm import VM

NAMES = ("alpha", "beta", "gamma")
HEAD = "version: 1\nname: x\n"
MARKS = "canary-of-the-servers-files"
"""A text in every file of the server that no project may read."""
SHOWS_ITS_KEY = """
secrets: {KEY: {from: env}}
steps:
  - {id: a, on: vm, secrets: [KEY], run: 'printf %s "$KEY" | rev; sleep 4'}
"""
ASKS = """
steps:
  - id: loop
    repeat: {max: 2, until: steps.build.result.escalation == ''}
    steps:
      - id: build
        on: vm
        run: |
          cat "$PCC_IN/answers"
          [ ! -s "$PCC_IN/answers" ] || echo '{"escalation": ""}' >"$PCC_OUT/result.json"
          [ -s "$PCC_IN/answers" ] || cp "$PCC_IN/request" "$PCC_OUT/result.json"
        files:
          answers: {text: "${{ steps.build.answers.db_host }}"}
          request: {text: REQUEST}
        result: {path: result.json}
""".replace(
    "REQUEST",
    json.dumps(
        json.dumps(
            {
                "escalation": "<<<NEED_HELP>>>\nwhat_i_need: the database\n"
                "inputs: [{key: db_host, label: Its host}]\n<<<END_HELP>>>"
            }
        )
    ),
)


@dataclass
class Server:
    """The example's server as a process of its own, and a client of one of its projects at a time."""

    folder: Path
    vms: dict[str, VM]
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    runs: dict[str, list[str]] = field(default_factory=dict)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        with (self.folder / "server.log").open("ab") as log:
            argv = [sys.executable, "-m", "examples.server", str(self.settings()), str(self.port)]
            self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._listens)

    def stop(self, how: signal.Signals) -> None:
        """End its process with a signal."""
        assert self.process
        self.process.send_signal(how)
        self.process.wait(timeout=30)

    def settings(self) -> Path:
        """Write the settings: each project has a secret KEY, and one that only its own pipelines may name."""
        projects: dict[str, object] = {}
        for name, vm in self.vms.items():
            key = self.folder / f"{name}.key"
            key.write_text(f"{name}-{MARKS}\n")
            secret = {"file": str(key), "via": "direct"}
            projects[name] = {
                "token": f"token-of-{name}",
                "vm": {
                    "external_ip": vm.host,
                    "port": vm.port,
                    "user": vm.user,
                    "key_path": str(vm.key),
                    "known_hosts": str(vm.known_hosts),
                    "root": vm.root,
                },
                "secrets": {"KEY": secret, f"{name.upper()}_KEY": secret},
            }
        path = self.folder / "settings.json"
        path.write_text(json.dumps({"data": str(self.folder / "data"), "projects": projects, "note": MARKS}))
        return path

    def runs_dir(self, name: str) -> Path:
        return self.folder / "data" / name / "runs"

    def workspace(self, name: str) -> Path:
        return self.folder / "data" / name / "workspace"

    def client(self, name: str, token: str | None = None) -> httpx.Client:
        """Return a client of a project."""
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/projects/{name}",
            headers={"Authorization": f"Bearer {token or 'token-of-' + name}"},
            timeout=60,
        )

    def run(self, name: str, pipeline: str, **inputs: str) -> str:
        """Start a run, and return its id."""
        with self.client(name) as client:
            answer = client.post("/runs", json={"pipeline": HEAD + pipeline, "inputs": inputs})
        assert answer.status_code == 201, answer.text
        run_id: str = answer.json()["run_id"]
        return run_id

    def state(self, name: str, run_id: str) -> dict[str, Any]:
        with self.client(name) as client:
            answer = client.get(f"/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state

    def ended(self, name: str, run_id: str) -> dict[str, Any]:
        """Wait for the end of a run, and return its state."""
        wait_until(lambda: self.state(name, run_id)["outcome"], limit=60)
        return self.state(name, run_id)

    def happened(self, name: str, run_id: str, kind: type[object]) -> list[pccpipe.Event]:
        events = pccpipe.read_events(run_id, runs_dir=self.runs_dir(name))
        return [event for event in events if isinstance(event.what, kind)]

    def log(self, name: str, run_id: str, step: str, **more: int) -> httpx.Response:
        with self.client(name) as client:
            return client.get(f"/runs/{run_id}/log", params={"step": step, **more})

    def _listens(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


@pytest.fixture(scope="module")
def three_vms(bed: None) -> Iterator[dict[str, VM]]:
    """Give each project a VM."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(VM.up(images=False)) for name in NAMES}


@pytest.fixture
def server(tmp_path: Path, three_vms: dict[str, VM]) -> Iterator[Server]:
    """Give the server with three projects."""
    made = Server(tmp_path, three_vms)
    made.start()
    yield made
    assert made.process
    made.process.kill()
    made.process.wait()


def test_three_projects_run_at_the_same_time_with_their_own_secrets(server: Server) -> None:
    started = {name: server.run(name, SHOWS_ITS_KEY) for name in NAMES}
    for name, run_id in started.items():
        state = server.ended(name, run_id)
        assert (state["status"], state["project"], state["downgraded"]) == ("succeeded", name, False)
        assert server.log(name, run_id, "a").text == f"{name}-{MARKS}"[::-1]
    began = [server.happened(name, run_id, pccpipe.CommandStarted)[0].time for name, run_id in started.items()]
    ended = [server.happened(name, run_id, pccpipe.CommandEnded)[0].time for name, run_id in started.items()]
    assert max(began) < min(ended)


ATTACKS = {
    "the secret of another project": (
        "secrets: {>BETA_KEY: {from: env}}\nsteps: [{id: a, on: vm, secrets: [BETA_KEY], run: id}]\n"
    ),
    "the file of another's secret": (
        "secrets:\n  KEY: {from: file, path: ../../../beta.key}\n  >OTHER: {from: file, path: FOLDER/beta.key}\n"
        "steps: [{id: a, on: vm, secrets: [KEY, OTHER], run: id}]\n"
    ),
    "a command for a secret": (
        "secrets: {>OTHER: {from: command, command: cat FOLDER/beta.key}}\n"
        "steps: [{id: a, on: vm, secrets: [OTHER], run: id}]\n"
    ),
    "the settings as a file of a step": (
        "steps:\n  - {id: a, on: vm, run: cat $PCC_IN/k, files: {k: {file: >FOLDER/settings.json}}}\n"
    ),
    "a link in its own workspace": "steps:\n  - {id: a, on: vm, run: cat $PCC_IN/k, files: {k: {file: >link}}}\n",
    "an include": "include: >FOLDER/settings.json\n",
    "another's workspace": (
        "steps:\n  - {id: a, on: vm, run: id, files: {k: {file: >../../beta/workspace/own.txt}}}\n"
    ),
    "a step on the server": "steps:\n  - {id: a, on: >local, run: cat FOLDER/beta.key}\n",
    "a fallback to the server": "steps:\n  - {id: a, on: vm, run: id, fallback: {on: >local}}\n",
    "the settings as an input": (
        'inputs: {f: {type: string}}\nsteps:\n  - {id: a, on: vm, run: id, files: {k: {file: >"${{ inputs.f }}"}}}\n'
    ),
}
"""Pipelines; `>` is where each is refused."""


@pytest.mark.parametrize("name", ["alpha", "gamma"])
def test_a_pipeline_reads_neither_anothers_secret_nor_the_servers_files(server: Server, name: str) -> None:
    (server.workspace("beta") / "own.txt").write_text(MARKS)
    (server.workspace(name) / "link").symlink_to(server.folder / "settings.json")
    inputs = {"f": str(server.folder / "settings.json")}
    with server.client(name) as client:
        for attack, marked in ATTACKS.items():
            pipeline = HEAD + marked
            before, _, after = pipeline.partition(">")
            text = (before + after).replace("FOLDER", str(server.folder))
            answer = client.post("/runs", json={"pipeline": text, "inputs": inputs if "inputs" in text else {}})
            assert answer.status_code == 422, (attack, answer.text)
            assert MARKS not in answer.text
            (problem,) = answer.json()["problems"]
            assert "the policy refuses" in problem["message"], attack
            assert (problem["line"], problem["column"]) == (before.count("\n") + 1, len(before.split("\n")[-1]) + 1)
        own = server.workspace("beta") / "pipeline.yaml"
        own.write_text(HEAD + "steps: [{id: a, on: vm, run: id}]\n")
        for path in (own, server.folder / "settings.json", server.folder / "beta.key", Path("/etc/passwd")):
            answer = client.post("/runs", json={"pipeline": str(path)})
            assert answer.status_code == 422
            assert MARKS not in answer.text
            assert "root:" not in answer.text
        assert client.get("/runs").json() == []
    assert not server.runs_dir(name).exists()


def test_a_project_needs_its_own_token_and_sees_its_own_runs(server: Server) -> None:
    run_id = server.run("alpha", "steps: [{id: a, on: vm, run: echo hello}]\n")
    server.ended("alpha", run_id)
    with server.client("alpha", token="token-of-beta") as client:
        assert client.get("/runs").status_code == 401
        assert client.post("/runs", json={"pipeline": HEAD}).status_code == 401
    with server.client("none") as client:
        assert client.get("/runs").status_code == 401
    with server.client("beta") as client:
        assert client.get("/runs").json() == []
        for path in (
            f"/runs/{run_id}",
            f"/runs/{run_id}/events",
            f"/runs/{run_id}/log?step=a",
            "/runs/..%2f..%2falpha%2fruns%2f" + run_id,
        ):
            assert client.get(path).status_code == 404
        assert client.post(f"/runs/{run_id}/cancel").status_code == 404
    with server.client("alpha") as client:
        assert [(run["run_id"], run["status"]) for run in client.get("/runs").json()] == [(run_id, "succeeded")]


def test_a_client_that_reconnects_gets_each_event_once(server: Server) -> None:
    steps = "".join(f"  - {{id: s{number}, on: vm, run: sleep 0.3}}\n" for number in range(6))
    run_id = server.run("alpha", "steps:\n" + steps)
    got: list[dict[str, Any]] = []
    with server.client("alpha") as client:
        while True:
            last = {"Last-Event-ID": str(got[-1]["seq"])} if got else {}
            with client.stream("GET", f"/runs/{run_id}/events", headers=last) as stream:
                if stream.status_code == 204:
                    break
                for line in stream.iter_lines():
                    if line.startswith("data: "):
                        got.append(json.loads(line.removeprefix("data: ")))
                        assert got[-1]["seq"] == len(got)
                        if len(got) % 5 == 0:
                            break  # the connection is cut, with events on their way
    recorded = (server.runs_dir("alpha") / run_id / "events.jsonl").read_text().splitlines()
    assert got == [json.loads(line) for line in recorded]
    assert got[-1]["event"] == "run_ended"
    assert len(got) > 20


def test_a_log_comes_in_pieces_while_its_step_runs(server: Server) -> None:
    run_id = server.run("alpha", "steps: [{id: a, on: vm, run: 'echo one; sleep 3; echo two'}]\n")
    wait_until(lambda: server.happened("alpha", run_id, pccpipe.CommandStarted))
    wait_until(lambda: server.log("alpha", run_id, "a").text)
    first = server.log("alpha", run_id, "a")
    assert (first.text, first.headers["x-complete"]) == ("one\n", "false")
    server.ended("alpha", run_id)
    second = server.log("alpha", run_id, "a", offset=int(first.headers["x-next-offset"]))
    assert (second.text, second.headers["x-complete"]) == ("two\n", "true")
    assert server.log("alpha", run_id, "none").status_code == 409


def test_a_run_is_cancelled_and_cleans_up(server: Server) -> None:
    pipeline = "steps: [{id: a, on: vm, run: sleep 300}]\nalways: [{id: z, on: vm, run: echo cleaned}]\n"
    run_id = server.run("alpha", pipeline)
    wait_until(lambda: server.happened("alpha", run_id, pccpipe.CommandStarted))
    with server.client("alpha") as client:
        assert client.post(f"/runs/{run_id}/cancel").status_code == 202
        assert server.ended("alpha", run_id)["outcome"] == "cancelled"
        assert server.log("alpha", run_id, "z").text == "cleaned\n"
        wait_until(lambda: client.post(f"/runs/{run_id}/cancel").status_code == 409)


def test_an_answer_lets_a_waiting_run_go_on_also_after_the_server_was_killed(server: Server) -> None:
    answered, cancelled = (server.run(name, ASKS) for name in ("alpha", "beta"))
    wait_until(lambda: server.state("alpha", answered)["status"] == "waiting_for_input")
    wait_until(lambda: server.state("beta", cancelled)["status"] == "waiting_for_input")
    server.stop(signal.SIGKILL)
    server.start()
    with server.client("alpha") as client:
        assert client.post(f"/runs/{answered}/answers", json={"none": "x"}).status_code == 409
        wait_until(lambda: client.post(f"/runs/{answered}/answers", json={"db_host": "10.0.0.7"}).status_code == 200)
    assert server.ended("alpha", answered)["outcome"] == "succeeded"
    assert server.log("alpha", answered, "loop[2].build").text == "10.0.0.7"
    with server.client("beta") as client:
        client.post(f"/runs/{cancelled}/cancel")
    assert server.ended("beta", cancelled)["outcome"] == "cancelled"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ends_leaves_its_runs_to_the_next_one(server: Server, how: signal.Signals) -> None:
    pipeline = "steps:\n  - {id: a, on: vm, run: 'echo one; sleep 5; echo two'}\n  - {id: b, on: vm, run: echo three}\n"
    started = {name: server.run(name, pipeline) for name in NAMES}
    queued = server.run("alpha", "steps: [{id: q, on: vm, run: echo queued}]\n")
    wait_until(lambda: all(server.happened(*run, pccpipe.CommandStarted) for run in started.items()))
    server.stop(how)
    server.start()
    for name, run_id in started.items():
        state = server.ended(name, run_id)
        assert (state["outcome"], state["cancelled_by"]) == ("succeeded", None)
        assert [server.log(name, run_id, step).text for step in "ab"] == ["one\ntwo\n", "three\n"]
        assert len(server.happened(name, run_id, pccpipe.RunResumed)) == 1
        assert len(server.happened(name, run_id, pccpipe.CommandStarted)) == 2
    assert server.ended("alpha", queued)["outcome"] == "succeeded"
