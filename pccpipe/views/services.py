"""Words for the services beside a step or group."""

from __future__ import annotations

from typing import assert_never

from pccpipe.record.events import ServiceEnded, ServiceReady, ServiceStarted
from pccpipe.record.step_state import ServiceState, StepState
from pccpipe.spec.model import Run, Step
from pccpipe.views.text import harmless_line, isolation, left_out
from pccpipe.words import duration


def service_text(what: ServiceStarted | ServiceReady | ServiceEnded) -> str:
    """Return a line for an event of a service."""
    name = f"{what.step} service {what.service}"
    match what:
        case ServiceStarted():
            return f"{name} begins: {isolation(what.had)}{_loosened(what)}"
        case ServiceReady():
            return f"{name} is ready after {duration(what.seconds)}{_ports(what)}"
        case ServiceEnded():
            return f"{name} {_ended(what)}"
        case _:
            assert_never(what)


def service_lines(step: StepState) -> list[str]:
    """Return lines about the services of a step, for `show`."""
    return [line for service in step.services.values() for line in _lines(service)]


def board_text(step: StepState) -> str:
    """Say in a few words how the services of a step are; empty without any."""
    notes = []
    for name, service in step.services.items():
        if service.ended and not service.ended.with_owner:
            notes.append(f"{name} ended")
        elif service.ended is None:
            notes.append(name if service.ready else f"{name} not ready yet")
    return f"with {', '.join(notes)}" if notes else ""


def beside_rules(step: Step) -> list[str]:
    """Return lines for `plan` about what lives beside the steps after it, or inside it."""
    rules = []
    for name, service in step.services.items():
        loosened = f"; loosened: {'; '.join(service.loosened)}" if service.loosened else ""
        rules.append(f"service {name}: {service.image.source}{loosened}")
    if isinstance(step.body, Run) and step.body.background:
        rules.append("background: it runs beside the next steps, until its group ends")
        if ready := step.body.ready:
            check = " ".join(ready.run.source.split())
            rules.append(f"ready: {check}, every {duration(ready.every)}, within {duration(ready.timeout)}")
    return rules


def _lines(service: ServiceState) -> list[str]:
    started, ready, ended = service.started, service.ready, service.ended
    states = [f"ready after {duration(ready.seconds)}{_ports(ready)}" if ready else "not ready"]
    states.append(_ended(ended) if ended else "running")
    return [
        harmless_line(f"service {started.service}: {', '.join(states)}"),
        f"  had: {isolation(started.had)}{_loosened(started)}",
        *([f"  secrets: {', '.join(started.secrets)}"] if started.secrets else []),
        f"  logs: {started.stdout} {started.stderr}{left_out(ended.log_dropped if ended else 0)}",
    ]


def _ended(ended: ServiceEnded) -> str:
    if ended.with_owner:
        return f"ended with its steps after {duration(ended.seconds)}"
    memory = ", killed: out of memory" if ended.out_of_memory else ""
    why = f"exit code {ended.exit_code}{memory}" if ended.exit_code is not None else ended.message
    return f"ENDED BY ITSELF after {duration(ended.seconds)}: {why}"


def _ports(ready: ServiceReady) -> str:
    ports = ", ".join(f"{own} at 127.0.0.1:{port}" for own, port in ready.ports.items())
    return f"; port {ports}" if ports else ""


def _loosened(started: ServiceStarted) -> str:
    return f"; LOOSENED: {', '.join(started.loosened)}" if started.loosened else ""
