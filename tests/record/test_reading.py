"""A record as programs read it: events after a number, pieces of a log, both while the run goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import pccpipe
from pccpipe.record.codec import decode, encode


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    text = "version: 1\nname: x\nsteps:\n  - {id: a, on: local, run: 'printf 0123456789; printf err >&2'}\n"
    pccpipe.run(pccpipe.load(text), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)
    return tmp_path


def test_a_log_is_read_in_pieces(runs: Path) -> None:
    first = pccpipe.read_log("r1", "a", most=4, runs_dir=runs)
    assert (first.data, first.next_offset, first.is_complete) == (b"0123", 4, False)
    rest = pccpipe.read_log("r1", "a", offset=first.next_offset, runs_dir=runs)
    assert (rest.data, rest.next_offset, rest.is_complete) == (b"456789", 10, True)
    assert pccpipe.read_log("r1", "a", stream=pccpipe.Stream.STDERR, attempt=1, runs_dir=runs).data == b"err"


@pytest.mark.parametrize(
    ("run", "step", "attempt", "words"),
    [("no", "a", None, "no run 'no'"), ("r1", "b", None, "no step 'b'"), ("r1", "a", 2, "no attempt 2")],
)
def test_a_missing_run_step_or_attempt_is_named(
    runs: Path, run: str, step: str, attempt: int | None, words: str
) -> None:
    with pytest.raises(pccpipe.UsageError, match=words):
        pccpipe.read_log(run, step, attempt=attempt, runs_dir=runs)


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "logs/link"])
def test_a_record_that_was_tampered_with_shows_no_other_file(runs: Path, name: str) -> None:
    (runs / "secret.txt").write_text("secret")
    (runs / "r1" / "logs").mkdir(exist_ok=True)
    (runs / "r1" / "logs" / "link").symlink_to(runs / "secret.txt")
    journal = runs / "r1" / "events.jsonl"
    lines = []
    for line in journal.read_bytes().splitlines():
        event = decode(line)
        if isinstance(event.what, pccpipe.CommandStarted):
            lines.append(encode(event).replace(event.what.stdout.encode(), name.encode()))
        else:
            lines.append(line + b"\n")
    journal.write_bytes(b"".join(lines))
    with pytest.raises(pccpipe.UsageError, match="outside of its folder"):
        pccpipe.read_log("r1", "a", runs_dir=runs)


def test_events_are_read_again_after_a_number(runs: Path) -> None:
    events = list(pccpipe.read_events("r1", runs_dir=runs))
    assert [event.seq for event in pccpipe.read_events("r1", after=events[2].seq, runs_dir=runs)] == [
        event.seq for event in events[3:]
    ]


def test_a_run_is_followed_to_its_end(tmp_path: Path) -> None:
    text = "version: 1\nname: x\nsteps:\n  - {id: a, on: local, run: sleep 1}\n"
    begun = threading.Event()
    work = threading.Thread(
        target=lambda: pccpipe.run(
            pccpipe.load(text),
            run_id="r1",
            runs_dir=tmp_path,
            workspace=tmp_path,
            on_event=lambda _: begun.set(),
        )
    )
    work.start()
    assert begun.wait(30)
    followed = list(pccpipe.follow("r1", runs_dir=tmp_path))
    work.join()
    assert isinstance(followed[-1].what, pccpipe.RunEnded)
    assert [event.seq for event in followed] == list(range(1, len(followed) + 1))


def test_runs_are_listed_and_known(runs: Path) -> None:
    (entry,) = pccpipe.list_runs(runs_dir=runs)
    assert (entry.run_id, entry.status) == ("r1", "succeeded")
    assert pccpipe.get_run("r1", runs_dir=runs).to_json()["status"] == "succeeded"
    assert pccpipe.list_runs(runs_dir=runs / "none") == []
