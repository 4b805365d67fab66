"""No form of a secret survives masking, however the stream is cut."""

from __future__ import annotations

import base64
import itertools
import json
import shlex
import traceback
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccpipe.errors import UsageError
from pccpipe.secrets.mask import Masker, mask_error

SECRETS = ["sk-Abc/+=123 secret", "abcab", "abcabcabd", "pass'word\"x\\y", "line one of it\nline two of it\n"]
MASKER = Masker(SECRETS)
pieces = st.lists(st.sampled_from([*SECRETS, "abc", "ab", "sk-Abc", " ", "\n", "xyz", "***"]), max_size=12).map("".join)


def cut(data: bytes, at: list[int]) -> bytes:
    stream = MASKER.stream()
    shown = b""
    edges = [0, *sorted(min(edge, len(data)) for edge in at), len(data)]
    for start, end in itertools.pairwise(edges):
        shown += stream.feed(data[start:end])
    return shown + stream.finish()


@given(pieces, st.lists(st.integers(0, 200), max_size=30))
@settings(max_examples=300)
def test_a_stream_cut_anywhere_is_masked_as_the_whole(text: str, at: list[int]) -> None:
    assert cut(text.encode(), at) == MASKER.data(text.encode())


@given(st.text(max_size=20), st.sampled_from(SECRETS[:4]), st.text(max_size=20))
def test_no_common_form_survives(before: str, secret: str, after: str) -> None:
    text = f"{before}{secret}{after}"
    raw = text.encode("utf-8", "surrogatepass")
    forms = {
        "raw": raw,
        "base64": base64.b64encode(raw),
        "base64url": base64.urlsafe_b64encode(raw),
        "url": quote(raw, safe="").encode(),
        "form": quote_plus(raw).encode(),
        "json": json.dumps(text).encode(),
        "shell": shlex.quote(text).encode("utf-8", "surrogatepass"),
        "hex": raw.hex().encode(),
    }
    value = secret.encode()
    for name, form in forms.items():
        masked = MASKER.data(form)
        assert b"***" in masked, name
        assert value not in masked, name
        if name.startswith("base64"):
            # Of what is left, nothing decodes to as much as half of the secret.
            assert not any(value[:6] in _decoded(part) for part in masked.split(b"***") if part.isascii())


def _decoded(part: bytes) -> bytes:
    found = b""
    for start in range(4):
        text = part[start:].replace(b"-", b"+").replace(b"_", b"/")
        found += base64.b64decode(text[: len(text) // 4 * 4]) + b"|"
    return found


def test_the_longest_secret_wins_also_when_a_shorter_one_is_its_beginning() -> None:
    assert MASKER.data(b"<abcabcabd>") == b"<***>"
    assert cut(b"<abcabcabd>", list(range(12))) == b"<***>"


def test_only_what_may_be_a_secret_is_held_back() -> None:
    stream = MASKER.stream()
    assert stream.feed(b"hello sk-Ab") == b"hello "
    assert stream.feed(b"d") == b"sk-Abd"


def test_without_secrets_everything_passes_at_once() -> None:
    stream = Masker([]).stream()
    data = b"anything"
    assert stream.feed(data) is data
    assert stream.finish() == b""


@pytest.mark.parametrize("line", ["line one of it", "line two of it"])
def test_each_line_of_a_long_secret_is_one(line: str) -> None:
    assert MASKER.text(f"> {line} <") == "> *** <"


def test_json_is_masked_in_keys_and_values() -> None:
    assert MASKER.json({"abcab": ["x", {"k": "is abcab"}], "n": 1}) == {"***": ["x", {"k": "is ***"}], "n": 1}


def test_an_exception_and_those_it_came_of_say_no_secret() -> None:
    first, second, third = SECRETS[0], SECRETS[1], SECRETS[2]

    def fail() -> None:
        try:
            raise FileNotFoundError(2, "No such file", f"/tmp/{first}/x")
        except OSError as error:
            raise UsageError(f"it is {second}", f"not {third}") from RuntimeError(error)

    with pytest.raises(UsageError) as raised:
        fail()
    mask_error(raised.value, MASKER)
    told = "".join(traceback.format_exception(raised.value))
    assert not any(secret in told for secret in SECRETS)
    assert "/tmp/***/x" in told
    assert (raised.value.message, raised.value.hint) == ("it is ***", "not ***")
