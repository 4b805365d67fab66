"""Checks a server's host key against the known_hosts files, as OpenSSH does.

paramiko's own reader keeps no line numbers and ignores `@revoked` lines.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
import shlex
from pathlib import Path

from msgspec import Struct

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.paste import operands

SYSTEM_FILE = Path("/etc/ssh/ssh_known_hosts")


class HostKey(Struct, frozen=True):
    """A host's public key: its type (`ssh-ed25519`, ...) and its blob."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"{self.type} SHA256:{digest}"


class _Entry(Struct, frozen=True):
    name: str
    """The host's name on the line, as ssh-keygen's -R and -F take it."""
    file: Path
    line: int
    revoked: bool
    key: HostKey


class KnownHosts:
    """The known keys of one server.

    Args:
        path: the known_hosts file; None for the user's own and the system's.
        jump: the jump hosts on the way to it, as ssh's -J takes them; empty for none.
    """

    def __init__(self, path: Path | None, host: str, port: int, jump: str = "") -> None:
        self._host = host
        self._port = port
        self._jump = jump
        self._file = path or Path("~/.ssh/known_hosts").expanduser()
        files = [self._file] if path else [self._file, SYSTEM_FILE]
        self._entries = [
            entry for name in self._names() for file in files for entry in _entries_of(file.expanduser(), name)
        ]

    @property
    def key_types(self) -> list[str]:
        """The types of its known keys: those to ask it for."""
        return list(dict.fromkeys(entry.key.type for entry in self._known()))

    def check(self, key: HostKey, *, accept_new: bool) -> None:
        """Raise `Unavailable` unless the key is known. With `accept_new`, add the key of an unknown server."""
        if any(entry.revoked and entry.key == key for entry in self._entries):
            words = f"the host key of {self._names()[0]} is revoked: {key.fingerprint}"
            raise Unavailable(Reason.SSH_HOST_KEY_CHANGED, words)
        known = self._known()
        if any(entry.key == key for entry in known):
            return
        if known:
            raise self._changed(key, known)
        if not accept_new:
            raise self._unknown(key)
        self._add(key)

    def _known(self) -> list[_Entry]:
        """Return the entries that count: those with the port, or else those of the plain name."""
        for name in self._names():
            if known := [entry for entry in self._entries if entry.name == name and not entry.revoked]:
                return known
        return []

    def _names(self) -> list[str]:
        host = self._host.lower()
        # OpenSSH also uses the plain name when it knows none with the port.
        return [host] if self._port == 22 else [f"[{host}]:{self._port}", host]

    def _changed(self, key: HostKey, known: list[_Entry]) -> Unavailable:
        places = "; ".join(f"{entry.file}:{entry.line} has {entry.key.fingerprint}" for entry in known)
        name = self._names()[0]
        forget = "; ".join(
            f"ssh-keygen -R {shlex.quote(host)} -f {shlex.quote(str(file))}"
            for file, host in dict.fromkeys((entry.file, entry.name) for entry in known)
        )
        words = f"the host key of {name} has changed: it sent {key.fingerprint}, but {places}"
        hint = (
            "If you rebuilt the VM, compare that fingerprint with the VM's own (on its console: "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then forget the old key: "
            f"{forget}; {self._scan()}. If you did not, an attacker may be listening in."
        )
        return Unavailable(Reason.SSH_HOST_KEY_CHANGED, words, hint)

    def _unknown(self, key: HostKey) -> Unavailable:
        words = f"the host key of {self._names()[0]} is not in {self._file}: it sent {key.fingerprint}"
        hint = f"Compare that fingerprint with the VM's own, then: {self._scan()}"
        return Unavailable(Reason.SSH_HOST_KEY_UNKNOWN, words, hint)

    def _scan(self) -> str:
        port = "" if self._port == 22 else f"-p {self._port} "
        file = shlex.quote(str(self._file))
        if self._jump:
            # ssh-keyscan cannot use a jump host.
            return f"ssh -J {shlex.quote(self._jump)} -o UserKnownHostsFile={file} {port}{operands(self._host)} true"
        return f"ssh-keyscan {port}{operands(self._host)} >>{file}"

    def _add(self, key: HostKey) -> None:
        line = f"{self._names()[0]} {key.type} {base64.b64encode(key.blob).decode()}\n"
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._file.open("a+b") as file:
                if file.tell() and not _ends_with_newline(self._file):
                    line = "\n" + line
                file.write(line.encode())
        except OSError as error:
            words = f"cannot add the host key of {self._names()[0]} to {self._file}: {error.strerror}"
            raise Unavailable(Reason.SSH_HOST_KEY_UNKNOWN, words) from error


def _ends_with_newline(file: Path) -> bool:
    return file.read_bytes().endswith(b"\n")


def _entries_of(file: Path, name: str) -> list[_Entry]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable(Reason.SSH_HOST_KEY_UNKNOWN, f"cannot read {file}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        # A certificate authority's line does not name a plain key.
        if len(fields) < 3 or fields[0].startswith("#") or marker == "@cert-authority" or not _matches(fields[0], name):
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except ValueError:  # binascii.Error, or a character that is not ASCII
            continue
        found.append(_Entry(name, file, number, marker == "@revoked", HostKey(fields[1], blob)))
    return found


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _matches_hash(patterns, name)
    matched = False
    for pattern in patterns.lower().split(","):
        # For fnmatch [...] is a class of characters; in known_hosts it encloses a name with a port.
        if fnmatch.fnmatchcase(name, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _matches_hash(pattern: str, name: str) -> bool:
    try:
        salt, expected = (base64.b64decode(part, validate=True) for part in pattern.split("|")[2:4])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), expected)
