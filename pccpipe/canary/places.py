"""Says to which place of the ledger a file belongs, by its path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pccpipe.canary.ledger import Spot
from pccpipe.docker_api.settings import HOME
from pccpipe.layout import COMMANDS, COPY, LANE, SYSTEM, SystemDir


class Classifier:
    """Find the place of a file by its path: that of the first pattern that matches, or None."""

    def __init__(self, *patterns: tuple[str, Spot]) -> None:
        self._patterns = [(re.compile(pattern), spot) for pattern, spot in patterns]

    @property
    def spots(self) -> Sequence[Spot]:
        """The places that it may return."""
        return tuple(dict.fromkeys(spot for _, spot in self._patterns))

    def __call__(self, path: str) -> Spot | None:
        return next((spot for pattern, spot in self._patterns if pattern.match(path)), None)


def local_files(folder: Path, record: Path, workspace: Path) -> Classifier:
    """Classify files of this machine: of the check's own folder, the workspace, and folders for temporary files."""
    state = re.escape(SystemDir(str(folder / SYSTEM)).states)
    return Classifier(
        (f"{state}/[^/]+/{COMMANDS}/[^/]+[.]std(out|err)$", Spot.SPOOLS),
        (f"{state}(/|$)", Spot.STATE),
        (f"{re.escape(str(record))}/{COPY}[^/]*(/|$)", Spot.WORKSPACE),
        (f"{re.escape(str(workspace))}(/|$)", Spot.WORKSPACE),
        # The record has rows of its own.
        (f"(?!{re.escape(str(folder))})", Spot.TEMPORARY),
    )


def vm_files(state: str, workspace: str, engine_folder: str) -> Classifier:
    """Classify files of the VM; the engine's files have a row of their own."""
    others = f"(?!{re.escape(engine_folder)}(/|$))" if engine_folder else ""
    return Classifier(
        (f"{re.escape(state)}/{LANE}[^/]+/(out|err)$", Spot.SPOOLS),
        (f"{re.escape(state)}(/|$)", Spot.STATE),
        (f"{re.escape(workspace)}(/|$)", Spot.WORKSPACE),
        (f"{others}/", Spot.DISK),
    )


def container_files(pid: int) -> Classifier:
    """Classify a container's own files, seen through its first process."""
    root = f"/proc/{pid}/root"
    return Classifier((f"{root}{HOME}(/|$)", Spot.CONTAINER_MEMORY), (f"{root}/", Spot.CONTAINER_DISK))


def engine_files(folder: str) -> Classifier:
    """Classify files of the engine's folder, which has each container's output as it was printed."""
    return Classifier(
        (f"{re.escape(folder)}/containers/[^/]+/(local-logs/|[^/]+-json\\.log)", Spot.SPOOLS),
        (f"{re.escape(folder)}(/|$)", Spot.ENGINE_FILES),
    )
