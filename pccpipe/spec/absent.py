"""The values that expressions see where a step's result lacks something."""

from __future__ import annotations

from pccpipe.values import Json


class NoResult:
    """A missing result, or a missing key of a result: empty, false, and equal only to null.

    Each of its attributes is such a value again. So `until: steps.review.result.status == 'approved'` is false in a
    round that skipped the review.
    """

    def __getattr__(self, name: str) -> NoResult:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> NoResult:
        return self

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> object:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __str__(self) -> str:
        return ""

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, NoResult)

    def __lt__(self, other: object) -> bool:
        return False

    __le__ = __gt__ = __ge__ = __lt__

    def __hash__(self) -> int:
        return hash(None)


class Result(dict[str, object]):
    """A mapping in a step's result: a missing key gives a `NoResult`."""


def lenient(value: Json) -> object:
    """Return a step's result as expressions see it."""
    if isinstance(value, dict):
        return Result((key, lenient(inner)) for key, inner in value.items())
    return [lenient(item) for item in value] if isinstance(value, list) else value
