"""The holder of a run's lock: on a machine whose name changes, and on disks without locks."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from pccpipe.errors import UsageError
from pccpipe.layout import LOCK
from pccpipe.record.lock import RunLock, is_abandoned, last_holder
from pccpipe.record.machine_id import machine_id

ID = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, mocker: MockerFixture) -> Iterator[None]:
    """A machine with an id."""
    file = tmp_path / "machine-id"
    file.write_text(f"{ID}\n")
    mocker.patch("pccpipe.record.machine_id._FILES", (str(tmp_path / "none"), str(file)))
    machine_id.cache_clear()
    yield
    machine_id.cache_clear()


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The folder of a run whose process is gone."""
    with RunLock(tmp_path):
        assert not is_abandoned(tmp_path)
        assert last_holder(tmp_path) is None
    return tmp_path


@pytest.fixture
def other_name(mocker: MockerFixture) -> None:
    mocker.patch("socket.gethostname", return_value="mac-2.local")


def test_a_machine_with_another_name_is_the_same_one(left: Path, other_name: None) -> None:
    assert machine_id()
    assert is_abandoned(left)


def test_another_machine_of_the_same_name_is_another_one(left: Path, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.record.lock.machine_id", return_value="f" * 32)
    assert not is_abandoned(left)


@pytest.mark.parametrize("host", ["here", "another"])
def test_a_lock_of_an_earlier_version_is_compared_by_name(tmp_path: Path, host: str) -> None:
    name = socket.gethostname() if host == "here" else host
    (tmp_path / LOCK).write_text(json.dumps({"host": name, "pid": 1}))
    assert is_abandoned(tmp_path) is (host == "here")


def test_where_a_machine_has_no_id_its_name_counts(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.record.lock.machine_id", return_value="")
    with RunLock(tmp_path):
        pass
    assert is_abandoned(tmp_path)
    mocker.patch("socket.gethostname", return_value="mac-2.local")
    assert not is_abandoned(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 7}', "[" * 100_000, "\udcff"])
def test_half_a_lock_file_raises_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_bytes(os.fsencode(text))
    assert is_abandoned(tmp_path)


def test_the_lock_does_not_contain_the_id_itself(left: Path) -> None:
    assert machine_id()
    assert ID not in (left / LOCK).read_text()


@pytest.mark.parametrize("text", ["uninitialized", "", "0" * 32, "00000000-0000-0000-0000-000000000000"])
def test_the_text_of_a_fresh_image_is_not_an_id(tmp_path: Path, text: str) -> None:
    (tmp_path / "machine-id").write_text(text)
    assert machine_id() == ""


def test_a_disk_without_locks_is_refused_with_a_fix(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch("fcntl.flock", side_effect=OSError(errno.ENOTSUP, "Operation not supported"))
    with pytest.raises(UsageError, match="has no locks: Operation not supported") as caught:
        RunLock(tmp_path).take()
    assert "--runs-dir" in caught.value.hint
    assert not is_abandoned(tmp_path)
