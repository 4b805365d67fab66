"""Turns an engine's errors into reasons, with all of the engine's own words.

The status code and the call that failed decide. Where the engine has one code for several errors, its words decide,
and never a command's words.
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
from pccpipe.paste import operands


class ApiCall(Enum):
    """A call of the API, as far as its errors differ."""

    CREATE = "create"
    START = "start"
    OTHER = "other"


BAD_REQUEST = 400
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
# The engine does not know the runtime, or the runtime's program is missing. "exec: ..." alone is about the command's
# own shell.
_NO_RUNTIME = re.compile(
    r"unknown (or invalid )?runtime|could not find runtime|runtime \S+ (binary not installed|not found)"
    r"|unable to retrieve OCI runtime error \(.*?\): (fork/)?exec.* (no such file or directory|not found in \$PATH)",
    re.IGNORECASE,
)
_FIX_RUNTIME = (
    "install it there, name it under `runtimes` in /etc/docker/daemon.json and restart the engine; or leave out "
    "`runtime:` for the engine's own"
)


def unavailable(call: ApiCall, status: int, words: str, *, image: str = "") -> Unavailable:
    """Return why a container is unavailable, by the engine's answer."""
    if _NO_SPACE.search(words):
        return Unavailable(Reason.NO_DISK_SPACE, words, "free some space there: pccpipe gc, or docker system prune")
    if _NO_RUNTIME.search(words):
        return Unavailable(Reason.RUNTIME_MISSING, words, _FIX_RUNTIME)
    if call is ApiCall.CREATE and status == 404:
        hint = f"pccpipe provision (or, on that engine: docker pull {operands(image)})" if image else ""
        return Unavailable(Reason.IMAGE_MISSING, words, hint)
    if call is ApiCall.CREATE and status == 409:
        return Unavailable(Reason.NAME_TAKEN, words)
    match call:
        case ApiCall.CREATE:
            return Unavailable(Reason.CREATE_REFUSED, words)
        case ApiCall.START:
            return Unavailable(Reason.START_REFUSED, words)
        case ApiCall.OTHER:
            return Unavailable(Reason.ENGINE_ERROR, words)


_SHORTAGE = re.compile(
    r"(cannot allocate|out of) memory|temporarily unavailable|can(no|')t fork|too many open files|no space left",
    re.IGNORECASE,
)
# Of the container's init, of runc, and of a loader.
_NO_START = re.compile(
    r"exec .* failed: (exec format error|no such file|permission denied|not a directory|accessing a corrupted)"
    r"|exec:? .*: (exec format error|no such file or directory|permission denied|is a directory|not a directory)"
    r"|executable file .* not found|error while loading shared libraries|error relocating|exec user process caused",
    re.IGNORECASE,
)
_TRY = "docker run --rm --network none --entrypoint {shell} {image} -c true"
_ANOTHER_IMAGE = f"use an image for that machine's CPU whose shell runs: {_TRY}"


def never_began(image: str, shell: str, words: str, *, code: int | None = None, has_shell: bool = True) -> Unavailable:
    """Return why the command of a container never began.

    A shortage that other containers can cause (memory, processes) never means that the image has no shell.

    Args:
        shell: the path of the image's shell.
        words: the words of the container, or of the engine that refused to start it.
        code: the container's exit code, if it ended.
        has_shell: whether the image has a file of that path.
    """
    if not has_shell:
        words = f"the image {image} has no {shell}, which runs a step's script"
        return Unavailable(Reason.SHELL_MISSING, words, "use an image that has one: busybox and most others do")
    ended = words if code is None else f"the container ended before its command began (exit code {code}): {words}"
    # 126 and 127: its shell cannot run, or lacks a library.
    is_broken = _NO_START.search(words) or code in {126, 127}
    if _SHORTAGE.search(words) or not is_broken:
        return Unavailable(Reason.START_REFUSED, ended)
    hint = _ANOTHER_IMAGE.format(shell=shell, image=shlex.quote(image))
    return Unavailable(Reason.SHELL_MISSING, f"the shell {shell} of the image {image} does not run: {ended}", hint)


def from_sdk(call: ApiCall, error: Exception, *, image: str = "") -> PccpipeError:
    """Return the same for an error of the SDK; `Refused` for settings that the engine would always refuse."""
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
    # An answer that lasts, such as a build's, is read without requests.
    urllib3.exceptions.HTTPError,
    OSError,
)
"""The errors of a call of the SDK, besides `Unavailable` from dialling."""
