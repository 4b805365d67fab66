"""The images that `provision` left on a machine. A run reads them once, while its first container starts."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future

from pccpipe.errors import PccpipeError
from pccpipe.machine.base import Machine
from pccpipe.machine.provisioned import Provisioned, read_provisioned

LIMIT = 15.0
"""Seconds to wait for the file of `provision`; the container runs meanwhile."""


class KnownImages:
    """The digests of those images. Safe from many threads.

    Args:
        root: the machine's folder for projects; None where `provision` writes no file.
    """

    def __init__(self, machine: Machine, root: str | None) -> None:
        self._machine = machine
        self._root = root
        self._lock = threading.Lock()
        self._read: Future[Provisioned | None] | None = None
        self.built: set[str] = set()
        """The images that this run built: `provision` does not know these."""

    def begin(self) -> None:
        """Start to read, once."""
        with self._lock:
            if self._root is None or self._read is not None:
                return
            self._read = Future()
        threading.Thread(target=self._fetch, args=(self._root, self._read), name="pccpipe-images", daemon=True).start()

    def other_than(self, image: str | None, digest: str | None) -> str | None:
        """Return the digest that `provision` left for an image, if it is known and differs from `digest`."""
        if self._read is None or image is None or image in self.built:
            return None
        known: Provisioned | None = None
        with contextlib.suppress(TimeoutError):
            known = self._read.result(LIMIT)
        left = known.images.get(image) if known else None
        return left if left and left != digest else None

    def _fetch(self, root: str, read: Future[Provisioned | None]) -> None:
        try:
            read.set_result(read_provisioned(self._machine, root))
        except (PccpipeError, OSError):
            read.set_result(None)  # others report that the machine is unavailable
