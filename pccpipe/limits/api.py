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
