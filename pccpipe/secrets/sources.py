"""Reads the values of secrets from environment variables, files and commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from pccpipe.errors import UsageError
from pccpipe.spec.secret import Secret, SecretSource

COMMAND_LIMIT = 30.0
"""Seconds that a secret's command may take."""


def read_secrets(
    declared: Mapping[str, Secret],
    names: Iterable[str],
    environ: Mapping[str, str] = os.environ,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the values of these secrets by name. Raises UsageError that names each one without a value."""
    values: dict[str, str] = {}
    wrong: list[str] = []
    for name in sorted(set(names)):
        try:
            values[name] = _value(declared[name], environ, given or {})
        except ValueError as error:
            wrong.append(f"secret {name} has no value: {error}")
    if wrong:
        raise UsageError("\n".join(wrong))
    return values


def _value(secret: Secret, environ: Mapping[str, str], given: Mapping[str, str]) -> str:
    if secret.name in given:
        return _usable(given[secret.name], "the value from the caller")
    match secret.source:
        case SecretSource.CALLER:
            raise ValueError("the policy leaves it to the caller, and `secrets=` of the library does not have it")
        case SecretSource.ENV:
            value = environ.get(secret.source_name, "")
            where = f"the environment variable {secret.source_name}"
            if not value:
                raise ValueError(f"{where} is not set, or empty (export {secret.source_name}=...)")
        case SecretSource.FILE:
            where = f"the file {secret.source_name}"
            value = _read(secret.source_name)
        case SecretSource.COMMAND:
            where = f"the command `{secret.source_name}`"
            value = _output(secret.source_name, environ)
    return _usable(value, where)


def _usable(value: str, where: str) -> str:
    if not value:
        raise ValueError(f"{where} is empty")
    if "\0" in value:
        raise ValueError(f"{where} contains a NUL character, which no environment variable can hold")
    return value


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8").removesuffix("\n")
    except OSError as error:
        raise ValueError(f"the file {name} is unreadable: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the file {name} is not UTF-8 text") from None


def _output(command: str, environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            ["sh", "-c", command],
            env=dict(environ),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"the command `{command}` did not end in {COMMAND_LIMIT:g} s") from None
    if done.returncode:
        # Its stderr is not shown: a secrets tool may print the secret there.
        raise ValueError(f"the command `{command}` exited with {done.returncode}")
    try:
        return done.stdout.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise ValueError(f"the output of the command `{command}` is not UTF-8 text") from None
