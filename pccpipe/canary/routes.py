"""The ways out that `selfcheck --escape` tries, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from pccpipe.values import Json

BOX, VM = "a step in a container", "a step on the VM"

ROUTES: Mapping[str, Mapping[str, str]] = {
    BOX: {
        "socket": "reach the engine's socket",
        "privileges": "become root, gain capabilities, use setuid programs or any system call",
        "devices": "open a device of the VM, or mount something",
        "kernel": "change a setting of the kernel",
        "processes": "see processes outside",
        "key": "find the key of a secret that goes through the proxy",
        "others": "reach the files of other steps and other runs",
        "prompt": "change its own prompt and scripts",
        "network": "reach a network, with `network: none`",
        "readonly": "write a read-only workspace",
        "instructions": "be instructed by AGENTS.md of a read-only workspace",
        "home": "fill more of HOME than its limit",
        "tmp": "fill more of /tmp than its limit, with `read_only_root`",
        "pids": "start more processes than its limit",
        "box_stays": "leave processes behind",
        "box_overruns": "kill its watchdog and outlive its time limit",
        "box_alone": "the same, with pccpipe gone",
        "box_left": "leave a container behind",
    },
    VM: {
        "become": "become the login user, or root",
        "engine": "use the engine, also to take the name of another container",
        "signal": "signal processes of the login user",
        "inspect": "read environment or memory of the login user's processes",
        "read": "read what is kept of runs, or keys of the login user",
        "write": "write what is kept of runs",
        "verdict": "give the verdict of a later step in a container",
        "login_files": "change a start-up file of the login user, or of the VM",
        "startup": "plant a start-up file for the next step",
        "cron": "make a crontab",
        "at": "make a job of at",
        "units": "start a unit of systemd, or linger",
        "vm_stays": "leave processes behind",
        "vm_overruns": "kill what it can and outlive its time limit",
    },
}
"""The words of each route, by the step that tries it; in the order of the report."""

_SIDES = {route: side for side, routes in ROUTES.items() for route in routes}


class RouteVerdict(StrEnum):
    """Say whether a route held."""

    HELD = "held"
    BROKE = "did not hold"
    NOT_TRIED = "not tried"


class Route(Struct):
    """Hold a way out; `words` say how it broke, or why it was not tried."""

    name: str
    verdict: RouteVerdict = RouteVerdict.NOT_TRIED
    words: str = "its step ended before it"

    @property
    def side(self) -> str:
        """The step that tries it."""
        return _SIDES[self.name]

    @property
    def text(self) -> str:
        """The attempt, in words."""
        return ROUTES[self.side][self.name]

    def as_json(self) -> dict[str, Json]:
        """Return the route for programs."""
        return {
            "from": "container" if self.side == BOX else "vm",
            "route": self.name,
            "text": self.text,
            "verdict": self.verdict.value,
            "words": self.words,
        }


class Routes:
    """Hold all routes; a route that broke stays broken."""

    def __init__(self) -> None:
        self._all = {name: Route(name) for name in _SIDES}

    @property
    def all(self) -> Sequence[Route]:
        return tuple(self._all.values())

    def verdict(self, name: str) -> RouteVerdict:
        """Return the verdict on a route so far."""
        return self._all[name].verdict

    def judge(self, name: str, words: Iterable[str]) -> None:
        """Record what was found of a route that was tried: without words, it held."""
        found = "; ".join(words)
        self.set(name, RouteVerdict.BROKE if found else RouteVerdict.HELD, found)

    def set(self, name: str, verdict: RouteVerdict, words: str = "") -> None:
        if name in self._all and self._all[name].verdict is not RouteVerdict.BROKE:
            self._all[name] = Route(name, verdict, words)

    def set_side(self, side: str, verdict: RouteVerdict, words: str) -> None:
        """Record the same for all routes of a side."""
        for name in ROUTES[side]:
            self.set(name, verdict, words)

    def read(self, result: Json) -> None:
        """Read what a step says that it tried."""
        verdicts = {"held": RouteVerdict.HELD, "broke": RouteVerdict.BROKE, "not_tried": RouteVerdict.NOT_TRIED}
        match result:
            case {"routes": [*routes]}:
                for one in routes:
                    match one:
                        case {"route": str(name), "verdict": str(verdict), "words": str(words)} if verdict in verdicts:
                            self.set(name, verdicts[verdict], words.strip())
                        case _:
                            pass
            case _:
                pass


class EscapeReport(Struct, frozen=True):
    """Say what a check of the escape routes found. `status` and `message` are the run's."""

    routes: Sequence[Route]
    status: str
    message: str
    whole: bool
    """True if the run reached its end."""

    def count(self, verdict: RouteVerdict) -> int:
        return sum(route.verdict is verdict for route in self.routes)

    @property
    def held(self) -> bool:
        """True if something was tried, and all of it held."""
        return not self.count(RouteVerdict.BROKE) and bool(self.count(RouteVerdict.HELD)) and self.whole

    def as_json(self) -> dict[str, Json]:
        """Return the report for programs."""
        return {
            "held": self.held,
            "run": {"status": self.status, "message": self.message, "whole": self.whole},
            "routes": [route.as_json() for route in self.routes],
        }
