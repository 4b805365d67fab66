"""The entry point, and the only place where errors become a message and an exit status.

It imports little: completion in shells and `--version` wait for each import.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys

from pccpipe.cli.exit_status import BROKEN_PIPE, FAILED, OWN_ERROR, UNAVAILABLE, WRONG_USAGE
from pccpipe.systems import refusal
from pccpipe.version import __version__


def main() -> None:
    """Run the command line. A known error prints one message; an unknown one also leaves its traceback in a file."""
    _open_streams()
    if sys.argv[1:] in (["--version"], ["version"]):
        print(f"pccpipe {__version__}")
        return
    if refused := refusal():
        _fail(refused, WRONG_USAGE)
    # Before anything else; it takes 2 ms.
    from pccpipe.cli.process import close_to_others, raise_file_limit

    close_to_others()
    raise_file_limit()
    # Modules stay in memory: searching them for garbage again and again costs 20 ms.
    gc.set_threshold(50_000)
    # At exit the same search would cost 25 ms or more.
    atexit.register(gc.freeze)
    # Freeing this makes glibc keep smaller blocks (mallopt(3), dynamic mmap threshold). Else the kernel takes and gives
    # the memory of each piece of output, page by page.
    bytearray(4 << 20)
    # paramiko loads it (45 ms) for `Match exec` in files that pccpipe does not read, and works without it.
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
        _fail(f"pccpipe: {error.message}\nfix: {error.hint}", UNAVAILABLE)
    except Unavailable as error:
        from pccpipe.views.words import reason_text

        words = f"pccpipe: {reason_text(error.reason)}: {error.words}"
        _fail(words + (f"\nfix: {error.hint}" if error.hint else ""), UNAVAILABLE)
    except PccpipeError as error:
        _fail(f"pccpipe: {error}", FAILED)
    except BrokenPipeError:
        # The reader of our output is gone; Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except Exception as error:  # noqa: BLE001 - the outermost handler
        from pccpipe.cli.crash import keep_traceback

        kept = keep_traceback()
        where = f"traceback: {kept}" if kept else "the traceback can't be written: is the disk full?"
        _fail(f"pccpipe: internal error: {type(error).__name__}: {error}\n{where}", OWN_ERROR)


def _open_streams() -> None:
    """Open the streams that a daemon closed, and make them escape characters that their encoding lacks."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # else a file of ours would get the number, and the stream's output
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str, status: int) -> None:
    if not message.replace("\n", "").replace("\t", "").isprintable():
        # It may quote a target or a file.
        from pccpipe.views.text import harmless

        message = harmless(message)
    print(message, file=sys.stderr)
    sys.exit(status)
