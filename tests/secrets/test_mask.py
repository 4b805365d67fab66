"""No form of a secret survives masking, however the stream is cut."""

from __future__ import annotations

import base64
import contextlib
import html
import itertools
import json
import re
import shlex
import traceback
from collections.abc import Callable
from functools import partial
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccpipe import limits
from pccpipe.errors import UsageError
from pccpipe.secrets.forms import forms_of
from pccpipe.secrets.mask import Masker, mask_error
from tests.growth import is_linear
from tests.stall import measured

SECRETS = ["sk-Abc/+=123 secret", "abcab", "abcabcabd", "pass'word\"x\\y", "line one of it\nline two of it\n"]
MASKER = Masker(SECRETS)
pieces = st.lists(st.sampled_from([*SECRETS, "abc", "ab", "sk-Abc", " ", "\n", "xyz", "***"]), max_size=12).map("".join)


@given(pieces, st.lists(st.integers(0, 200), max_size=30))
@settings(max_examples=300)
def test_a_stream_cut_anywhere_is_masked_like_the_whole(text: str, at: list[int]) -> None:
    assert shown_of(MASKER, text.encode(), at) == MASKER.data(text.encode())


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda raw: raw,
    "base64": base64.b64encode,
    "base64 after 1": lambda raw: base64.b64encode(b"x" + raw + b"yy"),
    "base64 after 2": lambda raw: base64.b64encode(b"xx" + raw + b"y"),
    "base64url": base64.urlsafe_b64encode,
    "base64 in lines": lambda raw: base64.encodebytes(b"x" * 50 + raw + b"y" * 50),
    "base64 in lines in JSON": lambda raw: json.dumps(base64.encodebytes(b"xy" * 20 + raw).decode()).encode(),
    "hex": lambda raw: raw.hex().encode(),
    "HEX": lambda raw: raw.hex().upper().encode(),
    "url": lambda raw: quote(raw, safe="").encode(),
    "path": lambda raw: quote(raw).encode(),
    "form": lambda raw: quote_plus(raw).encode(),
    "json": lambda raw: json.dumps(raw.decode()).encode(),
    "json as it is": lambda raw: json.dumps(raw.decode(), ensure_ascii=False).encode(),
    "json in json": lambda raw: json.dumps(json.dumps({"a": raw.decode()})).encode(),
    "shell": lambda raw: shlex.quote(raw.decode()).encode(),
    "shell in json": lambda raw: json.dumps(shlex.quote(raw.decode())).encode(),
    "shell, otherwise": lambda raw: b"'" + raw.replace(b"'", b"'\\''") + b"'",
    "python": lambda raw: repr(raw.decode()).encode(),
    "html": lambda raw: html.escape(raw.decode()).encode(),
    "base64 in lines of Windows": lambda raw: base64.encodebytes(b"x" * 50 + raw).replace(b"\n", b"\r\n"),
    "base64 in lines of Windows in JSON": lambda raw: json.dumps(
        base64.encodebytes(b"xy" * 20 + raw).decode().replace("\n", "\r\n")
    ).encode(),
    "base32 with the other alphabet": base64.b32hexencode,
    "UTF-16, little end first": lambda raw: raw.decode().encode("utf-16-le"),
    "UTF-16, big end first": lambda raw: raw.decode().encode("utf-16-be"),
    "UTF-32": lambda raw: raw.decode().encode("utf-32-le"),
    "base64 of UTF-16": lambda raw: base64.b64encode(("x" + raw.decode()).encode("utf-16-le")),
    "HEX with colons": lambda raw: raw.hex(":").upper().encode(),
    "hex by two bytes": lambda raw: raw.hex(" ", -2).encode(),
    "hex by two bytes, after one": lambda raw: (b"y" + raw).hex(" ", -2).encode(),
    "each character as \\u": lambda raw: "".join(
        f"\\u{unit:04x}" for unit in memoryview(raw.decode().encode("utf-16-le")).cast("H")
    ).encode(),
    "each byte as %": lambda raw: "".join(f"%{byte:02X}" for byte in raw).encode(),
    "each byte as % twice": lambda raw: "".join(f"%25{byte:02x}" for byte in raw).encode(),
    "each byte as \\x": lambda raw: "".join(f"\\x{byte:02x}" for byte in raw).encode(),
    "each byte in octal": lambda raw: "".join(f"\\{byte:03o}" for byte in raw).encode(),
    "each character as &#": lambda raw: "".join(f"&#{ord(each)};" for each in raw.decode()).encode(),
}


def in_lines(width: int, raw: bytes) -> bytes:
    encoded = base64.b64encode(b"x" * 40 + raw)
    return b"\n".join(encoded[start : start + width] for start in range(0, len(encoded), width))


def hex_with(between: str, raw: bytes) -> bytes:
    return between.join(f"{byte:02x}" for byte in raw).encode()


def base32_after(before: int, raw: bytes) -> bytes:
    return base64.b32encode(b"x" * before + raw + b"y")


FORMS |= {f"base64 in lines of {width}": partial(in_lines, width) for width in (60, 64, 70, 72, 76)}
FORMS |= {f"base32 after {before}": partial(base32_after, before) for before in range(5)}
FORMS |= {
    f"hex with {between!r}": partial(hex_with, between) for between in (" ", ":", "-", ",", ", ", " 0x", ", 0x", "\\x")
}
# Without the characters of a mask, and long enough for each form to be unique.
secrets = st.text(
    st.characters(exclude_characters="*\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", codec="utf-8"),
    min_size=8,
    max_size=90,
)
cuts = st.lists(st.integers(0, 400), max_size=30)


def shown_of(masker: Masker, data: bytes, at: list[int]) -> bytes:
    """Return the masked stream, fed in pieces that are cut at these places."""
    stream = masker.stream()
    edges = [0, *sorted(min(edge, len(data)) for edge in at), len(data)]
    return b"".join(stream.feed(data[start:end]) for start, end in itertools.pairwise(edges)) + stream.finish()


@given(st.sampled_from(sorted(FORMS)), secrets, st.binary(max_size=20), st.binary(max_size=20), cuts)
@settings(max_examples=400, deadline=None)
def test_no_form_of_a_secret_survives_any_cut(
    form: str, secret: str, before: bytes, after: bytes, at: list[int]
) -> None:
    raw = secret.encode()
    encoded = FORMS[form](raw)
    shown = shown_of(Masker([secret]), before + encoded + after, at)
    assert b"***" in shown
    assert encoded not in shown
    assert raw not in shown
    for part in shown.split(b"***"):
        # Nothing in the rest decodes to as much as half of the secret.
        assert raw[: (len(raw) + 1) // 2] not in _decoded(part)


@given(
    st.lists(st.text(st.sampled_from("ab*/+"), min_size=1, max_size=9), max_size=4),
    st.text(st.sampled_from("ab*/+")),
    cuts,
)
@settings(max_examples=200, deadline=None)
def test_overlapping_secrets_become_one_mask_and_other_text_stays(values: list[str], text: str, at: list[int]) -> None:
    masker, data = Masker(values), text.encode()
    hidden = bytearray(len(data))
    for form in {form for value in values for form in forms_of(value)}:
        for start in range(len(data)):
            if data.startswith(form, start):
                hidden[start : start + len(form)] = b"x" * len(form)
    seen = b"".join(bytes([byte]) for byte, is_hidden in zip(data, hidden, strict=True) if not is_hidden)
    stream = masker.stream()
    assert shown_of(masker, data, at) == masker.data(data)
    assert sorted(masker.data(data).replace(b"*", b"")) == sorted(seen.replace(b"*", b""))
    stream.feed(data)
    stream.finish()
    assert stream.found == any(hidden)


@given(st.lists(secrets, max_size=5), st.binary(max_size=300), cuts)
@settings(max_examples=60, deadline=None)
def test_data_without_a_secret_stays_unchanged(values: list[str], data: bytes, at: list[int]) -> None:
    masker = Masker(values)
    if not any(form in data for value in values for form in forms_of(value)):
        assert shown_of(masker, data, at) == data
        assert masker.data(data) is data


def test_masking_is_linear_for_any_text_and_secrets() -> None:
    secrets = [f"sk-{'a' * 30}{number:04}" for number in range(20)] + ["a" * 40, "line\n" * 300]
    masker = Masker(secrets)
    for piece in (b"a" * 5, b"line\n", b"sk-"):

        def mask(kilobytes: int, piece: bytes = piece) -> None:
            text = b"sk-" + piece * (kilobytes * 1024 // len(piece))
            shown_of(masker, text, list(range(0, len(text), 4096)))

        assert is_linear(mask, 40)


def _decoded(part: bytes) -> bytes:
    found = b""
    plain = part.replace(b"\n", b"").replace(b"-", b"+").replace(b"_", b"/")
    for start in range(4):
        with contextlib.suppress(ValueError):
            found += base64.b64decode(plain[start:][: (len(plain) - start) // 4 * 4]) + b"|"
    return found


def test_the_longest_secret_wins_even_if_a_shorter_one_is_its_beginning() -> None:
    assert MASKER.data(b"<abcabcabd>") == b"<***>"
    assert shown_of(MASKER, b"<abcabcabd>", list(range(12))) == b"<***>"


def test_only_what_may_be_a_secret_is_held_back() -> None:
    stream = MASKER.stream()
    assert stream.feed(b"hello sk-Ab") == b"hello "
    assert stream.feed(b"!") == b"sk-Ab!"
    assert stream.feed(b" it is " + SECRETS[0].encode()) == b" it is ***"


def test_without_secrets_everything_passes_at_once() -> None:
    stream = Masker([]).stream()
    data = b"anything"
    assert stream.feed(data) is data
    assert stream.finish() == b""


@pytest.mark.parametrize("line", ["line one of it", "line two of it"])
def test_each_line_of_a_long_secret_is_a_secret(line: str) -> None:
    assert MASKER.text(f"> {line} <") == "> *** <"


def test_json_is_masked_in_keys_and_values() -> None:
    assert MASKER.json({"abcab": ["x", {"k": "is abcab"}], "n": 1}) == {"***": ["x", {"k": "is ***"}], "n": 1}


def test_an_exception_and_its_causes_show_no_secret() -> None:
    first, second, third = SECRETS[0], SECRETS[1], SECRETS[2]

    def fail() -> None:
        try:
            raise FileNotFoundError(2, "No such file", f"/tmp/{first}/x")
        except OSError as error:
            raise UsageError(f"it is {second}", f"not {third}") from RuntimeError(error)

    with pytest.raises(UsageError) as raised:
        fail()
    mask_error(raised.value, MASKER)
    text = "".join(traceback.format_exception(raised.value))
    assert not any(secret in text for secret in SECRETS)
    assert "/tmp/***/x" in text
    assert (raised.value.message, raised.value.hint) == ("it is ***", "not ***")


def test_no_value_of_an_exception_shows_a_secret() -> None:
    secret = "abcdef-4711"
    error = ValueError(secret.encode(), [secret, 1], {secret: (secret, None)})
    error.add_note(f"while {secret} was read")
    mask_error(error, Masker([secret]))
    assert error.args == (b"***", ["***", 1], {"***": ("***", None)})
    assert error.__notes__ == ["while *** was read"]


def test_a_value_can_be_added_and_dropped_during_a_stream() -> None:
    masker = Masker(["sk-Abcdef"])
    stream = masker.stream()
    shown = stream.feed(b"token-one ")
    masker.add(["token-one", "token-two"])
    shown += stream.feed(b"token-one sk-Abcdef ")
    masker.drop(["token-one"])
    shown += stream.feed(b"token-one token-two") + stream.finish()
    assert shown == b"token-one *** *** token-one ***"


@pytest.mark.parametrize("length", [*range(4, 9), 14, 15, 16, 22, 23, 24, 38, 39, 40, 200])
def test_a_secret_of_any_length_is_found_at_any_position(length: int) -> None:
    secret = ("q9Z-" * 50)[: length - 1] + "!"
    masker = Masker([secret])
    for before in range(70):
        text = b"." * before + secret.encode() + b"." * 5
        assert masker.data(text) == b"." * before + b"***" + b"." * 5
        stream = masker.stream()
        split = before + length // 2
        assert stream.feed(text[:split]) + stream.feed(text[split:]) + stream.finish() == masker.data(text)


@pytest.mark.parametrize("end", ["", "sk-a-secret-of-twenty"])
def test_much_data_at_once_does_not_hold_the_interpreter_lock(end: str) -> None:
    setup = f"""
        from pccpipe.secrets.mask import Masker
        masker = Masker(["sk-a-secret-of-twenty"])
        data = b"a plain line of a diff, with \\\\ and % and more\\n" * (1 << 20) + {end.encode()!r}
        masker.data(b"x" * 1000)
    """
    longest, _, said = measured(setup, "masked = masker.data(data); assert b'secret' not in masked")
    assert said == ""
    assert longest < limits.PAUSE


@given(st.integers(0, 300), st.integers(1, 3))
@settings(deadline=None)
def test_much_data_is_masked_like_little_data(before: int, times: int) -> None:
    masker = Masker(["sk-a-secret-of-twenty"])
    data = (b"x" * (262_000 + before) + b"sk-a-secret-of-twenty") * times
    assert masker.data(data) == (b"x" * (262_000 + before) + b"***") * times


@pytest.mark.parametrize("form", [str, repr, lambda value: base64.b64encode(value.encode()).decode(), json.dumps])
@pytest.mark.parametrize("dots", ["...", "\u2026"])
def test_the_piece_of_a_secret_beside_a_cut_in_a_message_is_masked(form: Callable[[str], str], dots: str) -> None:
    """A message shows the beginning and the end of a name of 200 characters, which may contain most of a key."""
    value = form('pass-4711-"wörd"-ABCDEFGHI').strip("'\"")
    characters = re.findall(r"\\u....|\\.|.", value)
    masker = Masker(['pass-4711-"wörd"-ABCDEFGHI'])
    for left in range(8, len(characters)):
        # Does not cut an escape.
        beginning = masker.message(f"'out/{''.join(characters[:left])}{dots}zzz': is refused")
        end = masker.message(f"'out/zzz{dots}{''.join(characters[-left:])}': is refused")
        assert all(value[at : at + 8] not in beginning + end for at in range(len(value) - 7))
        assert beginning.startswith("'out/")
        assert beginning.endswith(f"{dots}zzz': is refused")
        assert end.startswith(f"'out/zzz{dots}***")
        assert end.endswith("': is refused")


def test_a_message_without_a_piece_of_a_secret_stays_unchanged() -> None:
    masker = Masker(["abcdef-4711"])
    for text in ("and so on ...", "abc...", "a name...711", "\u2026", "...", "wait......\udc80...", "'x...': gone"):
        assert masker.message(text) == text


def test_endless_dots_cost_little() -> None:
    masker = Masker(["abcdef-4711-0815"])
    assert is_linear(lambda times: masker.message("abcdef-4..." * times), 10_000)
