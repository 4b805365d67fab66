"""The keys to log in with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key, or an agent that has it; and how to name it to a person."""

    key: paramiko.PKey
    name: str


def identities(key_path: Path | None) -> Iterator[Identity]:
    """With a path, the key there and nothing else; else the agent's keys and the user's default ones.

    Raises `Unavailable` if the key at `key_path` cannot be read or is encrypted and in no agent.
    """
    if key_path is not None:
        yield _key_at(key_path.expanduser())
        return
    for key in _agent_keys():
        yield Identity(key, f"the agent's {key.get_name()} {key.comment}".rstrip())
    for name in DEFAULT_KEYS:
        path = Path("~/.ssh").expanduser() / name
        # Default keys are only tried: one that is encrypted or broken is no reason to stop.
        with contextlib.suppress(OSError, ValueError, TypeError, paramiko.SSHException):
            yield Identity(paramiko.PKey.from_path(path), str(path))


def _key_at(path: Path) -> Identity:
    try:
        return Identity(paramiko.PKey.from_path(path), str(path))
    except OSError as error:
        words = f"cannot read the key {path}: {error.strerror}"
        raise Unavailable(Reason.SSH_AUTH_FAILED, words, "vm.key_path in the project file names it") from error
    except (TypeError, paramiko.PasswordRequiredException) as error:
        return _encrypted_key(path, error)
    except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        words = f"{path} holds no private key that can be used (ed25519, ecdsa or rsa, as ssh-keygen writes it)"
        raise Unavailable(Reason.SSH_AUTH_FAILED, words) from error


def _encrypted_key(path: Path, error: Exception) -> Identity:
    """The agent's copy of an encrypted key, found by the public key beside it."""
    public = path.with_name(path.name + ".pub")
    fields = public.read_text(errors="replace").split() if public.is_file() else []
    for key in _agent_keys():
        if len(fields) > 1 and key.get_base64() == fields[1]:
            return Identity(key, f"{path} (from the agent)")
    words = f"the key {path} is encrypted, and no SSH agent here has it"
    raise Unavailable(Reason.SSH_AUTH_FAILED, words, f"ssh-add {path}") from error


def _agent_keys() -> tuple[paramiko.AgentKey, ...]:
    try:
        return paramiko.Agent().get_keys()
    except (paramiko.SSHException, OSError):
        return ()
