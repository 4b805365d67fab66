"""Shares the proxy's connections out, so that those of one step leave places to every other."""

from __future__ import annotations

import threading

from pccpipe import limits
from pccpipe.secrets.proxy.grant import Grant

WAKE = 0.1
"""Seconds after which a connection without a token looks whether its place is gone."""


class ConnectionSlot:
    """One connection's place: among those that have shown no token yet, then among its step's."""

    def __init__(self, places: ConnectionSlots) -> None:
        self._places = places
        self.grant: Grant | None = None
        """Whose it is; None until it has shown a token."""
        self.is_cut = False
        """Whether a newer connection has got it."""

    def take(self, grant: Grant) -> bool:
        """Move to a step's places; False if there is none."""
        return self._places.move(self, grant)

    def leave(self) -> None:
        self._places.leave(self)


class ConnectionSlots:
    """Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unknown: dict[ConnectionSlot, None] = {}
        self._cut: set[ConnectionSlot] = set()
        self._held: dict[Grant, int] = {}

    def enter(self) -> ConnectionSlot | None:
        """Give a new connection a place; the one without a token that came first makes room. None if there is none."""
        most = limits.UNKNOWN_CONNECTIONS.most
        with self._lock:
            if len(self._unknown) >= most:
                if len(self._cut) >= most:
                    return None  # they come faster than the old ones can go
                oldest = next(iter(self._unknown))
                del self._unknown[oldest]
                oldest.is_cut = True
                self._cut.add(oldest)
            place = ConnectionSlot(self)
            self._unknown[place] = None
            return place

    def move(self, place: ConnectionSlot, grant: Grant) -> bool:
        with self._lock:
            if place.grant is grant:
                return True
            if self._held.get(grant, 0) >= limits.STEP_CONNECTIONS.most:
                return False
            self._give_back(place)
            place.is_cut = False
            place.grant = grant
            self._held[grant] = self._held.get(grant, 0) + 1
            return True

    def leave(self, place: ConnectionSlot) -> None:
        with self._lock:
            self._give_back(place)

    def _give_back(self, place: ConnectionSlot) -> None:
        self._unknown.pop(place, None)
        self._cut.discard(place)
        if place.grant:
            self._held[place.grant] -= 1
            if not self._held[place.grant]:
                del self._held[place.grant]
            place.grant = None
