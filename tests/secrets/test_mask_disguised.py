"""Noise or escapes inside a secret do not hide it from masking; other text stays unchanged."""

from __future__ import annotations

import base64
import itertools
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pccpipe import limits
from pccpipe.secrets.mask import Masker
from pccpipe.secrets.readings import _ESCAPES, Reading
from tests.stall import measured

SECRET = "hunter2-Zq9xKw/4t+Lp="
MASKER = Masker([SECRET])
ROOT = Path(__file__).parents[2]


def shown_of(masker: Masker, data: bytes, size: int) -> bytes:
    """Return the masked stream, fed in pieces of this size."""
    stream = masker.stream()
    pieces = [stream.feed(data[start : start + size]) for start in range(0, len(data), size)]
    return b"".join([*pieces, stream.finish()])


def with_each(noise: str) -> str:
    return noise.join(SECRET)


def lines(text: str, width: int, end: str = "\n") -> str:
    return end.join(text[start : start + width] for start in range(0, len(text), width))


def one_escaped(escape: Callable[[str], str]) -> str:
    """Escape every third character, and leave the others."""
    return "".join(escape(each) if number % 3 == 1 else each for number, each in enumerate(SECRET))


def as_dump(text: str, *, groups: int, bars: bool) -> str:
    """Format data like `hexdump -C` or `xxd`."""
    raw = b"some text " + text.encode() + b" and more of the text\n"
    shown = []
    for start in range(0, len(raw), 16):
        row = raw[start : start + 16]
        plain = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        if bars:
            digits = f"{row[:8].hex(' ')}  {row[8:].hex(' ')}"
            shown.append(f"{start:08x}  {digits:<49} |{plain}|")
        else:
            shown.append(f"{start:08x}: {row.hex(' ', -groups):<{47 if groups == 1 else 39}}  {plain}")
    return "\n".join(shown) + "\n"


ESCAPES: dict[str, Callable[[str], str]] = {
    "\\u": lambda each: f"\\u{ord(each):04x}",
    "\\u, twice": lambda each: f"\\\\u{ord(each):04X}",
    "\\u{}": lambda each: f"\\u{{{ord(each):x}}}",
    "\\U": lambda each: f"\\U{ord(each):08x}",
    "\\x": lambda each: f"\\x{ord(each):02x}",
    "octal": lambda each: f"\\{ord(each):03o}",
    "%": lambda each: f"%{ord(each):02x}",
    "%, twice": lambda each: f"%25{ord(each):02X}",
    "&#": lambda each: f"&#{ord(each)};",
    "&#x": lambda each: f"&#x{ord(each):04X};",
    "&amp;#": lambda each: f"&amp;#{ord(each)};",
    "a backslash": lambda each: each if each.isalnum() else f"\\{each}",
}
NOISES = {
    "a colour": "\x1b[31m",
    "a colour and its end": "\x1b[0m\x1b[1;38;5;12m",
    "a colour in JSON": "\\u001b[31m",
    "a colour in Python": "\\x1b[0m",
    "a colour in C": "\\033[0m",
    "a link": "\x1b]8;;https://example.org\x1b\\",
    "a title": "\x1b]0;title\x07",
    "a charset": "\x1b(B",
    "a zero width space": "\u200b",
    "a zero width space in JSON": "\\u200b",
    "a soft hyphen": "\u00ad",
    "a byte order mark": "\ufeff",
    "a tag": "\U000e0041",
    "a word joiner": "\u2060",
    "a bidirectional control": "\u202e",
    "a control": "\x01",
    "a line end": "\n",
    "a line end in JSON": "\\n",
    "a line end of Windows": "\r\n",
    "a line end and blanks": "\n        ",
    "a line that goes on": "\\\n",
}
DISGUISED = {f"all of it with {name} between": with_each(noise) for name, noise in NOISES.items()}
DISGUISED |= {
    f"{name} in its middle": f"{SECRET[:9]}{noise}{SECRET[9:]}" for name, noise in NOISES.items() if noise.strip("\r\n")
}
DISGUISED |= {f"{name} for some": one_escaped(escape) for name, escape in ESCAPES.items()}
DISGUISED |= {f"lines of {width}": lines(SECRET, width) for width in range(1, len(SECRET))}
DISGUISED |= {
    f"base64 in lines of {width}": lines(base64.b64encode(b"x" + SECRET.encode()).decode(), width)
    for width in (1, 2, 3, 5, 8, 13, 20)
}
DISGUISED |= {
    "base64 in lines in YAML": lines(base64.b64encode(SECRET.encode()).decode(), 10, "\n    "),
    "base64 in lines in JSON": json.dumps(lines(base64.b64encode(SECRET.encode()).decode(), 7, "\r\n")),
    "base64 with an escaped +": base64.b64encode(f"{SECRET}>>>".encode()).decode().replace("+", "%2B"),
    "base32 in lines": lines(base64.b32encode(SECRET.encode()).decode(), 9),
    "base32 of small letters": base64.b32encode(SECRET.encode()).decode().lower(),
    "base32 of small letters, the other alphabet": base64.b32hexencode(SECRET.encode()).decode().lower(),
    "hex in lines": lines(SECRET.encode().hex(), 6),
    "hex and escapes": one_escaped(lambda each: f"\\u00{ord(each):02x}\x1b[1m\u200b"),
    "UTF-16 in lines": lines(SECRET, 4).encode("utf-16-le").decode("latin-1"),
}


_TOKENS = [each("a").encode() for each in ESCAPES.values()] + [noise.encode() for noise in NOISES.values()]
_TOKENS += [
    b"\\",
    b"\\" * 64,
    b"n",
    b"r",
    b"u",
    b"x",
    b"0",
    b"33[",
    b"[",
    b"m",
    b"41",
    b"\x1b",
    b"\x07",
    b"]",
    b"%",
    b"25",
]
_TOKENS += [
    b"&",
    b"amp;",
    b"#",
    b";",
    b"\xc2",
    b"\x9b",
    b"\\ud83d",
    b"\\ude00",
    b"{",
    b"}",
    b"%5c",
    b"\0",
    b" ",
    b"word " * 60,
]


@pytest.mark.parametrize("form", [form for form in DISGUISED if "link" not in form or "between" not in form])
@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_only_the_disguised_secret_is_masked(form: str, size: int) -> None:
    data = f"it says: {DISGUISED[form]} :end of it".encode()
    shown = shown_of(MASKER, data, size)
    before, *_, after = shown.removeprefix(b"it says: ").removesuffix(b" :end of it").split(b"***")
    # With a line's end and a pause after its first characters, these few were shown already. The characters at the
    # edges of base64 contain bits of other bytes.
    assert len(re.sub(rb"[\s\\]", b"", before)) <= (2 if size > 7 else 9)
    assert len(re.sub(rb"\s", b"", after)) <= 7
    assert b"***" in shown
    assert MASKER.data(data).count(b"***") == 1


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bars", [True, False])
@pytest.mark.parametrize("size", [3, 1 << 16])
def test_a_dump_with_offsets_and_characters_shows_no_secret(groups: int, bars: bool, size: int) -> None:
    shown = shown_of(MASKER, as_dump(SECRET, groups=groups, bars=bars).encode(), size).decode()
    left = re.sub(r"^[0-9a-f]{8}:? |\|.*\|| {2}\S*$", "", shown, flags=re.MULTILINE)
    for part in itertools.chain(shown.split("***"), left.split("***")):
        assert SECRET[3:9] not in part
        assert SECRET[9:15] not in part
        assert SECRET[3:9].encode().hex() not in re.sub(r"\s", "", part)
    assert "more of the" in shown
    assert "***" in shown


def test_a_short_secret_is_masked_where_characters_are_escaped_or_coloured() -> None:
    masker = Masker(["hunter"])
    for text in (
        "hun\\u0074er",
        "%68unter",
        "\\x68unter",
        "\\U00000068unter",
        "&#104;unter",
        "hun\x1b[1mter",
        "hu\u200bnter",
    ):
        assert masker.text(f"<{text}>") == "<***>"
    # Its pieces at the ends of lines are in many texts.
    assert masker.text("a hun\nter, hun ter") == "a hun\nter, hun ter"


def test_an_escape_that_swallows_a_character_hides_no_secret() -> None:
    masker = Masker(["u0041bcdefgh", "nightly-token-1"])
    assert masker.text("\\u0041bcdefgh") == "\\***"
    assert masker.text("C:\\nightly-token-1") == "C:\\***"
    assert masker.text("\x1b[nightly-token-1") == "\x1b[***"
    assert masker.text("\x1b]nig\\u0068tly-token-1\x07") == "\x1b]***\x07"


def test_a_line_that_ends_like_the_beginning_of_a_secret_is_shown_at_once() -> None:
    stream = MASKER.stream()
    assert stream.feed(b"wash\n") == b"wash\n"
    assert stream.feed(b"unter2-Zq9xKw/4t+Lp=\n") == b"***\n"
    assert stream.feed(b"hunter2-\n") == b""
    assert stream.feed(b"no\n") == b"hunter2-\nno\n"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_at_most_three_characters_of_a_secret_are_shown_before_its_line_ends(end: str) -> None:
    secret = "q9Z-" * 50
    for text in (secret, base64.b64encode(secret.encode()).decode(), secret.encode().hex()):
        for shown in range(1, len(text) // 2, 7):
            stream = Masker([secret]).stream()
            begun = stream.feed(f"{text[:shown]}{end}".encode())
            assert len(begun.strip()) <= (3 if end else 0)
            assert b"***" in begun + stream.feed(text[shown:].encode()) + stream.finish()


@given(st.lists(st.sampled_from(_TOKENS), max_size=25).map(b"".join))
@example(b"\\%6e")
@example(b"\\x\\n41")
@example(b"\\\\nr")
@settings(max_examples=500, deadline=None)
def test_the_fast_decoding_gives_the_same_text(data: bytes) -> None:
    reading = Reading(data, _ESCAPES)
    assert reading.text == reading.decode(_ESCAPES.split(data))


def words_of_the_project() -> bytes:
    kinds = ("pccpipe/**/*.py", "docs/*.md", "schemas/*.json", "pipelines/*.yaml", "tests/secrets/test_proxy.py")
    files = sorted(itertools.chain.from_iterable(ROOT.glob(kind) for kind in kinds))
    text = b"\n".join(file.read_bytes() for file in files)
    logged = b"".join(
        json.dumps({"type": "item", "text": line}).encode() + b"\n" for line in text.decode().splitlines()
    )
    numbers = "\n".join(f"{number:8d} 2026-01-{number % 28:02}T10:{number % 60:02} ok" for number in range(20_000))
    return text + logged + numbers.encode()


def test_ordinary_text_stays_unchanged() -> None:
    random_ = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/+"
    secrets = ["".join(random_.choices(letters, k=length)) for length in (8, 9, 12, 16, 20, 32, 40, 64)]
    secrets += ["".join(random_.choices("0123456789", k=length)) for length in (8, 10, 12)]
    secrets += ["correct horse battery staple", "pa55word", "P@ssw0rd!", "AKIAIOSFODNN7EXAMPLE"]
    data = words_of_the_project()
    masker = Masker(secrets)
    assert masker.data(data) is data
    assert shown_of(masker, data, 9973) == data


@pytest.mark.parametrize(
    "text", ["rou\nting12", "rou ting12", "r o u t i n g 1 2", "1234\n5678", "12 34 56 78", "12345\n678", "wo\nrd"]
)
def test_pieces_of_a_short_secret_are_not_masked(text: str) -> None:
    masker = Masker(["routing1", "12345678", "word"])
    assert ("***" in masker.text(text)) == (text == "rou\nting12")


TEXTS = {
    "escapes": b"\\u0068" * 40_000,
    "backslashes": b"\\" * 250_000,
    "percents": b"%25" * 80_000,
    "colours": b"\x1b[31m" * 50_000,
    "open titles": b"\x1b]" * 125_000,
    "one open title": b"\x1b]" + b"a" * 250_000,
    "codes of HTML": b"&amp;" * 50_000,
    "zero width": "h\u200b".encode() * 60_000,
    "line ends": b"h\n" * 120_000,
    "nearly it": (SECRET[:-1] + "\n").encode() * 11_000,
    "it": (SECRET + "\n").encode() * 11_000,
    "it, disguised": (one_escaped(ESCAPES["\\u"]) + "\n").encode() * 5_000,
    "a dump": as_dump("x" * 60_000, groups=1, bars=True).encode(),
    "beginnings of a dump": b"\n0000000 00 " * 20_000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_makes_masking_slow(name: str) -> None:
    began = time.thread_time()
    MASKER.data(TEXTS[name])
    shown_of(MASKER, TEXTS[name], 8192)
    assert time.thread_time() - began < 3


@pytest.mark.parametrize("name", ["escapes", "backslashes", "one open title", "zero width", "beginnings of a dump"])
def test_no_text_holds_the_interpreter_lock(name: str) -> None:
    setup = f"""
        from tests.secrets.test_mask_disguised import MASKER, TEXTS
        data = TEXTS[{name!r}] * 40
        MASKER.data(b"x" * 1000)
    """
    # A held lock shows each time; a busy machine, which delays the other thread, does not.
    longest, said = 1.0, ""
    for _attempt in range(3):
        if longest >= limits.PAUSE and not said:
            longest, _, said = measured(setup, "MASKER.data(data)")
    assert said == ""
    assert longest < limits.PAUSE


noises = st.sampled_from([*NOISES.values(), "\u200b\n", "\x1b[1m\\n"])
escapes = st.sampled_from(sorted(ESCAPES))


@given(st.lists(st.tuples(st.integers(0, 3), noises, escapes), min_size=len(SECRET), max_size=len(SECRET)), st.data())
@settings(max_examples=300, deadline=None)
def test_no_mixture_of_noise_and_escapes_hides_a_secret(marks: list[tuple[int, str, str]], data: st.DataObject) -> None:
    text = ""
    for number, (each, (choice, noise, escape)) in enumerate(zip(SECRET, marks, strict=True)):
        text += noise if choice & 1 and number else ""
        text += ESCAPES[escape](each) if choice & 2 else each
    whole = f"<{text}>".encode()
    assert MASKER.data(whole) == b"<***>"
    size = data.draw(st.integers(1, len(whole)))
    shown = shown_of(MASKER, whole, size)
    assert b"***" in shown
    # At most the bytes that looked harmless when a line ended there.
    assert len(shown) < 60
