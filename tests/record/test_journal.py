from __future__ import annotations

import json
import shlex
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from pccpipe.errors import RecordFull, UsageError
from pccpipe.layout import EVENTS
from pccpipe.outcome import Outcome, Place, Stream
from pccpipe.record.codec import encode
from pccpipe.record.events import ActionDone, CommandEnded, Event, Happening, Output, StepEnded, StepStarted, Warned
from pccpipe.record.journal import Journal, check_run_id, read_events
from pccpipe.record.room import Room
from pccpipe.secrets.mask import Masker
from tests.disk import SmallDisk


def test_events_are_numbered_and_on_disk_before_append_returns(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "runs" / "r1")
    for number in range(1, 4):
        event = journal.append(Warned(f"w{number}"))
        assert event.seq == number
        assert list(read_events(tmp_path / "runs" / "r1"))[-1].what == Warned(f"w{number}")
    journal.close()


def test_output_reaches_listeners_and_not_the_journal(tmp_path: Path) -> None:
    seen: list[Event] = []
    journal = Journal.create(tmp_path / "r", [seen.append])
    assert journal.append(Output("a", Stream.STDOUT, "x")).seq == 0
    assert journal.append(Warned("w")).seq == 1
    assert [event.seq for event in seen] == [0, 1]
    assert len(list(read_events(tmp_path / "r"))) == 1


def test_only_the_owner_may_read_the_folder(tmp_path: Path) -> None:
    Journal.create(tmp_path / "r").close()
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "r" / EVENTS).stat().st_mode & 0o777 == 0o600


def test_a_taken_run_id_is_refused_and_its_run_stays_as_it_is(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "r")
    journal.append(Warned("mine"))
    with pytest.raises(UsageError, match="run r exists already"):
        Journal.create(tmp_path / "r")
    assert [event.what for event in read_events(tmp_path / "r")] == [Warned("mine")]


@pytest.mark.parametrize("run_id", ["", "a/b", "../x", ".hidden", "-x", "a b", "ä", "x" * 65, "a\n", "."])
def test_a_run_id_that_cannot_name_a_folder_is_refused(run_id: str) -> None:
    with pytest.raises(UsageError, match="invalid run id"):
        check_run_id(run_id)


@pytest.mark.parametrize("run_id", ["a", "2026-11-23_x.1", "x" * 64, "A-b"])
def test_plain_run_ids_are_taken(run_id: str) -> None:
    check_run_id(run_id)


def test_a_file_in_place_of_the_runs_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UsageError, match="cannot make the run's folder"):
        Journal.create(tmp_path / "runs" / "r")


def test_a_torn_last_line_is_ignored_and_not_continued(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "r")
    journal.append(Warned("one"))
    journal.append(Warned("two"))
    journal.close()
    path = tmp_path / "r" / EVENTS
    path.write_bytes(path.read_bytes()[:-9])
    assert [event.what for event in read_events(tmp_path / "r")] == [Warned("one")]
    again = Journal(tmp_path / "r")
    assert again.append(Warned("three")).seq == 2
    again.close()
    assert [(event.seq, event.what) for event in read_events(tmp_path / "r")] == [
        (1, Warned("one")),
        (2, Warned("three")),
    ]


def test_a_failing_listener_is_reported_once_and_breaks_nothing(tmp_path: Path) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("no")

    journal = Journal.create(tmp_path / "r", [broken, seen.append])
    journal.append(StepEnded("a", Outcome.SUCCEEDED, 1.0))
    journal.append(StepEnded("b", Outcome.SUCCEEDED, 1.0))
    warnings = [event.what.message for event in read_events(tmp_path / "r") if isinstance(event.what, Warned)]
    assert len(warnings) == 1
    assert "ValueError: no" in warnings[0]
    assert {event.seq for event in seen} == {1, 2, 3}


def test_events_from_many_threads_are_numbered_without_gaps_and_delivered_in_order(tmp_path: Path) -> None:
    seen: list[int] = []
    journal = Journal.create(tmp_path / "r", [lambda event: seen.append(event.seq)])

    def many() -> None:
        for _ in range(25):
            journal.append(Warned("w"))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert seen == list(range(1, 101))
    assert [event.seq for event in read_events(tmp_path / "r")] == seen


def test_a_full_disk_is_reported_and_leaves_no_torn_line(small_disk: SmallDisk) -> None:
    run_dir = small_disk.folder / "r"
    journal = Journal.create(run_dir)
    journal.append(Warned("first"))
    small_disk.fill()
    with pytest.raises(RecordFull, match=r"no space left on the disk of .*/r, .*; free some space, then: .* resume r"):
        journal.append(Warned("x" * 100_000))
    small_disk.unfill()
    assert (run_dir / EVENTS).read_bytes().count(b"\n") == 1
    assert (run_dir / EVENTS).read_bytes().endswith(b"\n")
    with pytest.raises(RecordFull):
        journal.append(Warned("too late: what came before it is not in the record"))
    journal.close()
    again = Journal(run_dir)
    again.append(Warned("second"))
    again.close()
    assert [(event.seq, event.what) for event in read_events(run_dir)] == [(1, Warned("first")), (2, Warned("second"))]


def test_an_event_waits_for_space_and_the_wait_is_an_event_too(small_disk: SmallDisk) -> None:
    seen: list[Event] = []
    room = Room(small_disk.folder, wait=20)
    journal = Journal(small_disk.folder, [seen.append], room=room)
    room.on_wait = lambda words: journal.notify(Warned(words))
    small_disk.fill()
    threading.Timer(1, small_disk.unfill).start()
    journal.append(Warned("x" * 10_000))
    journal.close()
    assert [event.seq for event in seen] == [0, 1, 2]
    assert "waits up to 20 s for space" in str(seen[0].what)
    assert "was full: the run waited" in str(seen[2].what)
    assert [event.what for event in read_events(small_disk.folder)] == [event.what for event in seen[1:]]


def test_a_secret_is_masked_before_anyone_sees_the_event(tmp_path: Path) -> None:
    seen: list[Event] = []
    journal = Journal.create(tmp_path / "r", [seen.append], lambda text: text.replace("hunter2", "***"))
    assert journal.append(Warned("it is hunter2")).what == Warned("it is ***")
    assert seen[0].what == Warned("it is ***")
    assert b"hunter2" not in (tmp_path / "r" / EVENTS).read_bytes()


def test_a_secret_that_equals_a_word_of_the_record_spoils_no_event(tmp_path: Path) -> None:
    masker = Masker(["1", "local", "run", '"a', "seq"])
    journal = Journal.create(tmp_path / "r", mask=masker.text)
    seen: list[Happening] = [
        StepStarted("a", "run", Place.LOCAL),
        ActionDone("a", "download", {"local": ["run 1"], "n": 1}),
        StepEnded("a", Outcome.SUCCEEDED, 1.0),
    ]
    for what in seen:
        journal.append(what)
    assert [event.what for event in read_events(tmp_path / "r")] == [
        StepStarted("a", "***", Place.LOCAL),
        ActionDone("a", "download", {"***": ["*** ***"], "n": 1}),
        seen[2],
    ]


@given(st.sampled_from(["pass'word\"x\\y", "two\nlines of it\n", "sk-/+=%"]), st.text(max_size=5))
def test_a_secret_is_masked_in_any_quoting_inside_of_an_event(secret: str, around: str) -> None:
    masker = Masker([secret])
    for said in (secret, shlex.quote(secret), json.dumps(secret), quote(secret, safe="")):
        line = encode(Event(1, 0.0, Warned(f"{around}{said}{around}")), masker.text).decode()
        assert said not in json.loads(line)["message"]
        assert "***" in line


def test_a_missing_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run 'nope'"):
        list(read_events(tmp_path / "nope"))


def test_the_source_of_an_event_is_discarded_only_once_the_event_would_survive_a_power_cut(
    tmp_path: Path, mocker: MockerFixture
) -> None:
    done: list[str] = []
    mocker.patch("pccpipe.record.journal.os.fdatasync", side_effect=lambda fd: done.append("synced"))
    journal = Journal.create(tmp_path / "r")
    journal.append(CommandEnded("a", 1, Outcome.SUCCEEDED, 0), when_synced=lambda: done.append("thrown away"))
    assert done == []
    journal.append(StepEnded("a", Outcome.SUCCEEDED, 1.0))
    assert done == ["synced", "thrown away"]
    journal.append(StepEnded("b", Outcome.SUCCEEDED, 1.0))
    assert done == ["synced", "thrown away", "synced"]
