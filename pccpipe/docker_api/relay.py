"""Connects a port inside a container to the proxy's socket that is mounted there.

The container may have no network but its own loopback, and the socket is a file. Most programs speak HTTP to a port
only, so a small relay passes their connections on. It is there in two languages, of which the image must have one.
"""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

from pccpipe.docker_api.settings import HOME, IN, PROXY

SOCKET = "socket"
WAIT = 30
"""Seconds for the relay to start; it takes a tenth of one."""
_NODE, _PYTHON = "relay.js", "relay.python3"
_HERE = Path(__file__).resolve().parent


@functools.cache
def files() -> dict[str, bytes]:
    """Return the relay in each of its languages, for the container's folder of files."""
    return {f".{name}": (_HERE / name).read_bytes() for name in (_NODE, _PYTHON)}


AT = f"{PROXY}/{SOCKET}"
"""The proxy's socket in the container."""


def choose() -> list[str]:
    """Return shell lines that set `pcc_relay` to the relay's command; empty for an image without its languages."""
    return [
        "pcc_relay=",
        f"command -v node >/dev/null && pcc_relay='node {IN}/.{_NODE}'",
        f"[ \"$pcc_relay\" ] || {{ command -v python3 >/dev/null && pcc_relay='python3 {IN}/.{_PYTHON}'; }}",
    ]


def lines(way_out: str) -> list[str]:
    """Return shell lines that start the relay and export its address; with `way_out`, also as the HTTP proxy."""
    port, where = f"{HOME}/.pcc-proxy-port", AT
    start = [
        f"export PCC_PROXY_SOCKET={where}",
        *choose(),
        'if [ "$pcc_relay" ]; then',
        f"  (cd / && exec $pcc_relay {where} {port}) </dev/null >/dev/null 2>&1 &",
        "  pcc_tick=0",
        f"  while [ ! -s {port} ] && [ $pcc_tick -lt {WAIT * 20} ]; do sleep 0.05; pcc_tick=$((pcc_tick + 1)); done",
        f'  [ -s {port} ] || {{ echo "pccpipe: the relay to the proxy did not start in {WAIT} s" >&2; exit 125; }}',
        f"  export PCC_PROXY_URL=http://127.0.0.1:$(cat {port})/v1",
    ]
    if way_out:
        start += [
            f"  export HTTPS_PROXY=http://pccpipe:{shlex.quote(way_out)}@127.0.0.1:$(cat {port})",
            '  export HTTP_PROXY="$HTTPS_PROXY" https_proxy="$HTTPS_PROXY" http_proxy="$HTTPS_PROXY"',
            "  export NO_PROXY=localhost,127.0.0.1,::1 no_proxy=localhost,127.0.0.1,::1",
        ]
    return [
        *start,
        "else",
        f"  echo 'pccpipe: the image has neither node nor python3, so the proxy is only at the socket {where}' >&2",
        "fi",
        "unset pcc_relay pcc_tick",
    ]
