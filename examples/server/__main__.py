"""python -m examples.server SETTINGS.json [PORT]: serves on this machine alone; put a proxy with TLS before it."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from examples.server.app import create_app
from examples.server.settings import Settings


def main() -> None:
    """Serve until the process ends."""
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_bytes())
    uvicorn.run(create_app(settings), host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000)


if __name__ == "__main__":
    main()
