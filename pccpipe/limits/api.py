"""Limits on what a model's API, or another server that the proxy asks, answers."""

from __future__ import annotations

from pccpipe.limits.limit import Limit, Unit

ANSWER = Limit(
    "the part of a model's answer, or of an event of it, that is read to count its tokens",
    4 << 20,
    Unit.BYTES,
    "The longest answer has 0.5 MB. A larger one is passed on, and counted by its size.",
)
ANSWER_HEAD = Limit(
    "the head of an answer, or what it has between two pieces of its body,",
    64 << 10,
    Unit.BYTES,
    "Interim answers, sizes of chunks and trailers count too; those of an API have about 4 KiB.",
)
CALL_TOKENS = Limit(
    "the tokens of one call, as a model's API counts them",
    10**12,
    Unit.COUNT,
    "No model takes this many; a larger count is ignored.",
)
REDIRECT = Limit(
    "the quoted part of the address that an API redirects to",
    200,
    Unit.COUNT,
    "Characters; a person reads it.",
)
RETRY_AFTER = Limit(
    "the wait that a model's API asks for after a call that its limits refused",
    24 * 3600,
    Unit.SECONDS,
    "A longer one counts as a day; then pccpipe asks the API again.",
)
ERROR_EVENT = Limit(
    "the event of a stream in which a model's API reports a limit",
    16 << 10,
    Unit.BYTES,
    "Such an event has about 200 bytes; a longer one is passed on unread.",
)
