"""The seam by which a policy judges a file while it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pccpipe.spec.problem import Problem
from pccpipe.spec.source import Source


class PolicyCheck(Protocol):
    """Judges what a pipeline or a project file asks for, before anything that it names is opened."""

    def refusals(self, source: Source, folder: Path) -> list[Problem]:
        """Return what is refused. Relative names in `source` begin at `folder`."""
        ...


class IncludeCheck(PolicyCheck, Protocol):
    """Judges also which files a pipeline includes."""

    def include_refusal(self, file: Path, folder: Path) -> str:
        """Say why a pipeline in `folder` may not include a file; "" if it may."""
        ...
