"""Runs the proxy of one run: it knows the holder of each token, and serves each connection in a thread.

The proxy and the record keep only the SHA-256 of a token: the process of a resumed run recognizes a token by it.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping

from pccpipe.machine.base import ByteStream
from pccpipe.secrets.proxy.grant import Api, EndedTokenError, Grant
from pccpipe.secrets.proxy.slots import ConnectionSlot, ConnectionSlots

EGRESS = "HTTPS_PROXY"
"""The name of the token for a container's egress; the tokens for keys have the keys' names."""


class Proxy:
    """Safe from many threads. Idle until something connects."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: dict[str, tuple[Grant, Api | None]] = {}
        self._unseen: dict[str, Callable[[str], None]] = {}
        self._ended: set[str] = set()
        self._slots = ConnectionSlots()

    def issue(self, grant: Grant) -> dict[str, str]:
        """Return new tokens for a grant, by name: one for each API's key, and one for its egress, if any."""
        names = [api.secret for api in grant.apis] + ([EGRESS] if grant.egress else [])
        tokens = {name: f"pcct-{secrets.token_urlsafe(32)}" for name in names}
        self._add(grant, {name: digest(token) for name, token in tokens.items()})
        return tokens

    def know(self, grant: Grant, digests: Mapping[str, str], on_sight: Callable[[str], None]) -> None:
        """Accept tokens that an earlier process issued to this grant, by their digests.

        Args:
            on_sight: receives each token at its first use: until then this process knows only its digest.
        """
        self._add(grant, digests)
        with self._lock:
            self._unseen.update(dict.fromkeys(digests.values(), on_sight))

    def end(self, grant: Grant) -> None:
        """Revoke its tokens, and end the grant."""
        with self._lock:
            ended = {known for known, held in self._holders.items() if held[0] is grant}
            self._ended |= ended
            for known in ended:
                del self._holders[known]
        grant.end()

    def holder(self, token: str) -> tuple[Grant, Api | None] | None:
        """Return the grant and API of a token; the API is None for a token of an egress. Raises EndedTokenError."""
        known = digest(token)
        with self._lock:
            if known in self._ended:
                raise EndedTokenError("this token expired: a step's token expires with the step")
            held = self._holders.get(known)
            on_sight = self._unseen.pop(known, None) if held else None
        if on_sight:
            on_sight(token)
        return held

    def accept(self, stream: ByteStream) -> None:
        """Serve a connection, in a thread of its own. Returns at once."""
        slot = self._slots.enter()
        if slot is None:
            # In another thread: the caller may be the one who must send the end of the stream.
            threading.Thread(target=stream.close, name="pccpipe-proxy-full", daemon=True).start()
            return
        threading.Thread(target=self._serve, args=(stream, slot), name="pccpipe-proxy", daemon=True).start()

    def _add(self, grant: Grant, digests: Mapping[str, str]) -> None:
        apis = {api.secret: api for api in grant.apis}
        with self._lock:
            for name, known in digests.items():
                self._ended.discard(known)
                if name in apis or name == EGRESS:
                    self._holders[known] = (grant, apis.get(name))

    def _serve(self, stream: ByteStream, slot: ConnectionSlot) -> None:
        # Imported late: h11 and ssl take 60 ms to load, and most runs need neither.
        from pccpipe.secrets.proxy.exchange import Exchange

        try:
            Exchange(stream, slot, self.holder).run()
        finally:
            with contextlib.suppress(OSError):
                stream.close()
            slot.leave()


def digest(token: str) -> str:
    """Return the digest of a token, which pccpipe stores instead of it."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
