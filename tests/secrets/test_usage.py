"""The tokens of an answer are counted in any pieces, and after a cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.secrets.proxy.usage import TokenCounter, Tokens

USAGE = {"input_tokens": 70, "input_tokens_details": {"cached_tokens": 50}, "output_tokens": 9}
CHAT = {"prompt_tokens": 70, "prompt_tokens_details": {"cached_tokens": 50}, "completion_tokens": 9}
COUNTED = Tokens(70, 50, 9)


def event(data: object) -> str:
    return f"data: {json.dumps(data)}\n\n"


RESPONSES = (
    event({"type": "response.created", "response": {"usage": None}})
    + event({"type": "response.output_text.delta", "delta": 'data: {"usage": {"input_tokens": 1}}\n\n'})
    + event({"type": "response.completed", "response": {"usage": USAGE}})
)
COMPLETIONS = event({"choices": [1], "usage": None}) + event({"choices": [], "usage": CHAT}) + "data: [DONE]\n\n"


def counted(text: str, cuts: list[int], *, is_stream: bool = True) -> Tokens:
    counter, data = TokenCounter(is_stream=is_stream), text.encode()
    marks = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(marks):
        counter.feed(data[start:end])
    return counter.tokens(100)


@given(st.sampled_from([RESPONSES, COMPLETIONS]), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_stream_is_counted_by_its_last_event_in_any_pieces(text: str, cuts: list[int]) -> None:
    assert counted(text, cuts) == COUNTED
    assert counted(text.replace("\n", "\r\n"), cuts) == COUNTED


@pytest.mark.parametrize("found", [USAGE, CHAT])
def test_a_document_is_counted_too(found: object) -> None:
    assert counted(json.dumps({"object": "x", "usage": found}), [3, 9], is_stream=False) == COUNTED


@pytest.mark.parametrize(
    "text",
    [
        RESPONSES[:-40],
        "no json at all",
        event({"type": "response.output_text.delta", "usage": USAGE}),
        event({"type": "response.completed", "response": {"usage": "many"}}),
        event({"usage": [1]}),
    ],
)
def test_an_answer_without_counts_counts_by_its_size(text: str) -> None:
    assert counted(text, []) == Tokens(estimated=100 + len(text) // 4)


@pytest.mark.parametrize("value", [-5, True, 1.5, "9", None])
def test_an_invalid_count_is_ignored(value: object) -> None:
    got = counted(event({"usage": {"input_tokens": value, "output_tokens": 7}}), [])
    assert (got.input, got.output) == (0, 7)


def test_an_event_that_is_too_large_does_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER", replace(limits.ANSWER, most=1000))
    large = event({"type": "x", "usage": "y" * 5000})
    assert counted(large + COMPLETIONS, [500, 1500, 2500, 4500]) == COUNTED


ANTHROPIC = (
    event(
        {
            "type": "message_start",
            "message": {"usage": {"input_tokens": 20, "cache_read_input_tokens": 50, "output_tokens": 1}},
        }
    )
    + event({"type": "content_block_delta", "delta": {"text": 'data: {"usage": {"input_tokens": 1}}'}})
    + event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}})
    + event({"type": "message_stop"})
)
GEMINI_USAGE = {
    **{"promptTokenCount": 70, "cachedContentTokenCount": 50, "candidatesTokenCount": 4, "thoughtsTokenCount": 5},
    "totalTokenCount": 79,
}
GEMINI = event({"candidates": [1], "usageMetadata": {"promptTokenCount": 70}}) + event({"usageMetadata": GEMINI_USAGE})


@pytest.mark.parametrize("text", [ANTHROPIC, GEMINI])
def test_other_providers_streams_are_counted(text: str) -> None:
    assert counted(text, [10, 100]) == COUNTED


@pytest.mark.parametrize(
    "document",
    [
        {
            "type": "message",
            "usage": {"input_tokens": 15, "cache_creation_input_tokens": 5}
            | {"cache_read_input_tokens": 50, "output_tokens": 9},
        },
        {"usageMetadata": GEMINI_USAGE},
        [{"usageMetadata": {"promptTokenCount": 1}}, {"usageMetadata": GEMINI_USAGE}],
    ],
)
def test_other_providers_documents_are_counted(document: object) -> None:
    written = 5 if "cache_creation" in str(document) else 0
    assert counted(json.dumps(document), [], is_stream=False) == replace(COUNTED, cache_write_input=written)


def test_an_answer_whose_end_states_no_tokens_is_estimated_from_its_start() -> None:
    start, delta, end = ({"type": kind} for kind in ("message_start", "content_block_delta", "message_delta"))
    start["message"] = {"usage": {"input_tokens": 70, "output_tokens": 1}}  # type: ignore[assignment]
    text = (
        event(start) + event({**delta, "delta": {"text": "x" * 4000}}) + event({**end, "usage": {"output_tokens": 0}})
    )
    tokens = counted(text, [40, 400])
    assert (tokens.input, tokens.output) == (70, 1)
    assert tokens.estimated >= 1000


def test_the_last_counts_of_a_stream_are_those_of_the_call() -> None:
    early = event({"type": "message_delta", "usage": {"output_tokens": 3}})
    assert counted(early.join(ANTHROPIC.partition("\n\n")[::2]), [7]).output == 9
    less = event({"usageMetadata": {"promptTokenCount": 70}})
    assert counted(GEMINI + less, [7]).output == 9


@pytest.mark.parametrize("said", [-1, 10**12 + 1, True, 1.5, "7"])
def test_an_impossible_count_is_ignored(said: object) -> None:
    counter = TokenCounter(is_stream=False)
    counter.feed(json.dumps({"usage": {"input_tokens": said, "output_tokens": 3}}).encode())
    assert counter.tokens(100) == Tokens(output=3, estimated=100)
