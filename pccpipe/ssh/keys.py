"""The keys to log in with."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import paramiko
from msgspec import Struct

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.paste import operands

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


class Identity(Struct, frozen=True):
    """A private key, or an agent that has it; and how to name it to a person."""

    key: paramiko.PKey
    name: str


def identities(key_path: Path | None) -> Iterator[Identity]:
    """With a path, the key there (with its certificate first, if it has one) and nothing else; else the agent's keys
    and the user's default ones.

    Raises `Unavailable` if the key at `key_path` cannot be read or is encrypted and in no agent.
    """
    if key_path is not None:
        yield from _keys_at(key_path.expanduser())
        return
    for key in _agent_keys():
        yield Identity(key, f"the agent's {key.get_name()} {key.comment}".rstrip())
    for path in _default_keys():
        # Default keys are only tried: one that is encrypted or broken is no reason to stop.
        with contextlib.suppress(OSError, ValueError, TypeError, paramiko.SSHException):
            yield Identity(paramiko.PKey.from_path(path), str(path))


def locked_keys(key_path: Path | None) -> list[Path]:
    """The default keys that were passed over because they are encrypted and in no agent."""
    if key_path is not None:
        return []
    locked = []
    for path in _default_keys():
        try:
            paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            if _agents_copy(path) is None:
                locked.append(path)
        except (OSError, ValueError, paramiko.SSHException):
            continue
    return locked


def add_to_agent(*paths: Path) -> str:
    """The command that gives keys to an agent; it asks for their passphrase, once."""
    add = f"ssh-add {operands(*map(str, paths))}"
    return add if os.environ.get("SSH_AUTH_SOCK") else f'eval "$(ssh-agent)" && {add}'


def _default_keys() -> list[Path]:
    return [Path("~/.ssh").expanduser() / name for name in DEFAULT_KEYS]


def _keys_at(path: Path) -> Iterator[Identity]:
    identity = _key_at(path)
    key = identity.key
    # paramiko has taken up the certificate that lies beside a key; a server that refuses it may know the key itself.
    if key.public_blob is not None:
        yield Identity(key, f"{path} with {path.name}-cert.pub")
        key.public_blob = None
    yield identity


def _key_at(path: Path) -> Identity:
    try:
        return Identity(paramiko.PKey.from_path(path), str(path))
    except OSError as error:
        words = f"cannot read the key {path}: {error.strerror}"
        raise Unavailable(Reason.SSH_AUTH_FAILED, words, "vm.key_path in the project file names it") from error
    except (TypeError, paramiko.PasswordRequiredException) as error:
        if key := _agents_copy(path):
            return Identity(key, f"{path} (from the agent)")
        agent = "no SSH agent here has it" if os.environ.get("SSH_AUTH_SOCK") else "there is no SSH agent here"
        words = f"the key {path} is encrypted, and {agent}"
        raise Unavailable(Reason.SSH_AUTH_FAILED, words, add_to_agent(path)) from error
    except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        words = f"{path} holds no private key that can be used (ed25519, ecdsa or rsa, as ssh-keygen writes it)"
        raise Unavailable(Reason.SSH_AUTH_FAILED, words) from error


def _agents_copy(path: Path) -> paramiko.AgentKey | None:
    """The agent's copy of an encrypted key, found by its public part."""
    public = _public_part(path)
    return next((key for key in _agent_keys() if key.asbytes() == public), None)


def _public_part(path: Path) -> bytes:
    """An encrypted key's public part: that is written in clear in OpenSSH's files, and beside files of other kinds."""
    beside = path.with_name(path.name + ".pub")
    with contextlib.suppress(OSError, ValueError, LookupError):
        lines = path.read_text(errors="replace").splitlines()
        if lines and lines[0].strip() == "-----BEGIN OPENSSH PRIVATE KEY-----":
            body = base64.b64decode("".join(lines[1 : lines.index("-----END OPENSSH PRIVATE KEY-----")]))
            message = paramiko.Message(body[len(b"openssh-key-v1\0") :])
            for _ in ("cipher", "kdf", "its options"):
                message.get_binary()
            message.get_int()  # how many keys: one
            return message.get_binary()
        return base64.b64decode(beside.read_text(errors="replace").split()[1])
    return b""


def _agent_keys() -> tuple[paramiko.AgentKey, ...]:
    try:
        return paramiko.Agent().get_keys()
    except (paramiko.SSHException, OSError):
        return ()
