"""Limits on what a model's API, or another server that the proxy asks, answers."""

from __future__ import annotations

from pccpipe.limits.limit import Limit, Unit

ANSWER = Limit(
    "what is read of a model's answer, or of one event of it, to count its tokens",
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
    "No model takes as many; a larger count is none.",
)
REDIRECT = Limit(
    "what is quoted of the address to which an API sends a request on",
    200,
    Unit.COUNT,
    "Characters; a person reads it.",
)
