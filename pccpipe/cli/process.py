"""What the command's own process gives to other processes of its user: nothing.

It holds the keys, and its steps may run as the same user. Only Linux has what it takes; elsewhere nothing happens here.
The library does none of this: the process is its caller's.
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
    """Let no other process of the user read the memory, environment and descriptors of this one; leave no core dump.

    Root reads them all the same. See PR_SET_DUMPABLE in prctl(2), and "Ptrace access mode checking" in ptrace(2).
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def have_descriptors() -> None:
    """Let this process open as many files as is usual on Linux: what launchd starts on a Mac may have 256.

    32 steps at a time take 50, each connection some more.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < DESCRIPTORS:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS if hard < 0 else min(DESCRIPTORS, hard), hard))


def take_secrets(pipeline: Pipeline | None) -> Mapping[str, str]:
    """The environment as it was, once the pipeline's secrets are taken out of this process's own."""
    from pccpipe.spec.model import SecretSource

    secrets = pipeline.secrets.values() if pipeline else ()
    return take_variables([secret.source_name for secret in secrets if secret.source is SecretSource.ENV])


def take_variables(names: Iterable[str]) -> Mapping[str, str]:
    """The environment as it was, once these variables are taken out of this process's own.

    Also out of the memory that /proc/PID/environ shows, which root may read.
    """
    taken = dict(os.environ)
    present = [name for name in names if name in taken]
    if present:
        _wipe([os.fsencode(name) + b"=" for name in present])
    for name in present:
        del os.environ[name]
    return taken


def _wipe(prefixes: list[bytes]) -> None:
    """Write zeros over the values of variables. To remove one removes only the pointer to it."""
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
