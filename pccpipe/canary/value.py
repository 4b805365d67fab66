"""The canary: a useless secret that is recognized by any part of it, in any form."""

from __future__ import annotations

import secrets
import string
from typing import TYPE_CHECKING

from pccpipe.secrets.forms import forms_of
from pccpipe.secrets.mask import Masker

if TYPE_CHECKING:
    from collections.abc import Iterable

PART = 14
"""Letters and digits of each half; the base64 of the whole fits into a line of 76."""
SPECIAL = "/+ =\"'\\%&"
"""Between the halves: characters that URLs, JSON and shells quote."""


class Canary:
    """Make a new secret. Its halves are searched for too: they survive any quoting of the part between."""

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
        """Patterns for `grep -F`, one a line."""
        # No shell and no pattern has zero bytes: only Python searches for UTF-16 and UTF-32.
        return "\n".join(form.decode() for form in self._forms if 0 not in form)

    def is_in(self, data: bytes) -> bool:
        """Say whether any form of it is in the data."""
        return any(form in data for form in self._forms)

    def is_in_any(self, texts: Iterable[str]) -> bool:
        """Say whether any form of it is in one of the texts."""
        return any(self.is_in(text.encode(errors="surrogateescape")) for text in texts)

    def masked(self, text: str) -> str:
        """Mask the canary in a text: no report shows it."""
        return self._masker.text(text)

    def __repr__(self) -> str:
        return "Canary(***)"
