"""On Windows one sentence says what to do, before anything is imported that is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What CPython lacks there, taken away before the first import of pccpipe's.
WINDOWS = """
import os, signal, sys
os.name = "nt"
for name in ("fcntl", "pwd", "grp", "resource", "termios", "pty", "sh"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGQUIT", "SIGKILL", "SIGPIPE", "SIGXFSZ"):
    delattr(signal, name)
for name in ("getuid", "getgid", "fork", "setsid", "killpg", "uname"):
    delattr(os, name)
"""


def on_windows(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", f"{WINDOWS}\n{program}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["run", "x.yaml"], ["validate", "x.yaml"], ["runs"], []])
def test_a_command_says_to_use_wsl(arguments: list[str]) -> None:
    said = on_windows("from pccpipe.cli.main import main; main()", *arguments)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("pccpipe runs on Linux and macOS. On Windows it runs in WSL 2: `wsl --install`")
    assert said.stderr.count("\n") == 1


def test_the_version_is_printed_on_every_system() -> None:
    said = on_windows("from pccpipe.cli.main import main; main()", "--version")
    assert said.returncode == 0
    assert said.stdout.startswith("pccpipe ")


@pytest.mark.parametrize("use", ["from pccpipe import run", "import pccpipe; pccpipe.load('x.yaml')"])
def test_the_library_says_so_too(use: str) -> None:
    said = on_windows(use)
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith("ImportError: pccpipe runs on Linux and macOS.")
