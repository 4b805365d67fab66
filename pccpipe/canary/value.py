"""The canary: a secret that is good for nothing, and known by any part of it, in any form."""

from __future__ import annotations

import secrets
import string
from typing import TYPE_CHECKING

from pccpipe.secrets.forms import forms_of
from pccpipe.secrets.mask import Masker

if TYPE_CHECKING:
    from collections.abc import Iterable

PART = 14
"""Letters and digits of each of its two halves; as a whole its base64 fits into a line of 76."""
SPECIAL = "/+ =\"'\\%&"
"""Between them: what URLs, JSON and shells write otherwise."""


class Canary:
    """New each time. Its halves are looked for, too: they show through any way of quoting what is between them."""

    def __init__(self) -> None:
        first, second = (
            "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(PART)) for _ in range(2)
        )
        self.value = f"{first}{SPECIAL}{second}"
        parts = (self.value, first, second)
        self._forms = tuple(sorted({form for part in parts for form in forms_of(part)}))
        self._masker = Masker(parts)

    @property
    def patterns(self) -> str:
        """What `grep -F` takes, one a line."""
        # No shell and no pattern has zero bytes: UTF-16 and UTF-32 are looked for where Python does it.
        return "\n".join(form.decode() for form in self._forms if 0 not in form)

    def is_in(self, data: bytes) -> bool:
        """Whether any form of it is in the data."""
        return any(form in data for form in self._forms)

    def is_in_any(self, texts: Iterable[str]) -> bool:
        """The same for texts."""
        return any(self.is_in(text.encode(errors="surrogateescape")) for text in texts)

    def masked(self, text: str) -> str:
        """The text without it: what is found is told without the canary itself."""
        return self._masker.text(text)

    def __repr__(self) -> str:
        return "Canary(***)"
