"""Which machine this is. Its name does not say: a Mac's changes with the network that it is in."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from pathlib import Path

_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid")
"""Of systemd, of D-Bus where there is no systemd, of FreeBSD."""


@functools.cache
def machine_id() -> str:
    """Give an id that stays over restarts and changes of name; "" where the machine has none."""
    known = _of_macos() if os.uname().sysname == "Darwin" else _of_a_file()
    # The id itself is not to be given to others: machine-id(5).
    return hashlib.sha256(f"pccpipe {known}".encode()).hexdigest()[:32] if known else ""


def _of_a_file() -> str:
    for name in _FILES:
        with contextlib.suppress(OSError):
            text = Path(name).read_text(errors="replace").strip()
            # Before an image's first start it says `uninitialized`.
            if len(text) >= 32 and text.strip("0-"):
                return text
    return ""


def _of_macos() -> str:
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        made, at_once = ctypes.create_string_buffer(16), (ctypes.c_long * 2)(0, 0)
        if ctypes.CDLL(None).gethostuuid(made, at_once) == 0:
            return made.raw.hex()
    return ""
