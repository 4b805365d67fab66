"""The entry point, and the one door where errors become a message and an exit status.

Imports as little as it can: a shell that completes words, and `--version`, are not to wait for what they don't need.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys

from pccpipe.systems import refusal
from pccpipe.version import __version__

WRONG_USAGE = 2
UNAVAILABLE = 3
OWN_ERROR = 70
"""For an error of pccpipe's own (EX_SOFTWARE of sysexits.h): nothing that a caller could have done otherwise."""


def main() -> None:
    """Run the command line. Known errors are one message on stderr; an unknown one leaves its traceback in a file."""
    _open_streams()
    if sys.argv[1:] in (["--version"], ["version"]):
        print(f"pccpipe {__version__}")
        return
    if refused := refusal():
        _fail(refused, WRONG_USAGE)
    # First of all: 2 ms.
    from pccpipe.cli.process import close_to_others, have_descriptors

    close_to_others()
    have_descriptors()
    # What is imported stays: looking through it again and again for garbage costs 20 ms.
    gc.set_threshold(50_000)
    # Nor at the end, when all of it goes with the process: 25 ms and more.
    atexit.register(gc.freeze)
    # Freed, this has glibc keep what is smaller (mallopt(3), dynamic mmap threshold): else each piece of output is in
    # memory that the kernel has just taken and gives anew, page by page.
    bytearray(4 << 20)
    # paramiko loads it (45 ms) for `Match exec` in files that are not read here, and does without where there is none.
    sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
    from pccpipe.cli.app import app
    from pccpipe.errors import PccpipeError, RecordFull, SpecError, Unavailable, UsageError, VmBusy

    try:
        app()
    except SpecError as error:
        count = len(error.problems)
        _fail(f"{error}\n{count} problem{'s' if count > 1 else ''}", WRONG_USAGE)
    except UsageError as error:
        _fail(f"pccpipe: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), WRONG_USAGE)
    except (RecordFull, VmBusy) as error:
        _fail(f"pccpipe: {error.message}\nhint: {error.hint}", UNAVAILABLE)
    except Unavailable as error:
        from pccpipe.views.words import reason_text

        words = f"pccpipe: {reason_text(error.reason)}: {error.words}"
        _fail(words + (f"\nfix: {error.hint}" if error.hint else ""), UNAVAILABLE)
    except PccpipeError as error:
        _fail(f"pccpipe: {error}", 1)
    except BrokenPipeError:
        # Whoever read our output has had enough; Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 - the outermost door
        from pccpipe.cli.crash import keep_traceback

        kept = keep_traceback()
        where = f"the traceback is in {kept}" if kept else "the traceback can't be written: is the disk full?"
        _fail(f"pccpipe: an error of its own: {type(error).__name__}: {error}\n{where}", OWN_ERROR)


def _open_streams() -> None:
    """Have all three streams, which daemons close, and let none refuse a character that its encoding lacks."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # else a file of ours would take the number, and get what is meant for the stream
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str, status: int) -> None:
    if not message.replace("\n", "").replace("\t", "").isprintable():
        # A target's words, or a file's, may be in it.
        from pccpipe.views.text import harmless

        message = harmless(message)
    print(message, file=sys.stderr)
    sys.exit(status)
