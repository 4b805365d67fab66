"""An engine's errors as reasons, with the engine's own words kept whole.

The status code and the call that failed decide; words are looked at only where the engine has one code for several
things, and only the engine's own words, never a command's.
"""

from __future__ import annotations

import re
import shlex
from enum import Enum

import docker.errors
import requests
import urllib3.exceptions

from pccpipe.errors import Broken, PccpipeError, Refused, Unavailable
from pccpipe.outcome import Reason


class Call(Enum):
    """What the engine was asked to do."""

    CREATE = "create"
    START = "start"
    OTHER = "other"


BAD_REQUEST = 400
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
# A runtime that the engine does not know, or knows by the path of a program that is not there. "exec: ..." alone is of
# the command's own shell.
_NO_RUNTIME = re.compile(
    r"unknown (or invalid )?runtime|could not find runtime|runtime \S+ (binary not installed|not found)"
    r"|unable to retrieve OCI runtime error \(.*?\): (fork/)?exec.* (no such file or directory|not found in \$PATH)",
    re.IGNORECASE,
)
_MEND_RUNTIME = (
    "install it there, name it under `runtimes` in /etc/docker/daemon.json and restart the engine; or leave out "
    "`runtime:` for the engine's own"
)


def unavailable(call: Call, status: int, words: str, *, image: str = "") -> Unavailable:
    """Why a container is not to be had, by the engine's answer."""
    if _NO_SPACE.search(words):
        return Unavailable(Reason.NO_DISK_SPACE, words, "free some space there: pccpipe gc, or docker system prune")
    if _NO_RUNTIME.search(words):
        return Unavailable(Reason.RUNTIME_MISSING, words, _MEND_RUNTIME)
    if call is Call.CREATE and status == 404:
        build = f"docker build -t {shlex.quote(image)} ..."
        hint = f"build or load the image {image} on that engine: {build}" if image else ""
        return Unavailable(Reason.IMAGE_MISSING, words, hint)
    if call is Call.CREATE and status == 409:
        return Unavailable(Reason.NAME_TAKEN, words)
    match call:
        case Call.CREATE:
            return Unavailable(Reason.CREATE_REFUSED, words)
        case Call.START:
            return Unavailable(Reason.START_REFUSED, words)
        case Call.OTHER:
            return Unavailable(Reason.ENGINE_ERROR, words)


def from_sdk(call: Call, error: Exception, *, image: str = "") -> PccpipeError:
    """The same for what the SDK raised; `Refused` for a container that the engine would never make as it is asked."""
    if isinstance(error, docker.errors.APIError):
        words, status = str(error.explanation or error), int(error.status_code or 0)
        no = unavailable(call, status, words, image=image)
        if status == BAD_REQUEST and no.reason is Reason.CREATE_REFUSED:
            return Refused(f"the engine refuses these settings of the container: {words}")
        return no
    if isinstance(error, requests.exceptions.Timeout | TimeoutError):
        return Unavailable(Reason.ENGINE_NOT_ANSWERING, f"the engine did not answer in time: {error}")
    return Broken(Reason.ENGINE_STOPPED, f"the engine ended the connection: {error}")


SDK_ERRORS = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    # What reads an answer that lasts, a build's, goes past requests.
    urllib3.exceptions.HTTPError,
    OSError,
)
"""All that a call of the SDK may raise, beside `Unavailable` from dialling."""
