"""A run's step reaches the API of each of its keys, and the key itself stays away from it."""

from __future__ import annotations

import json

import pytest

from tests.cli.command import Folder
from tests.testbed.model import ModelServer

KEY = "sk-" + "0123456789" * 3
CALL = """
import json, os, sys, urllib.request
path, header, name = sys.argv[1:]
asked = urllib.request.Request(
    os.environ["PCC_PROXY_URL"] + path,
    open("body.json", "rb").read(),
    {header: os.environ[name], "content-type": "application/json"},
)
print(urllib.request.urlopen(asked).status, os.environ[name][:5])
"""


@pytest.mark.parametrize(
    ("api", "path", "header", "body"),
    [
        ("openai", "/responses", "x-api-key", {"model": "m", "input": "hello"}),
        (
            "anthropic",
            "/v1/messages",
            "x-api-key",
            {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]},
        ),
        (
            "gemini",
            "/v1beta/models/m:generateContent",
            "x-goog-api-key",
            {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
        ),
    ],
)
def test_a_step_reaches_the_api_of_its_key(folder: Folder, api: str, path: str, header: str, body: object) -> None:
    (folder.path / "call.py").write_text(CALL)
    (folder.path / "body.json").write_text(json.dumps(body))
    with ModelServer(key=KEY) as model:
        version = "/v1" if api == "openai" else ""
        folder.pipeline(f"""
            secrets: {{KEY: {{from: env, via: proxy, api: {api}, upstream: "{model.url}{version}"}}}}
            steps: [{{id: a, run: python3 call.py {path} {header} KEY, secrets: [KEY]}}]
        """)
        done = folder.do("run", "pipeline.yaml", "--run-id", "r1", env={"KEY": KEY})
        assert "200 pcct-" in done.stdout, done.stdout
        assert len(model.requests) == 1
    record = (folder.path / ".system/runs/r1/events.jsonl").read_text()
    (used,) = [line for line in map(json.loads, record.splitlines()) if line["event"] == "model_used"]
    assert (used["input_tokens"], used["output_tokens"], used["estimated_tokens"]) == (100, 20, 0)
    assert KEY not in record
