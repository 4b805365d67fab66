"""Secrets come from their sources, and no error contains a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.errors import UsageError
from pccpipe.secrets.sources import read_secrets
from pccpipe.spec.position import Position
from pccpipe.spec.secret import Secret, SecretSource

AT = Position("p.yaml", 1, 1)


def read(source: SecretSource, name: str, **environ: str) -> str:
    return read_secrets({"KEY": Secret("KEY", source, name, AT)}, ["KEY"], environ)["KEY"]


def test_a_secret_comes_from_the_environment_a_file_or_a_command(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    assert read(SecretSource.ENV, "MY_KEY", MY_KEY="from env") == "from env"
    assert read(SecretSource.FILE, str(tmp_path / "key")) == "from a file"
    assert read(SecretSource.COMMAND, "echo from a command") == "from a command"


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        (SecretSource.ENV, "MY_KEY", "export MY_KEY="),
        (SecretSource.FILE, "/no/such/file", "/no/such/file is unreadable"),
        (SecretSource.COMMAND, "echo hidden-value >&2; exit 3", "exited with 3"),
        (SecretSource.COMMAND, "true", "is empty"),
    ],
)
def test_a_secret_without_a_value_is_named_with_its_source(source: SecretSource, name: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(source, name)
    assert "secret KEY has no value" in str(raised.value)
    assert says in str(raised.value)


def test_all_missing_secrets_are_named_at_once_and_unused_ones_are_not() -> None:
    declared = {name: Secret(name, SecretSource.ENV, name, AT) for name in ("A", "B", "C")}
    with pytest.raises(UsageError) as raised:
        read_secrets(declared, ["A", "B"], {})
    assert "A" in str(raised.value)
    assert "B" in str(raised.value)
    assert "secret C" not in str(raised.value)
