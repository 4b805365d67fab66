"""Finds files that must not leave this machine, even if not excluded: private keys, `.env` files, secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pccpipe import limits
from pccpipe.errors import ActionError
from pccpipe.outcome import Code
from pccpipe.secrets.values import Secrets
from pccpipe.workspace.allowed import shown
from pccpipe.workspace.exclude import SECRET_NAMES, Excluded

HEAD = 4096
"""Bytes of a file in which a private key is searched."""

_PRIVATE_KEY = re.compile(
    rb"^[ \t]*-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[ \t\r]*$|\APuTTY-User-Key-File-\d", re.MULTILINE
)
"""On a line of its own: source code that searches for keys has it in quotes."""


_NEVER = (*SECRET_NAMES, *(f"!{name}" for name in (".env.example", ".env.sample", ".env.template", ".env.dist")))
"""Names that no `!` of a pipeline lets in, except examples of a `.env` file."""


class Guard:
    """Inspects each file before it is sent; `check` reports the findings.

    Args:
        given: the pipeline's own patterns; one like `!tests/server.key`, an exact path, lets a key in.
        secrets: of the run; no file with the value of one is sent.
    """

    def __init__(self, given: Sequence[str], secrets: Secrets) -> None:
        let_in = {pattern.strip().removeprefix("!").lstrip("/") for pattern in given if pattern.startswith("!")}
        # Without a `!`, the exclusion rules already leave out such names.
        self._never = Excluded.only(_NEVER) if let_in else Excluded.only(())
        self._let_in = let_in
        self._secrets = secrets
        self._found: list[str] = []

    def look_at(self, relative: str, data: bytes) -> None:
        """Record what is wrong with a file; `data` is its first `SEARCHED` bytes."""
        if self._let_in and self._never.name(relative.casefold(), is_folder=False):
            self._found.append(f"{shown(relative)} (its name, which a `!` lets in)")
        elif relative not in self._let_in and _is_private_key(data[:HEAD]):
            self._found.append(f"{shown(relative)} (a private key)")
        elif self._secrets.found_in(data):
            self._found.append(f"{shown(relative)} (the value of a secret)")

    def check(self) -> None:
        """Raise ActionError with the code WORKSPACE_REFUSED if it found something."""
        if not self._found:
            return
        named, more = self._found[: limits.UPLOADS_REFUSED.most], len(self._found) - limits.UPLOADS_REFUSED.most
        words = ", ".join(named) + (f", and {more} more" if more > 0 else "")
        raise ActionError(
            f"the workspace contains files that must not be uploaded: {words}",
            "exclude them by name (`exclude:` of the upload), or move them out of the workspace; to upload a key for"
            " tests, name its exact path: `!tests/server.key`",
            Code.WORKSPACE_REFUSED,
        )


def _is_private_key(head: bytes) -> bool:
    # Two searches for a word are faster than one for the expression, and most files contain neither.
    return (b"PRIVATE KEY" in head or head.startswith(b"PuTTY")) and bool(_PRIVATE_KEY.search(head))
