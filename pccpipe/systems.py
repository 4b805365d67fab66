"""Says on which systems pccpipe runs. Imports nothing that only some of them have."""

from __future__ import annotations

import os

_WINDOWS = (
    "pccpipe runs on Linux and macOS. On Windows it runs in WSL 2: `wsl --install`, then install and start it in there"
)


def refusal() -> str:
    """Say why pccpipe does not run on this system; empty if it does."""
    return _WINDOWS if os.name == "nt" else ""
