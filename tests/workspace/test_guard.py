"""Files that must not be uploaded are named, and the message says how to continue."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.errors import ActionError
from pccpipe.outcome import Code
from pccpipe.secrets.values import Secrets
from pccpipe.workspace.base import Side
from pccpipe.workspace.sync import WorkspaceSync
from tests.workspace.halts import NeverHalted

NEVER = NeverHalted()
OPENSSH = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n"
SECRET = "sk-proj-abcdefghijklmnop"


def upload(folder: Path, files: dict[str, str | bytes], *exclude: str) -> list[str]:
    """Upload a workspace of these files, in a project without a VM; return the files of the copy."""
    user = folder / "user"
    for name, content in files.items():
        path = user / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    state, secrets = folder / "workspace.json", Secrets({"KEY": SECRET, "SHORT": "short"})
    sync = WorkspaceSync(user, folder / "copy", folder / "sent", None, "", state, secrets)
    sync.upload(list(exclude), NEVER)
    sync.prepare(Side.LOCAL, NEVER)
    return sorted(str(path.relative_to(sync.local_folder)) for path in sync.local_folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("deploy", OPENSSH, "a private key"),
        ("conf/app.yaml", f"tls:\n  key: |\n    {OPENSSH}", "a private key"),
        ("k.pem", "-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\n", "a private key"),
        ("k.pem", "-----BEGIN PRIVATE KEY-----\nMII\n", "a private key"),
        ("k.asc", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n", "a private key"),
        ("k.ppk", "PuTTY-User-Key-File-3: ssh-ed25519\n", "a private key"),
        ("notes.txt", f"my key is {SECRET}!", "the value of a secret"),
        ("data.bin", b"\0\xff" * 1_000_000 + SECRET.encode(), "the value of a secret"),
    ],
)
def test_a_file_with_a_key_or_secret_is_refused_by_name(
    tmp_path: Path, name: str, content: str | bytes, why: str
) -> None:
    with pytest.raises(ActionError) as raised:
        upload(tmp_path, {"a.txt": "x", name: content})
    assert raised.value.code is Code.WORKSPACE_REFUSED
    assert f"{name!r} ({why})" in raised.value.message
    assert SECRET not in str(raised.value)
    assert "exclude them by name" in raised.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["user"]
    assert upload(tmp_path, {}, name) == ["a.txt"]


@pytest.mark.parametrize(
    "content", ['if "-----BEGIN PRIVATE KEY-----" in text:\n', "-----BEGIN PUBLIC KEY-----\nMII\n", "short"]
)
def test_a_file_that_only_mentions_keys_is_uploaded(tmp_path: Path, content: str) -> None:
    assert upload(tmp_path, {"find_keys.py": content}) == ["find_keys.py"]


def test_a_key_for_tests_is_uploaded_if_named_by_its_path(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"tests/server.key": OPENSSH, "other.key": OPENSSH}
    with pytest.raises(ActionError, match=r"'other\.key'") as raised:
        upload(tmp_path, files, "!tests/server.key")
    assert "server.key'" not in raised.value.message
    assert upload(tmp_path, {}, "other.key", "!/tests/server.key") == ["tests/server.key"]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (".env", "!.env"),
        ("a/.env.local", "!.env*"),
        (".env.prod", "!.env.prod"),
        ("id_rsa", "!id_*"),
        (".control-secrets", "!*"),
    ],
)
def test_no_pattern_lets_in_a_private_name(tmp_path: Path, name: str, pattern: str) -> None:
    assert upload(tmp_path, {name: "x", "a.txt": "x", ".git/config": "x"}) == ["a.txt"]
    with pytest.raises(ActionError, match=f"'{name}'") as raised:
        upload(tmp_path, {}, pattern)
    assert raised.value.code is Code.WORKSPACE_REFUSED


def test_an_example_env_file_can_be_let_in_and_a_repository_cannot(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {".env.example": "KEY=", ".git/config": "x", "a": "x"}
    assert upload(tmp_path, files, "!.env.example", "!.git") == [".env.example", "a"]
