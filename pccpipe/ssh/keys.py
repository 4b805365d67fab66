"""Finds the keys to log in with."""

from __future__ import annotations

import base64
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from msgspec import Struct

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.paste import operands

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
PUBLIC_LIMIT = 64 * 1024
"""Bytes read of a file to find a public key."""
_KINDS: dict[type, type[paramiko.PKey]] = {
    RSAPrivateKey: paramiko.RSAKey,
    Ed25519PrivateKey: paramiko.Ed25519Key,
    EllipticCurvePrivateKey: paramiko.ECDSAKey,
}


class Identity(Struct, frozen=True):
    """A private key, or an agent that has it, with its name for people."""

    key: paramiko.PKey
    name: str


def identities(key_path: Path | None) -> Iterator[Identity]:
    """Return the keys in the order to try them.

    With a path these are only the key there, its certificate first. Without one, the agent's keys and then the user's
    default keys. Raises `Unavailable` if the key at `key_path` cannot be read or is encrypted and in no agent.
    """
    if key_path is not None:
        yield from _keys_at(key_path.expanduser())
        return
    for key in _agent_keys():
        yield Identity(key, f"the agent's {key.get_name()} {key.comment}".rstrip())
    for path in _default_keys():
        # An encrypted or broken default key is skipped.
        with contextlib.suppress(OSError, ValueError, TypeError, paramiko.SSHException):
            yield Identity(_load(path), str(path))


def locked_keys(key_path: Path | None) -> list[Path]:
    """Return the default keys that `identities` skips because they are encrypted and in no agent."""
    if key_path is not None:
        return []
    locked = []
    for path in _default_keys():
        try:
            _load(path)
        except (TypeError, paramiko.PasswordRequiredException):
            if _agent_key_for(path) is None:
                locked.append(path)
        except (OSError, ValueError, paramiko.SSHException):
            continue
    return locked


def add_to_agent(*paths: Path) -> str:
    """Return the command that adds keys to an agent; it asks for their passphrase, once."""
    # Apple's ssh-add keeps the passphrase, and each session there has an agent.
    keychain = "--apple-use-keychain " if os.uname().sysname == "Darwin" else ""
    add = f"ssh-add {keychain}{operands(*map(str, paths))}"
    return add if os.environ.get("SSH_AUTH_SOCK") else f'eval "$(ssh-agent)" && {add}'


def _default_keys() -> list[Path]:
    return [Path("~/.ssh").expanduser() / name for name in DEFAULT_KEYS]


def _keys_at(path: Path) -> Iterator[Identity]:
    identity = _key_at(path)
    key = identity.key
    # paramiko loads the certificate beside a key. A server that refuses it may know the key itself.
    if key.public_blob is not None:
        yield Identity(key, f"{path} with {path.name}-cert.pub")
        key.public_blob = None
    yield identity


def _key_at(path: Path) -> Identity:
    try:
        if (public := _public_key(path)) and (of_agent := _named_by(public, path)):
            return of_agent
        return Identity(_load(path), str(path))
    except OSError as error:
        words = f"cannot read the key {path}: {error.strerror}"
        raise Unavailable(Reason.SSH_AUTH_FAILED, words, "vm.key_path in the project file names it") from error
    except (TypeError, paramiko.PasswordRequiredException) as error:
        if key := _agent_key_for(path):
            return Identity(key, f"{path} (from the agent)")
        words = f"the key {path} is encrypted, and {_no_agent()}"
        raise Unavailable(Reason.SSH_AUTH_FAILED, words, add_to_agent(path)) from error
    except (ValueError, paramiko.SSHException) as error:
        words = f"{path} has no usable private key (ed25519, ecdsa or rsa)"
        raise Unavailable(Reason.SSH_AUTH_FAILED, words) from error


def _load(path: Path) -> paramiko.PKey:
    """Read a private key. Raises OSError, ValueError, SSHException; TypeError if it is encrypted."""
    try:
        return paramiko.PKey.from_path(path)
    except paramiko.PasswordRequiredException:
        raise
    except (ValueError, paramiko.SSHException):
        return _load_pkcs8(path)
    except (paramiko.pkey.UnknownKeyType, UnsupportedAlgorithm) as error:
        raise ValueError("a key of another kind") from error


def _load_pkcs8(path: Path) -> paramiko.PKey:
    """Read a `BEGIN PRIVATE KEY`, which openssl, Terraform and many clouds write and paramiko does not read."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        kind = next(kind for types, kind in _KINDS.items() if isinstance(key, types))
        openssh = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    except (StopIteration, UnsupportedAlgorithm) as error:
        raise ValueError("a key of another kind") from error
    loaded = kind.from_private_key(io.StringIO(openssh.decode()))
    certificate = path.with_name(f"{path.name}-cert.pub")
    if certificate.exists():
        loaded.load_certificate(str(certificate))
    return loaded


def _public_key(path: Path) -> bytes:
    """Read a file that is a public key or a certificate; empty for any other."""
    with path.open("rb") as file:
        words = file.read(PUBLIC_LIMIT).split(None, 2)
    if len(words) < 2 or not words[0].startswith((b"ssh-", b"ecdsa-", b"sk-")):
        return b""
    try:
        return base64.b64decode(words[1], validate=True)
    except ValueError:
        return b""


def _named_by(public: bytes, path: Path) -> Identity | None:
    """Find the agent's key of this public part, as `ssh -i KEY.pub` does.

    Returns None for a certificate beside its private key. Raises `Unavailable`.
    """
    key = next((key for key in _agent_keys() if key.blob == public), None)
    if key:
        return Identity(key, f"{path} (from the agent)")
    private = path.with_name(path.name.removesuffix(".pub").removesuffix("-cert"))
    if path.name.endswith("-cert.pub") and private.exists():
        return None
    words = f"{path} is a public key, and {_no_agent()}"
    hint = f"vm.key_path in the project file: {private}" if private.exists() else "ssh-add, with the private key"
    raise Unavailable(Reason.SSH_AUTH_FAILED, words, hint)


def _no_agent() -> str:
    return "no SSH agent here has it" if os.environ.get("SSH_AUTH_SOCK") else "there is no SSH agent here"


def _agent_key_for(path: Path) -> paramiko.AgentKey | None:
    """Find the agent's copy of an encrypted key by its public part."""
    public = _public_part(path)
    return next((key for key in _agent_keys() if key.blob == public), None)


def _public_part(path: Path) -> bytes:
    """Read an encrypted key's public part: from OpenSSH's own file, else from the .pub file beside it."""
    beside = path.with_name(path.name + ".pub")
    with contextlib.suppress(OSError, ValueError, LookupError):
        lines = path.read_text(errors="replace").splitlines()
        if lines and lines[0].strip() == "-----BEGIN OPENSSH PRIVATE KEY-----":
            body = base64.b64decode("".join(lines[1 : lines.index("-----END OPENSSH PRIVATE KEY-----")]))
            message = paramiko.Message(body[len(b"openssh-key-v1\0") :])
            for _ in ("cipher", "kdf", "its options"):
                message.get_binary()
            message.get_int()  # the number of keys: one
            return message.get_binary()
        return base64.b64decode(beside.read_text(errors="replace").split()[1])
    return b""


def _agent_keys() -> tuple[paramiko.AgentKey, ...]:
    try:
        return paramiko.Agent().get_keys()
    except (paramiko.SSHException, OSError):
        return ()
