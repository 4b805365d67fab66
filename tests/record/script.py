"""A run's events, scripted, for tests of the views and the state."""

from __future__ import annotations

from collections.abc import Iterable

from pccpipe.outcome import IsolationMode, Outcome, Place, Reason, Stream
from pccpipe.record.events import (
    ActionDone,
    CommandEnded,
    CommandStarted,
    Event,
    Happening,
    Output,
    RoundStarted,
    StepDowngraded,
    StepEnded,
    StepRetrying,
    StepStarted,
    TargetUnavailable,
    Warned,
)
from pccpipe.record.run_events import AlwaysStarted, RunEnded, RunStarted
from pccpipe.target import ContainerSettings, Isolation

START = 1_700_000_000.0
DIGEST = "sha256:" + "ab" * 32
WORDS = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"

LOCAL = Isolation(Place.LOCAL, "localhost", "1000:1000", workspace="/w")
ON_VM = Isolation(Place.VM, "10.0.0.2", "pcc", workspace="/home/project/ws", engine_at_hand=True)
BOXED = Isolation(
    Place.CONTAINER,
    "10.0.0.2",
    "1000:1000",
    container="pcc-run-r1-build-1",
    image="pcc-runner:latest",
    image_digest=DIGEST,
    network="host",
    workspace="/workspace",
    memory=4 << 30,
    cpus=2,
    pids=1000,
    runtime="runc",
    init=True,
    capabilities=(),
    security=("no-new-privileges", "seccomp=builtin"),
    mounts=("/home/project/ws:/workspace:rw", "tmpfs:/pcc/home:rw,nosuid,nodev"),
    shared=("network",),
)
ASKED = ContainerSettings("pcc-runner:latest", "host", 4 << 30, 2, 1000, loosened=("network: host",))


def events(happenings: Iterable[Happening], start: float = START, every: float = 1.0) -> list[Event]:
    """Return the events, numbered and stamped, one a second."""
    made: list[Event] = []
    seq = 0
    for number, what in enumerate(happenings):
        seq += not isinstance(what, Output)
        made.append(Event(0 if isinstance(what, Output) else seq, start + number * every, what))
    return made


def started(*steps: str, mode: IsolationMode = IsolationMode.VM) -> RunStarted:
    return RunStarted("r1", "default-run", "/p.yaml", "proj", mode, {"n": 3}, "/w", steps, "0.1.0", "home", 42)


def command(path: str, had: Isolation, attempt: int = 1) -> CommandStarted:
    name = f"{path}-{attempt}"
    logs = (f"logs/{name}.stdout.log", f"logs/{name}.stderr.log")
    return CommandStarted(path, attempt, name, had, *logs, settings=ASKED if had is BOXED else None)


def ran(path: str, had: Isolation, asked: Place, *output: str, code: int = 0) -> list[Happening]:
    """Return the events of a run step."""
    outcome = Outcome.FAILED if code else Outcome.SUCCEEDED
    message = f"exit code {code}" if code else ""
    return [
        StepStarted(path, "run", asked),
        command(path, had),
        *(Output(path, Stream.STDOUT, text) for text in output),
        CommandEnded(path, 1, outcome, code, seconds=2.0, message=message),
        StepEnded(path, outcome, 2.0, code, message=message),
    ]


def downgraded(path: str) -> list[Happening]:
    """Return the events of a step that asked for a container and ran on this machine."""
    return [
        StepStarted(path, "run", Place.CONTAINER),
        TargetUnavailable(
            path, 1, Place.CONTAINER, Reason.ENGINE_PERMISSION_DENIED, WORDS, "sudo usermod -aG docker pcc", ASKED
        ),
        StepDowngraded(path, Place.CONTAINER, Place.LOCAL, Reason.ENGINE_PERMISSION_DENIED, WORDS),
        command(path, LOCAL, 2),
        CommandEnded(path, 2, Outcome.SUCCEEDED, 0, seconds=3.0),
        StepEnded(path, Outcome.SUCCEEDED, 3.0, 0, result={"status": "approved"}, result_path="reviewer/result.json"),
    ]


def default_run() -> list[Happening]:
    """Return the events of a run with an action, a retry, rounds, a failing test, a downgrade and always steps."""
    return [
        started("sync", "baseline", "iterate", "collect", "clean"),
        StepStarted("sync", "upload"),
        ActionDone("sync", "upload", {"files": 12, "bytes": 34567, "method": "tar", "seconds": 0.2}),
        StepEnded("sync", Outcome.SUCCEEDED, 0.3),
        StepStarted("baseline", "run", Place.VM),
        command("baseline", ON_VM),
        Output("baseline", Stream.STDOUT, "flaky\n"),
        CommandEnded("baseline", 1, Outcome.FAILED, 1, seconds=1.0, message="exit code 1"),
        StepRetrying("baseline", 2, 2, Outcome.FAILED, 1.0),
        command("baseline", ON_VM, 2),
        CommandEnded("baseline", 2, Outcome.SUCCEEDED, 0, seconds=1.0),
        StepEnded("baseline", Outcome.SUCCEEDED, 3.0, 0),
        StepStarted("iterate", "repeat"),
        RoundStarted("iterate", 1, 3),
        *ran("iterate[1].build", BOXED, Place.CONTAINER, "thinking\n", "half a li", "ne\n"),
        StepStarted("iterate[1].test", "run", Place.VM),
        command("iterate[1].test", ON_VM),
        Output("iterate[1].test", Stream.STDERR, "FAILED  Hello\n"),
        CommandEnded("iterate[1].test", 1, Outcome.FAILED, 1, seconds=1.0, message="exit code 1"),
        StepEnded("iterate[1].test", Outcome.FAILED, 1.0, 1, message="exit code 1", ignored=True),
        StepEnded("iterate[1].review", Outcome.SKIPPED, 0.0),
        RoundStarted("iterate", 2, 3),
        *ran("iterate[2].build", BOXED, Place.CONTAINER),
        *ran("iterate[2].test", ON_VM, Place.VM),
        *downgraded("iterate[2].review"),
        StepEnded("iterate", Outcome.SUCCEEDED, 20.0),
        AlwaysStarted(Outcome.SUCCEEDED, "succeeded"),
        StepStarted("collect", "download", always=True),
        ActionDone("collect", "download", {"files": 1, "bytes": 9, "missing": [], "refused": ["x: a link"]}),
        StepEnded("collect", Outcome.SUCCEEDED, 0.1),
        StepStarted("clean", "remove", always=True),
        ActionDone("clean", "remove", {}),
        StepEnded("clean", Outcome.SUCCEEDED, 0.1),
        Warned("the disk is nearly full"),
        RunEnded(Outcome.SUCCEEDED, "succeeded", True, 44.0),
    ]


def failed_run() -> list[Happening]:
    """Return the events of a run that a failing test ended."""
    return [
        started("test"),
        *ran("test", ON_VM, Place.VM, "ok 1\n", "not ok 2: \x1b[31mHello\x1b[0m\r\n", code=1),
        RunEnded(Outcome.FAILED, "failed", False, 2.0, "exit code 1"),
    ]
