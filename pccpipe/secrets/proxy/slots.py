"""Shares out the proxy's connections, so that those of one step leave room for every other step."""

from __future__ import annotations

import threading

from pccpipe import limits
from pccpipe.secrets.proxy.grant import Grant

WAKE = 0.1
"""Seconds after which a connection without a token checks whether it lost its slot."""


class ConnectionSlot:
    """One connection's slot: first among those that have shown no token, then among its step's."""

    def __init__(self, slots: ConnectionSlots) -> None:
        self._slots = slots
        self.grant: Grant | None = None
        """The grant of its step; None until it has shown a token."""
        self.is_cut = False
        """A newer connection got it."""

    def take(self, grant: Grant) -> bool:
        """Move to a step's slots; return False if the step has no free one."""
        return self._slots.move(self, grant)

    def leave(self) -> None:
        self._slots.leave(self)


class ConnectionSlots:
    """Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unknown: dict[ConnectionSlot, None] = {}
        self._cut: set[ConnectionSlot] = set()
        self._held: dict[Grant, int] = {}

    def enter(self) -> ConnectionSlot | None:
        """Return a slot for a new connection; cut the oldest one without a token if all are in use. None if full."""
        most = limits.UNKNOWN_CONNECTIONS.most
        with self._lock:
            if len(self._unknown) >= most:
                if len(self._cut) >= most:
                    return None  # connections come faster than the old ones end
                oldest = next(iter(self._unknown))
                del self._unknown[oldest]
                oldest.is_cut = True
                self._cut.add(oldest)
            slot = ConnectionSlot(self)
            self._unknown[slot] = None
            return slot

    def move(self, slot: ConnectionSlot, grant: Grant) -> bool:
        with self._lock:
            if slot.grant is grant:
                return True
            if self._held.get(grant, 0) >= limits.STEP_CONNECTIONS.most:
                return False
            self._release(slot)
            slot.is_cut = False
            slot.grant = grant
            self._held[grant] = self._held.get(grant, 0) + 1
            return True

    def leave(self, slot: ConnectionSlot) -> None:
        with self._lock:
            self._release(slot)

    def _release(self, slot: ConnectionSlot) -> None:
        self._unknown.pop(slot, None)
        self._cut.discard(slot)
        if slot.grant:
            self._held[slot.grant] -= 1
            if not self._held[slot.grant]:
                del self._held[slot.grant]
            slot.grant = None
