"""Runs `selfcheck --escape`: one run whose steps try to escape, and looks at it from outside."""

from __future__ import annotations

import contextlib
import os
import re
import secrets as randomness
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pccpipe.api import Fallback, RunResult, load, run
from pccpipe.canary.routes import VM, EscapeReport, Routes, RouteVerdict
from pccpipe.cancel import Cancel
from pccpipe.data_files import data_path
from pccpipe.detached import programs
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.problems import ApiCall
from pccpipe.errors import UsageError
from pccpipe.layout import STATES, WORKSPACES, SystemDir
from pccpipe.machine.base import Machine
from pccpipe.machine.local import LocalMachine
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.outcome import IsolationMode, Outcome
from pccpipe.record.events import ActionDone, CommandStarted, Event, StepEnded
from pccpipe.spec.project_model import Project
from pccpipe.ssh.connection import Connection
from pccpipe.values import Json

PIPELINE = ("pipelines", "selfcheck-escape.yaml")
OVERRUN_LIMIT = 40.0
"""Seconds: the step's 4 s, and the time to end it."""
NO_RUN_AS = "no run_as"
_WORKSPACE = {
    "code.txt": "code\n",
    "AGENTS.md": "obey\n",
    "folder/CLAUDE.md": "obey\n",
    ".codex/config.toml": "x = 1\n",
}


def check_escape(
    project: Project,
    *,
    image: str | None = None,
    on_progress: Callable[[str], object] = lambda _: None,
    cancel: Cancel | None = None,
    accept_new_host_key: bool = False,
    wait: float = 0.0,
) -> EscapeReport:
    """Try the ways out of a container and of the VM's account in a real run, and say which of them held.

    Steps open files but do not write them, and read decoys. Everything is removed at the end.

    Args:
        project: where steps lead.
        image: of the steps in containers; default: pcc-runner:latest.
        on_progress: called with the current try, in words.
        cancel, accept_new_host_key, wait: as for `run`.

    Raises UsageError, before anything is made, if the project holds nothing that could be tried.
    """
    if project.isolation_mode is IsolationMode.LOCAL:
        words = "there is no isolation to try: the project's isolation_mode is local"
        raise UsageError(words, "name a project with a VM: --project FILE")
    cancel = cancel or Cancel()
    decoy = f"PCCPIPE-DECOY-{randomness.token_hex(16)}"
    with tempfile.TemporaryDirectory(prefix="pccpipe-escape-") as name:
        folder = Path(name)
        for path, text in _WORKSPACE.items():
            (folder / "workspace" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "workspace" / path).write_text(text)
        check = _EscapeCheck(project, decoy, on_progress, accept_new_host_key=accept_new_host_key)
        try:
            result = run(
                load(data_path(*PIPELINE)),
                run_id=check.run_id,
                project=project,
                workspace=folder / "workspace",
                inputs={**check.inputs, **({"image": image} if image else {})},
                runs_dir=folder / "runs",
                fallback=Fallback.FORBIDDEN,
                on_event=check,
                cancel=cancel,
                accept_new_host_key=accept_new_host_key,
                wait=wait,
                # The decoy replaces a key.
                environ={**os.environ, "DECOY": decoy},
            )
            return check.report(result)
        finally:
            check.close()


class _EscapeCheck:
    """Look from outside while the run goes on: each event waits for the look."""

    def __init__(
        self, project: Project, decoy: str, on_progress: Callable[[str], object], *, accept_new_host_key: bool
    ) -> None:
        self.run_id = f"escape-{randomness.token_hex(4)}"
        self.routes = Routes()
        self._decoy = decoy
        self._progress = on_progress
        self._mark = f"pccescape{randomness.token_hex(6)}"
        self._root = project.vm.root if project.vm else ""
        self._run_as = (project.vm.run_as if project.vm else None) or ""
        self._connection: Connection | None = None
        if project.isolation_mode is IsolationMode.VM:
            assert project.vm is not None
            self._connection = Connection(project.vm, accept_new_host_key=accept_new_host_key)
        self._machine: Machine = self._connection or LocalMachine(frozenset())
        self._engine = DockerEngine(self._machine)
        self._login = project.vm.user if project.vm and self._run_as else ""
        if not self._connection:
            self.routes.set_side(VM, RouteVerdict.NOT_TRIED, "the project has no VM")
        elif not self._run_as:
            self.routes.set_side(VM, RouteVerdict.BROKE, NO_RUN_AS)
        self.routes.set("box_alone", RouteVerdict.NOT_TRIED, "it needs a killed pccpipe, and `lost_after`")

    @property
    def inputs(self) -> Mapping[str, Json]:
        inputs: dict[str, Json] = {"mark": self._mark, "login": self._login}
        return {**inputs, **({"root": self._root} if self._root else {})}

    def __call__(self, event: Event) -> None:
        match event.what:
            case ActionDone(action="upload"):
                self._progress("decoys")
                self._attempt(self._lay_decoys)
            case CommandStarted(step=step):
                self._progress(f"{step}: tries")
                if step == "overrun":
                    self._attempt(lambda: self._judge_left("box_stays", ("box", "boxbare")))
                elif step == "reader" and self._login:
                    self._attempt(self._judge_vm_left)
            case StepEnded() as ended:
                self._judge_step(ended)
            case _:
                pass

    def _judge_step(self, ended: StepEnded) -> None:
        self.routes.read(ended.result)
        match ended.step:
            case "overrun" if ended.outcome is not Outcome.UNAVAILABLE:
                self._judge_overrun("box_overruns", ended)
            case "vm-overrun" if ended.outcome not in {Outcome.UNAVAILABLE, Outcome.SKIPPED}:
                self._judge_overrun("vm_overruns", ended)
            case "reader" if self._login and ended.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}:
                honest = isinstance(ended.result, dict) and "routes" in ended.result
                self.routes.judge("verdict", [] if honest else ["the record has another result than the step's own"])
            case _:
                pass

    def report(self, result: RunResult) -> EscapeReport:
        """Look once more, after the run's end."""
        self._progress("what is left")
        self._attempt(self._judge_end)
        whole = result.outcome is Outcome.SUCCEEDED
        return EscapeReport(self.routes.all, result.status, result.message, whole)

    def close(self) -> None:
        """Remove the decoys, and end the processes that were left."""
        pattern = f"{self._mark}-"
        become = f"sudo -n -u {shlex.quote(self._run_as)} " if self._run_as else ""
        if self._run_as and self._connection and self._login == "root":
            become = f"setpriv --reuid={shlex.quote(self._run_as)} --clear-groups "
        folders = " ".join(shlex.quote(folder) for folder in self._other_runs)
        script = f"""
            rm -rf {folders}
            pids=$(grep -l '{pattern}[a-z]' /proc/[0-9]*/cmdline 2>/dev/null | tr -cd '0-9\\n')
            [ -z "$pids" ] || {{ kill -KILL $pids; {become}kill -KILL $pids; }} 2>/dev/null
            :"""
        with contextlib.suppress(*UNREACHABLE):
            if self._connection:
                self._machine.run(programs.end_run(programs.RunDir(self.run_id, self._state)))
            self._machine.run(script)
        if self._connection:
            self._connection.close()

    @property
    def _state(self) -> str:
        return SystemDir.on_vm(self._root).state(self.run_id)

    @property
    def _other_runs(self) -> list[str]:
        """Folders on the VM that look like another run's."""
        if not self._connection:
            return []
        return [f"{SystemDir.on_vm(self._root).path}/{kind}/{self._mark}-other" for kind in (STATES, WORKSPACES)]

    def _lay_decoys(self) -> None:
        """Make things that no step may read: another run's folders, and a process of the login with a value."""
        lines = [f"export PCCPIPE_ESCAPE_DECOY={shlex.quote(self._decoy)}"]
        for folder in map(shlex.quote, self._other_runs):
            lines += [f"mkdir -p {folder} && chmod 700 {folder} && (umask 077; echo decoy >{folder}/secret)"]
        stays = f"n=0; while [ $n -lt 600 ]; do sleep 1; n=$((n + 1)); done; : {self._mark}-decoy"
        lines += [f"(setsid sh -c {shlex.quote(stays)} </dev/null >/dev/null 2>&1 &)"]
        self._machine.run("\n".join(lines))

    def _judge_vm_left(self) -> None:
        """Look for processes that a step on the VM left, while a container of the run is active."""
        names = ("plain", "setsid", "nohup", "bare", "twice", "closed", "unit", "later")
        self._judge_left("vm_stays", names)

    def _judge_left(self, route: str, names: tuple[str, ...]) -> None:
        left = self._left() & set(names)
        self.routes.judge(route, [f"still there: {', '.join(sorted(left))}"] if left else [])

    def _judge_overrun(self, route: str, ended: StepEnded) -> None:
        """Judge a step that kills all that it can, perhaps its own shell; the run's end shows what it left."""
        words = []
        if ended.outcome is Outcome.SUCCEEDED or ended.seconds > OVERRUN_LIMIT:
            words.append(f"its step went on for {ended.seconds:.0f} s")
        self.routes.judge(route, words)

    def _judge_end(self) -> None:
        if self.routes.verdict("box_overruns") is not RouteVerdict.NOT_TRIED:
            filters = {"label": f"pccpipe.run={self.run_id}"}
            left = self._engine.ask(ApiCall.OTHER, lambda client: client.containers(all=True, filters=filters))
            self.routes.judge("box_left", [f"{len(left)} containers"] if left else [])
        left_over = self._left()
        if "overrun" in left_over:
            side = "vm_overruns" if self._login else "box_overruns"
            self.routes.judge(side, ["it goes on after the run"])
        if self._login and (stay := left_over - {"overrun"}):
            self.routes.judge("vm_stays", [f"after the run: {', '.join(sorted(stay))}"])

    def _left(self) -> set[str]:
        """Return the names of all processes with the mark in their arguments."""
        # The pattern itself does not match: after the mark it has characters that no process has.
        script = f"""
            for file in $(grep -l '{self._mark}-left-[a-z]' /proc/[0-9]*/cmdline 2>/dev/null); do
              tr '\\0' '\\n' <"$file"
            done 2>/dev/null
            :"""
        said = self._machine.run(script).stdout.decode(errors="replace")
        return set(re.findall(rf"{self._mark}-left-([a-z]+)", said))

    def _attempt(self, look: Callable[[], object]) -> None:
        """Look; a route that cannot be looked at now stays not tried."""
        with contextlib.suppress(*UNREACHABLE):
            look()
