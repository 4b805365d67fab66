"""The archive of an agent's transcripts is the agent's own work: only plain files with fitting names come out of it."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc

import pytest

from pccpipe import limits
from pccpipe.executor.transcripts import NotKept, pack, read_transcripts
from pccpipe.secrets.mask import Masker
from pccpipe.target import HomeFiles

SECRET = "sk-the-key-of-the-model"
MASKER = Masker([SECRET])
KEEPS = HomeFiles(".agent", ("sessions/**/*.jsonl", "index.json"), 1 << 20)


def archive(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", format=form) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            file.addfile(info, io.BytesIO(member[1]))
    return whole.getvalue()


def of_kind(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def read(packed: bytes, keeps: HomeFiles = KEEPS) -> dict[str, bytes]:
    return read_transcripts(packed, keeps, MASKER)


def test_plain_files_that_match_a_pattern_come_out_and_can_be_packed_again() -> None:
    long = f"./sessions/{'d' * 90}/{'e' * 90}/x.jsonl"
    files = read(
        archive(("./sessions/a.jsonl", b"1"), ("sessions/2026/11/b.jsonl", b""), ("index.json", b"i"), (long, b"l"))
    )
    assert files == {
        ".agent/sessions/a.jsonl": b"1",
        ".agent/sessions/2026/11/b.jsonl": b"",
        ".agent/index.json": b"i",
        f".agent/{long[2:]}": b"l",
    }
    inside = HomeFiles(".", tuple(files), 1 << 20)
    assert read(pack(files), inside) == {f"./{name}": data for name, data in files.items()}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "/etc/passwd.jsonl",
            "sessions/../../x.jsonl",
            "sessions/..",
            "../x.jsonl",
            "sessions/a\n.jsonl",
            "sessions/ .jsonl",
        ),
        *(
            "sessions//a.jsonl",
            "sessions/\x1b[2J.jsonl",
            "sessions/\udcff.jsonl",
            "sessions/ä.jsonl",
            f"sessions/{'a' * 600}.jsonl",
        ),
        *("other.jsonl", "sessions/a.txt", "sessions/sub/index.json", "index.json.jsonl", "sessions"),
    ],
)
def test_a_file_with_another_name_is_refused_with_the_whole_session(name: str) -> None:
    with pytest.raises(NotKept):
        read(archive(("sessions/a.jsonl", b"1"), (name, b"x")))


@pytest.mark.parametrize(
    "name", ["auth.json", "sub/AUTH.json", ".credentials.json", "config.toml", "settings.local.json", "a.pem"]
)
def test_a_login_or_settings_file_is_refused_though_the_patterns_ask_for_it(name: str) -> None:
    with pytest.raises(NotKept, match="login"):
        read(archive((name, b"x")), HomeFiles(".agent", ("**",), 1 << 20))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_anything_but_a_plain_file_is_refused(kind: bytes) -> None:
    with pytest.raises(NotKept, match="not a plain file"):
        read(archive(of_kind("sessions/a.jsonl", kind, "/etc/passwd")))


def test_a_name_that_is_there_twice_and_a_pax_header_are_refused() -> None:
    with pytest.raises(NotKept, match="twice"):
        read(archive(("sessions/a.jsonl", b"1"), ("./sessions/a.jsonl", b"2")))
    with pytest.raises(NotKept, match="plain"):
        read(archive((f"sessions/{'a' * 120}.jsonl", b"1"), form=tarfile.PAX_FORMAT))


@pytest.mark.parametrize("text", [SECRET, SECRET.replace("-", "\\u002d"), SECRET.encode().hex()])
def test_a_secret_in_a_transcript_refuses_the_session_also_when_it_is_encoded(text: str) -> None:
    with pytest.raises(NotKept, match="secret"):
        read(archive(("sessions/a.jsonl", f'{{"text": "{text}"}}'.encode())))
    with pytest.raises(NotKept, match="secret"):
        read(archive((f"sessions/{SECRET}.jsonl", b"x")))


@pytest.mark.parametrize("at", [0, 5, 20, 40, -30, -9])
def test_a_damaged_or_cut_archive_is_refused(at: int) -> None:
    whole = archive(("sessions/a.jsonl", b"some text" * 50))
    with pytest.raises(NotKept):
        read(whole[:at])
    plain = gzip.decompress(whole)
    with pytest.raises(NotKept):
        read(gzip.compress(plain[:800]))
    with pytest.raises(NotKept):
        read(gzip.compress(b"\1" * 2000))


def test_too_many_bytes_or_files_are_refused() -> None:
    with pytest.raises(NotKept, match="limit of 1 MiB"):
        read(archive(("sessions/a.jsonl", bytes(600_000)), ("sessions/b.jsonl", bytes(600_000))))
    many = archive(*((f"sessions/{number}.jsonl", b"") for number in range(limits.TRANSCRIPT_FILES.most + 1)))
    with pytest.raises(NotKept, match="1,000"):
        read(many)


def test_a_bomb_costs_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(400 << 20), 9)
    tracemalloc.start()
    try:
        with pytest.raises(NotKept):
            read(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < KEEPS.most + limits.TRANSCRIPT_HEADS.most + (8 << 20)
