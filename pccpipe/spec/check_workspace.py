"""Checks `workspace: own`: that something runs beside the step, and that there is a workspace to copy."""

from __future__ import annotations

from collections.abc import Mapping

from pccpipe.spec.data import items
from pccpipe.spec.position import KeyPath
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json


class WorkspaceChecker:
    """Walks over the steps in the order of the file."""

    def __init__(self, values: ValueChecker) -> None:
        self._values = values
        self._has_upload = False

    def check(self, data: Mapping[str, Json]) -> None:
        for key in ("steps", "always"):
            self._all((key,), data.get(key))

    def _all(self, path: KeyPath, steps: Json, *, beside: bool = False, inside: str = "") -> None:
        for index, step in enumerate(items(steps)):
            if isinstance(step, dict):
                self._step((*path, index), step, beside=beside, inside=inside)

    def _step(self, path: KeyPath, step: Mapping[str, Json], *, beside: bool, inside: str) -> None:
        if step.get("workspace") == "own":
            self._own((*path, "workspace"), beside=beside or "matrix" in step)
            inside = str(step.get("id"))
        for action in ("upload", "remove"):
            if action in step and inside:
                message = f"`{inside}` has `workspace: own`, so no step inside of it can {action} the workspace"
                self._values.say((*path, action), message, f"put it outside of `{inside}`", at_key=True)
        self._has_upload = self._has_upload or "upload" in step
        self._all((*path, "steps"), step.get("steps"), inside=inside)
        self._all((*path, "parallel"), step.get("parallel"), beside=True, inside=inside)
        self._all((*path, "always"), step.get("always"), inside=inside)

    def _own(self, path: KeyPath, *, beside: bool) -> None:
        if not beside:
            message = "nothing runs beside this step, so it needs no workspace of its own"
            hint = "leave out `workspace:`; it is for a step with `matrix:`, and for the steps of a `parallel:`"
            self._values.say(path, message, hint, at_key=True)
        elif not self._has_upload:
            message = "there is no copy of the workspace yet that this step could copy"
            self._values.say(path, message, "put a step with `upload: workspace` before it", at_key=True)
