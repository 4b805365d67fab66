"""A caller of the library may lead the calls of each step elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import unquote

import pccpipe
from pccpipe.outcome import Outcome
from pccpipe.scripted.dialect import Asked
from pccpipe.scripted.reply import Reply, Say
from pccpipe.scripted.server import ScriptedServer

CALL = """
import json, os, urllib.request as request
body = json.dumps({"model": "m", "input": "x", "stream": False}).encode()
head = {"Authorization": "Bearer " + os.environ["KEY"], "Content-Type": "application/json"}
request.urlopen(request.Request(os.environ["PCC_PROXY_URL"] + "/responses", body, head)).read()
raise SystemExit(os.environ["AGAIN"] != "")
"""


def test_each_step_and_attempt_calls_its_own_base(tmp_path: Path) -> None:
    (tmp_path / "call.py").write_text(CALL)
    pipeline = pccpipe.load(
        f"""
        version: 1
        name: upstreams
        secrets: {{KEY: {{from: env, via: proxy, upstream: "http://192.0.2.1/v1"}}}}
        steps:
          - id: loop
            repeat: {{max: 2, until: iteration == 2}}
            steps:
              - id: ask
                on: local
                retry: {{attempts: 2, backoff: 0s}}
                env: {{AGAIN: "${{{{ 'x' if iteration == 1 else '' }}}}"}}
                run: {sys.executable} {tmp_path}/call.py
                secrets: [KEY]
                continue_on_error: true
        """
    )
    paths: list[str] = []

    def choose(path: str, asked: Asked) -> Reply:
        paths.append(unquote(path))
        return Reply(Say("ok"))

    with ScriptedServer(choose, key="sk-dummy-of-this-test") as model:
        result = pccpipe.run(
            pipeline,
            run_id="r1",
            project=pccpipe.local_project(),
            workspace=tmp_path,
            runs_dir=tmp_path / "runs",
            secrets={"KEY": "sk-dummy-of-this-test"},
            upstreams={"KEY": f"{model.url}/{{step}}/{{attempt}}"},
        )
    assert result.outcome is Outcome.SUCCEEDED, result.message
    assert paths == [
        "/loop[1].ask/1/responses",
        "/loop[1].ask/2/responses",
        "/loop[2].ask/1/responses",
    ]
