"""Searches what a run leaves on this machine: its record, its views, and the text of errors."""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterator
from pathlib import Path

from pccpipe.canary.ledger import Ledger, Spot
from pccpipe.canary.value import Canary
from pccpipe.detached import programs
from pccpipe.errors import Refused, UsageError
from pccpipe.layout import ARTIFACTS
from pccpipe.record.events import ActionDone, CommandStarted, Event, StepEnded
from pccpipe.secrets.sources import read_secrets
from pccpipe.spec.position import Position
from pccpipe.spec.secret import Secret, SecretSource
from pccpipe.target import Command
from pccpipe.views.jsonl import JsonLinesView
from pccpipe.views.plain import PlainView

HERE = "here"
RECORD = (Spot.RUN_JSON, Spot.EVENTS, Spot.LOGS, Spot.DIFF, Spot.RESULTS, Spot.ARTIFACTS, Spot.RECORD)
SHOWN = (Spot.JSONL, Spot.PLAIN)


class RecordedViews:
    """Keep what `pccpipe run` would have shown of a run, in the formats for programs and for logs."""

    def __init__(self, record: Path) -> None:
        self._jsonl, self._plain = io.BytesIO(), io.StringIO()
        self._views = (JsonLinesView(self._jsonl), PlainView(self._plain, record))

    def __call__(self, event: Event) -> None:
        for view in self._views:
            view(event)

    def look(self, canary: Canary, ledger: Ledger) -> None:
        """Search all of it."""
        for spot, shown in ((Spot.JSONL, self._jsonl.getvalue()), (Spot.PLAIN, self._plain.getvalue().encode())):
            lines = shown.splitlines()
            ledger.looked(HERE, spot, len(lines), len(shown))
            for number, line in enumerate(lines, 1):
                if canary.is_in(line):
                    ledger.found(HERE, spot, f"line {number}")


class RecordFiles:
    """Know from a run's events what each file of its record is."""

    def __init__(self) -> None:
        self._spots = {Spot.RUN_JSON.value: Spot.RUN_JSON, Spot.EVENTS.value: Spot.EVENTS}

    def __call__(self, event: Event) -> None:
        match event.what:
            case CommandStarted(stdout=stdout, stderr=stderr):
                self._spots |= {stdout: Spot.LOGS, stderr: Spot.LOGS}
            case StepEnded(result_path=str(path)):
                self._spots[path] = Spot.RESULTS
            case ActionDone(action="diff", facts={"path": str(path)}):
                self._spots[path] = Spot.DIFF
            case _:
                pass

    def spot_of(self, name: str) -> Spot:
        """Return the spot of a file, by its path in the record."""
        return self._spots.get(name, Spot.ARTIFACTS if name.startswith(f"{ARTIFACTS}/") else Spot.RECORD)

    def look(self, record: Path, canary: Canary, ledger: Ledger) -> None:
        """Search every file of a record, and its name."""
        counted = {spot: [0, 0] for spot in RECORD}
        for path in sorted(record.rglob("*")) if record.is_dir() else ():
            name = str(path.relative_to(record))
            spot = self.spot_of(name)
            if canary.is_in(name.encode(errors="surrogateescape")):
                ledger.found(HERE, spot, f"in the name {name}")
            if path.is_symlink() or not path.is_file():
                continue
            try:
                data = path.read_bytes()
            except OSError as error:
                ledger.unread(HERE, spot, f"{name}: {error.strerror}")
                continue
            counted[spot][0] += 1
            counted[spot][1] += len(data)
            if canary.is_in(data):
                ledger.found(HERE, spot, name)
        for spot, (files, size) in counted.items():
            ledger.looked(HERE, spot, files, size)


def look_at_errors(canary: Canary, variable: str, ledger: Ledger) -> None:
    """Provoke errors where code handles secrets, and search their words and tracebacks."""
    errors = [*_provoked(canary, variable)]
    for error in errors:
        if canary.is_in_any(traceback.format_exception(error)):
            ledger.found(HERE, Spot.EXCEPTIONS, type(error).__name__)
    texts = [repr(_command(canary, "CANARY"))]
    if canary.is_in_any(texts):
        ledger.found(HERE, Spot.EXCEPTIONS, "how a debugger or an assertion shows a command")
    ledger.looked(HERE, Spot.EXCEPTIONS, len(errors) + len(texts))


def _provoked(canary: Canary, variable: str) -> Iterator[Exception]:
    command = f'printf %s "${variable}"; printf %s "${variable}" >&2; exit 3'
    secret = Secret("CANARY", SecretSource.COMMAND, command, Position("selfcheck", 1, 1))
    try:
        read_secrets({"CANARY": secret}, ["CANARY"])
    except UsageError as error:
        yield error
    place, ref = programs.RunDir("selfcheck", "/nowhere"), programs.CommandRef("selfcheck", "mark", "", (0, 0))
    try:
        programs.begin(place, ref, _command(canary, "no name"), "/nowhere")
    except Refused as error:
        yield error


def _command(canary: Canary, name: str) -> Command:
    return Command("selfcheck-1", "selfcheck", 1, "true", secrets={name: canary.value})
