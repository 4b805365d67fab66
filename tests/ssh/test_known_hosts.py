from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.ssh.known_hosts import HostKey, KnownHosts


def make_key(tmp_path: Path, name: str, kind: str = "ed25519") -> HostKey:
    path = tmp_path / name
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    type_, blob = path.with_suffix(".pub").read_text().split()[:2]
    return HostKey(type_, base64.b64decode(blob))


@pytest.fixture
def key(tmp_path: Path) -> HostKey:
    return make_key(tmp_path, "key")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def line(names: str, key: HostKey) -> str:
    return f"{names} {key.type} {base64.b64encode(key.blob).decode()}\n"


def reason(file: Path, key: HostKey, host: str = "host.example", port: int = 22) -> Reason | None:
    """Return why the host is not known by this key; None if it is."""
    try:
        KnownHosts(file, host, port).check(key, accept_new=False)
    except Unavailable as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    "names",
    ["host.example", "other,host.example", "*.example", "h?st.example", "HOST.example", "!not.example,*.example"],
)
def test_a_host_is_known_by_name_and_pattern(file: Path, key: HostKey, names: str) -> None:
    file.write_text(f"# a comment\n\nbroken line\n{line(names, key)}")
    assert reason(file, key) is None


@pytest.mark.parametrize("names", ["other.example", "!host.example,*.example", "[host.example]:2222", "@host.example"])
def test_a_host_is_not_known_by_another_hosts_line(file: Path, key: HostKey, names: str) -> None:
    file.write_text(line(names, key))
    assert reason(file, key) is Reason.SSH_HOST_KEY_UNKNOWN


def test_an_unusual_port_is_part_of_the_name(file: Path, key: HostKey) -> None:
    file.write_text(line("[host.example]:2222", key))
    assert reason(file, key, port=2222) is None
    assert reason(file, key, port=2223) is Reason.SSH_HOST_KEY_UNKNOWN


def test_hashed_names_are_read(file: Path, key: HostKey) -> None:
    file.write_text(line("host.example", key) + line("[host.example]:2222", key))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "host.example" not in file.read_text()
    assert reason(file, key) is None
    assert reason(file, key, port=2222) is None
    assert reason(file, key, host="other.example") is Reason.SSH_HOST_KEY_UNKNOWN


def test_a_changed_key_is_reported_with_both_fingerprints_the_line_and_the_command(
    file: Path, key: HostKey, tmp_path: Path
) -> None:
    old = make_key(tmp_path, "old")
    file.write_text("# first\n" + line("host.example", old))
    with pytest.raises(Unavailable) as caught:
        KnownHosts(file, "host.example", 22).check(key, accept_new=True)
    assert caught.value.reason is Reason.SSH_HOST_KEY_CHANGED
    for each in (key.fingerprint, old.fingerprint, f"{file}:2"):
        assert each in caught.value.words
    assert f"ssh-keygen -R host.example -f {file}" in caught.value.hint
    shown = subprocess.check_output(["ssh-keygen", "-lf", str(tmp_path / "key.pub")], text=True)
    assert key.fingerprint.split()[1] in shown


def test_a_key_of_the_plain_name_is_removed_by_that_name(file: Path, key: HostKey, tmp_path: Path) -> None:
    old = make_key(tmp_path, "old")
    file.write_text(line("host.example", old))
    with pytest.raises(Unavailable) as caught:
        KnownHosts(file, "host.example", 2222).check(key, accept_new=True)
    assert f"ssh-keygen -R host.example -f {file}" in caught.value.hint
    # If there is one with the port, only that counts, as for OpenSSH.
    file.write_text(line("host.example", key) + line("[host.example]:2222", old))
    with pytest.raises(Unavailable) as caught:
        KnownHosts(file, "host.example", 2222).check(key, accept_new=True)
    assert f"ssh-keygen -R '[host.example]:2222' -f {file}" in caught.value.hint
    assert reason(file, old, port=2222) is None


def test_a_host_behind_jump_hosts_is_scanned_through_them(file: Path, key: HostKey) -> None:
    with pytest.raises(Unavailable) as caught:
        KnownHosts(file, "inner.example", 2222, jump="ops@a:23,b").check(key, accept_new=False)
    assert caught.value.hint.endswith(f"ssh -J ops@a:23,b -o UserKnownHostsFile={file} -p 2222 inner.example true")


def test_an_unknown_host_is_reported_with_its_fingerprint_and_the_command(file: Path, key: HostKey) -> None:
    with pytest.raises(Unavailable) as caught:
        KnownHosts(file, "host.example", 2222).check(key, accept_new=False)
    assert caught.value.reason is Reason.SSH_HOST_KEY_UNKNOWN
    assert key.fingerprint in caught.value.words
    assert f"ssh-keyscan -p 2222 host.example >>{file}" in caught.value.hint
    assert not file.exists()


def test_a_new_host_is_added_only_on_request(file: Path, key: HostKey, tmp_path: Path) -> None:
    file.write_text(line("other.example", key).rstrip("\n"))
    KnownHosts(file, "host.example", 2222).check(key, accept_new=True)
    assert reason(file, key, port=2222) is None
    assert len(file.read_text().splitlines()) == 2
    KnownHosts(tmp_path / "new" / "known_hosts", "host.example", 22).check(key, accept_new=True)
    assert reason(tmp_path / "new" / "known_hosts", key) is None


def test_a_key_of_another_type_of_a_known_host_counts_as_changed(file: Path, key: HostKey, tmp_path: Path) -> None:
    file.write_text(line("host.example", make_key(tmp_path, "ecdsa", "ecdsa")))
    known = KnownHosts(file, "host.example", 22)
    assert known.key_types == ["ecdsa-sha2-nistp256"]
    assert reason(file, key) is Reason.SSH_HOST_KEY_CHANGED


def test_a_revoked_key_is_refused_and_a_certificate_authority_is_ignored(file: Path, key: HostKey) -> None:
    file.write_text(line("host.example", key) + "@revoked " + line("*", key))
    assert reason(file, key) is Reason.SSH_HOST_KEY_CHANGED
    file.write_text("@cert-authority " + line("*", key))
    assert reason(file, key) is Reason.SSH_HOST_KEY_UNKNOWN


def test_an_unreadable_file_is_named(tmp_path: Path, key: HostKey) -> None:
    with pytest.raises(Unavailable, match="cannot read"):
        KnownHosts(tmp_path, "host.example", 22)
