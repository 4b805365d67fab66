"""The exit statuses of the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pccpipe.api import RunResult

FAILED = 1
"""A step failed, or a check found something."""
WRONG_USAGE = 2
UNAVAILABLE = 3
"""A place was unavailable, or a check is incomplete."""
DOWNGRADED = 4
"""The run succeeded, but a step had less isolation than it asked for; only with --fail-on-downgrade."""
WAITS_FOR_A_PERSON = 5
OWN_ERROR = 70
"""An error of pccpipe's own (EX_SOFTWARE of sysexits.h), which no caller could have avoided."""
BROKEN_PIPE = 141


def exit_status(result: RunResult, *, fail_on_downgrade: bool) -> int:
    """Return the exit status of `run` and `resume`."""
    if fail_on_downgrade and result.downgraded and result.exit_status == 0:
        return DOWNGRADED
    return result.exit_status
