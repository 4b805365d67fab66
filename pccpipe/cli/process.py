"""Closes the command's own process to other processes of its user.

The process holds the keys, and its steps may run as the same user. Only Linux can do this; elsewhere nothing happens.
The library does none of this: the process belongs to its caller.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pccpipe.spec.model import Pipeline

PR_SET_DUMPABLE = 4
DESCRIPTORS = 1024


def close_to_others() -> None:
    """Keep other processes of the user from this one's memory, environment and descriptors; leave no core dump.

    Root can still read them. See PR_SET_DUMPABLE in prctl(2), and "Ptrace access mode checking" in ptrace(2).
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_file_limit() -> None:
    """Raise the limit of open files to Linux's usual 1024: a process that launchd starts on a Mac has 256.

    32 steps at a time take 50 files, each connection some more.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < DESCRIPTORS:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS if hard < 0 else min(DESCRIPTORS, hard), hard))


def take_secrets(pipeline: Pipeline | None) -> Mapping[str, str]:
    """Take the pipeline's secrets out of this process's environment; returns the environment as it was."""
    from pccpipe.spec.secret import SecretSource

    secrets = pipeline.secrets.values() if pipeline else ()
    return take_variables([secret.source_name for secret in secrets if secret.source is SecretSource.ENV])


def take_variables(names: Iterable[str]) -> Mapping[str, str]:
    """Take variables out of this process's environment; returns the environment as it was.

    They also leave the memory behind /proc/PID/environ, which root may read.
    """
    taken = dict(os.environ)
    present = [name for name in dict.fromkeys(names) if name in taken]
    if present:
        _wipe([os.fsencode(name) + b"=" for name in present])
    for name in present:
        del os.environ[name]
    return taken


def _wipe(prefixes: list[bytes]) -> None:
    """Overwrite the values of variables with zeros: removing a variable removes only the pointer to it."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(ImportError, OSError, ValueError):
        import ctypes

        variables = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
        number = 0
        while address := variables[number]:
            text = ctypes.string_at(address)
            for prefix in prefixes:
                if text.startswith(prefix):
                    ctypes.memset(address + len(prefix), 0, len(text) - len(prefix))
            number += 1
