"""Limits on what connects to the proxy."""

from __future__ import annotations

from pccpipe.limits.limit import Limit, Unit

REQUEST_HEAD = Limit("the head of a request to the proxy", 64 << 10, Unit.BYTES, "It has some KiB.")
CLIENT_HELLO = Limit(
    "the first message of TLS in a tunnel of `egress:`", 16 << 10, Unit.BYTES, "Browsers send about 2 KiB."
)
UNKNOWN_CONNECTIONS = Limit(
    "the proxy's connections that have shown no token yet",
    64,
    Unit.COUNT,
    "Each is a thread. A further one gets the place of the one that has waited longest.",
)
STEP_CONNECTIONS = Limit(
    "the connections of one step to the proxy",
    64,
    Unit.COUNT,
    "Each is a thread. They are counted for each step, so that none takes another's.",
)
