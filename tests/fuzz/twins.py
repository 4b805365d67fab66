"""Compare parsers with another program that reads the same bytes (json, git, OpenSSL), and masks with real encoders."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import math
import re
import ssl
import subprocess
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from pccpipe import limits
from pccpipe.json_reader import NotJson, read_json
from pccpipe.secrets.mask import MASK, Masker
from pccpipe.secrets.proxy.hello import HelloScreen, RefusedHelloError
from pccpipe.values import Json
from pccpipe.workspace.gitignore import Patterns, Tree
from tests.fuzz.sides import NEXT
from tests.fuzz.target import Target, folder


def _json(data: bytes) -> None:
    try:
        value = read_json(data, "the data")
    except NotJson:
        assert not _is_good_json(data)
        return
    assert json.dumps(value, sort_keys=True) == json.dumps(json.loads(data.decode()), sort_keys=True)
    # A browser can read the JSON that pccpipe writes of it.
    written = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    assert read_json(written, "the data", limits.REQUEST_VALUES) == value


def _is_good_json(data: bytes) -> bool:
    try:
        value = json.loads(data.decode())
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return not _has_long_number(value) and not re.search(rb"NaN|Infinity", data)


def _has_long_number(value: Json) -> bool:
    match value:
        case list():
            return any(map(_has_long_number, value))
        case dict():
            return any(map(_has_long_number, value.values()))
        case int() if not isinstance(value, bool):
            return len(str(value)) > limits.JSON_DIGITS.most
        case float():
            return not math.isfinite(value)
        case _:
            return False


@functools.cache
def _repository() -> Path:
    path = folder() / "repository"
    subprocess.run(["git", "init", "-q", path], check=True)
    return path


_SHOWN = re.compile(rb"[^\t\r -~\n]")
"""Characters to leave out, because git compares bytes and pccpipe characters."""
_QUIRK = re.compile(rb"[^/*\n]\*\*+/")
"""By gitignore(5) `a**/b` means `a*/b`, and pccpipe reads it so. git removes the `a` first, and reads `**/b`."""


def _ignore_as_git(data: bytes) -> None:
    lines, _, names = _SHOWN.sub(b"", data.replace(NEXT, b"\n\n\n", 1)).partition(b"\n\n\n")
    paths = [path for line in names.split(b"\n") if (path := _relative(line))][:20]
    if not paths or _QUIRK.search(lines):
        return
    (_repository() / ".gitignore").write_bytes(lines)
    command = ["git", "-C", str(_repository()), "check-ignore", "--no-index", "-z", "--stdin"]
    stdin = "\0".join(paths).encode()
    ignored_by_git = subprocess.run(command, input=stdin, capture_output=True, check=False, env=_PLAIN).stdout
    tree = Tree({"": Patterns(lines.decode().split("\n"))})
    ignored = {path for path in paths if tree.ignores(path, is_folder=False)}
    assert ignored == set(ignored_by_git.decode().split("\0")) - {""}


_PLAIN = {"PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": "/nowhere"}


def _relative(line: bytes) -> str:
    parts = line.decode().split("/")
    if any(part in {"", ".", ".."} or part.lower().startswith(".git") for part in parts):
        return ""
    return "/".join(parts)[:200].rstrip("/")


def _hello(data: bytes) -> None:
    screen = HelloScreen("example.org", plain=False)
    try:
        passed = screen.from_client(data)
    except RefusedHelloError:
        return
    if passed:
        assert _server_by_openssl(passed) in {"example.org", "example.org.", None}


def _server_by_openssl(data: bytes) -> str | None:
    """Return the server that OpenSSL reads from a ClientHello; None if it reads none."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _, name, __: names.append(name)
    into = ssl.MemoryBIO()
    into.write(data)
    server = context.wrap_bio(into, ssl.MemoryBIO(), server_side=True)
    with contextlib.suppress(ssl.SSLError):
        server.do_handshake()
    return names[0].lower() if names and names[0] is not None else None


def _hex(between: str, width: int = 1) -> Callable[[bytes], bytes]:
    def encode(data: bytes) -> bytes:
        digits = data.hex()
        return between.join(digits[at : at + 2 * width] for at in range(0, len(digits), 2 * width)).encode()

    return encode


def _lines(width: int, end: bytes) -> Callable[[bytes], bytes]:
    def encode(data: bytes) -> bytes:
        text = base64.b64encode(data)
        return end.join(text[at : at + width] for at in range(0, len(text), width))

    return encode


ENCODERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data,
    base64.b64encode,
    base64.urlsafe_b64encode,
    *(_lines(width, b"\n") for width in (60, 64, 70, 72, 76)),
    _lines(76, b"\r\n"),
    _lines(64, b"\r\n"),
    base64.b32encode,
    base64.b32hexencode,
    _hex(""),
    _hex(" "),
    _hex(":"),
    _hex(" ", 2),
    lambda data: urllib.parse.quote(data).encode(),
    lambda data: urllib.parse.quote(data, safe="").encode(),
    lambda data: urllib.parse.quote_plus(data).encode(),
    lambda data: "".join(f"%{byte:02x}" for byte in data).encode(),
    lambda data: json.dumps(data.decode()).encode(),
    lambda data: json.dumps(data.decode(), ensure_ascii=False).encode(),
    lambda data: data.decode().encode("utf-16-le"),
    lambda data: data.decode().encode("utf-16-be"),
    lambda data: "".join(f"\\u{unit:04x}" for unit in _units(data)).encode(),
)


def _units(data: bytes) -> list[int]:
    wide = data.decode().encode("utf-16-be")
    return [int.from_bytes(wide[at : at + 2], "big") for at in range(0, len(wide), 2)]


def _mask_encoded(data: bytes) -> None:
    """Encode a secret between two texts as real programs do; the mask must leave no piece of its code."""
    how, before, after, cut, *rest = data.ljust(4, b"\0")
    secret = bytes(rest).decode("utf-8", "ignore")[:200]
    if len(secret) < 8 or "*" in secret or len(set(secret)) < 5:
        return
    encode = ENCODERS[how % len(ENCODERS)]
    raw = secret.encode()
    whole = encode(b"x" * (before % 100) + raw + b"y" * (after % 100))
    masker = Masker([secret])
    masked = masker.data(whole)
    assert MASK in masked, encode
    stream = masker.stream()
    step = cut % 50 + 1
    pieces = [stream.feed(whole[at : at + step]) for at in range(0, len(whole), step)]
    assert b"".join([*pieces, stream.finish()]) == masked
    # A second mask finds nothing more.
    assert masker.data(masked) == masked


TARGETS = {
    "hello-openssl": Target(_hello),
    "ignore-git": Target(_ignore_as_git),
    "json-twin": Target(_json),
    "mask-encoded": Target(_mask_encoded),
}
