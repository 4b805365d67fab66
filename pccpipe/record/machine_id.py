"""Identifies this machine. Its name is not enough: a Mac's changes with its network."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from pathlib import Path

_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid")
"""The files of systemd, of D-Bus without systemd, and of FreeBSD."""


@functools.cache
def machine_id() -> str:
    """Return an id that survives restarts and changes of name; "" if the machine has none."""
    known = _of_macos() if os.uname().sysname == "Darwin" else _of_a_file()
    # The id itself must stay private: machine-id(5).
    return hashlib.sha256(f"pccpipe {known}".encode()).hexdigest()[:32] if known else ""


def _of_a_file() -> str:
    for name in _FILES:
        with contextlib.suppress(OSError):
            text = Path(name).read_text(errors="replace").strip()
            # It is `uninitialized` before an image's first start.
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
