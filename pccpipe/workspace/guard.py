"""What may not leave this machine, though nobody excluded it: private keys, `.env` files, what has a secret in it."""

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
"""The same for a private key."""

_PRIVATE_KEY = re.compile(
    rb"^[ \t]*-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[ \t\r]*$|\APuTTY-User-Key-File-\d", re.MULTILINE
)
"""On a line of its own: source code that looks for keys has it in quotes."""


_NEVER = (*SECRET_NAMES, *(f"!{name}" for name in (".env.example", ".env.sample", ".env.template", ".env.dist")))
"""Names that no `!` of the pipeline's lets in, but for files that show what a `.env` would look like."""


class Guard:
    """Looks at each file that would go up; `check` says what was found.

    Args:
        given: the pipeline's own patterns; one like `!tests/server.key`, an exact path, lets a key in.
        secrets: of the run; no file with the value of one goes up.
    """

    def __init__(self, given: Sequence[str], secrets: Secrets) -> None:
        let_in = {pattern.strip().removeprefix("!").lstrip("/") for pattern in given if pattern.startswith("!")}
        # Without a `!`, what has such a name does not come here.
        self._never = Excluded.only(_NEVER) if let_in else Excluded.only(())
        self._let_in = let_in
        self._secrets = secrets
        self._found: list[str] = []

    def look_at(self, relative: str, data: bytes) -> None:
        """Note what is wrong with a file, of which `data` are the first `SEARCHED` bytes."""
        if self._let_in and self._never.name(relative.casefold(), is_folder=False):
            self._found.append(f"{shown(relative)} (by its name, which a `!` lets in)")
        elif relative not in self._let_in and _is_private_key(data[:HEAD]):
            self._found.append(f"{shown(relative)} (a private key)")
        elif self._secrets.found_in(data):
            self._found.append(f"{shown(relative)} (the value of a secret)")

    def check(self) -> None:
        """Raise ActionError, WORKSPACE_REFUSED, if something was found."""
        if not self._found:
            return
        more = (
            f", and {len(self._found) - limits.UPLOADS_REFUSED.most} more"
            if len(self._found) > limits.UPLOADS_REFUSED.most
            else ""
        )
        raise ActionError(
            f"the workspace has what may not go up: {', '.join(self._found[: limits.UPLOADS_REFUSED.most])}{more}",
            "exclude it by name (`exclude:` of the upload), or move it out of the workspace; a key that is to go up,"
            " for tests, is let in by its exact path: `!tests/server.key`",
            Code.WORKSPACE_REFUSED,
        )


def _is_private_key(head: bytes) -> bool:
    # Two searches for a word are quicker than one for the expression, and most files have neither.
    return (b"PRIVATE KEY" in head or head.startswith(b"PuTTY")) and bool(_PRIVATE_KEY.search(head))
