"""A small agent for tests: it does what the model says, and leaves the last message as its result."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

TRIES = 40
PAUSE = 0.25


def ask(items: list[Any]) -> dict[str, Any]:
    """Return the model's answer; try again while nobody listens, as the real agents do."""
    tools = [{"type": "function", "name": "shell"}]
    body = {"model": os.environ.get("MODEL", "m"), "input": items, "stream": False, "tools": tools}
    headers = {"Authorization": f"Bearer {os.environ['KEY']}", "Content-Type": "application/json"}
    url = f"{os.environ['PCC_PROXY_URL']}/responses"
    for _ in range(TRIES):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code < 429:
                raise
        except (OSError, HTTPException, ValueError):
            pass  # nobody listens, or the answer was cut
        time.sleep(PAUSE)
    raise SystemExit(1)


def main() -> None:
    """Work until the model sends a message."""
    items: list[Any] = [{"role": "user", "content": Path(os.environ["PCC_IN"], "prompt.md").read_text()}]
    while True:
        output = ask(items)["output"]
        last: dict[str, Any] = output[-1] if output else {"type": "message", "content": [{"text": ""}]}
        if last["type"] == "message":
            Path(os.environ["PCC_OUT"], "result.json").write_text(last["content"][0]["text"])
            return
        command = json.loads(last["arguments"])["command"]
        done = subprocess.run(command, cwd=os.environ["PCC_WORKSPACE"], capture_output=True, text=True, check=False)
        items += [last, {"type": "function_call_output", "call_id": last["call_id"], "output": done.stdout}]


if __name__ == "__main__":
    main()
