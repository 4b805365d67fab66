from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from pccpipe.outcome import Outcome, Place, Stream
from pccpipe.record.events import CommandEnded, Happening, Output, RoundStarted, StepEnded, StepStarted, Warned
from pccpipe.record.run_events import RunEnded
from pccpipe.record.state import RunState
from pccpipe.views.board import Line, board, final_board
from pccpipe.views.live import LiveView, Painter
from pccpipe.views.text import cells
from pccpipe.views.watch import Watch
from tests.record.script import BOXED, LOCAL, START, command, default_run, events, ran, started
from tests.views.screen import Screen


def watched(happenings: Iterable[Happening]) -> Watch:
    watch = Watch()
    for event in events(happenings):
        watch.feed(event)
    return watch


def text(lines: Iterable[Line]) -> list[str]:
    return ["".join(piece for piece, _ in line).rstrip() for line in lines]


def shown(happenings: Sequence[Happening], width: int = 79, height: int = 23) -> list[str]:
    watch = watched(happenings)
    lines = board(watch.state, watch.tail, START + len(happenings), width, height)
    assert len(lines) <= height
    assert all(cells(line) <= width for line in text(lines))
    return text(lines)


def upto(kind: type, step: str) -> list[Happening]:
    """Return the default run up to an event of a certain kind."""
    whole = default_run()
    index = next(i for i, what in enumerate(whole) if isinstance(what, kind) and getattr(what, "step", "") == step)
    return whole[: index + 1]


def test_a_running_step_shows_where_it_runs_and_its_last_lines() -> None:
    happenings = [*upto(Output, "iterate[1].build"), Output("iterate[1].build", Stream.STDERR, "not yet a li")]
    assert shown(happenings) == [
        "default-run · r1 · vm · 18s",
        "✔ sync             0.3s  12 files, 34.6 kB, by tar",
        "✔ baseline         3.0s  vm 10.0.0.2 · attempt 2",
        "▶ iterate          6.0s  round 1 of 3",
        "  ▶ round 1        4.0s",
        "    ▶ build        4.0s  container pcc-runner:latest on 10.0.0.2",
        "      │ thinking",
        "      │ not yet a li",
        "· collect",
        "· clean",
    ]


def test_a_waiting_step_says_why() -> None:
    waiting = [*upto(StepStarted, "iterate[1].build"), Warned("unavailable: waiting for it", "iterate[1].build")]
    (line,) = [line for line in shown(waiting) if "build" in line]
    assert line.endswith("unavailable: waiting for it")
    (line,) = [line for line in shown([*waiting, command("iterate[1].build", BOXED)]) if "build" in line]
    assert "unavailable" not in line


def test_a_skipped_step_says_why_if_its_record_does() -> None:
    (line,) = [line for line in shown([StepEnded("unit", Outcome.SKIPPED, 0.0, message="no legs")]) if "unit" in line]
    assert line.split() == ["-", "unit", "no", "legs"]


def test_an_ended_round_is_one_line() -> None:
    lines = shown(upto(StepStarted, "iterate[2].build"))
    assert "  ✔ round 1        8.0s  test failed, review skipped" in lines
    assert len([line for line in lines if "build" in line]) == 1


def test_the_final_tree_has_every_step_and_the_downgrade() -> None:
    watch = watched(default_run())
    lines = text(final_board(watch.state, START + 50, 120))
    assert [line.split()[1] for line in lines if "build" in line] == ["build", "build"]
    (review,) = [line for line in lines if "engine_permission_denied" in line]
    assert "local ⚠ asked for container" in review
    assert lines[0].endswith("44s · downgraded")


def many(count: int) -> list[Happening]:
    names = [f"legs[n={number}]" for number in range(count)]
    begun: list[Happening] = [started("legs", "later"), StepStarted("legs", "matrix")]
    for name in names:
        begun += [StepStarted(name, "run", Place.CONTAINER), command(name, BOXED)]
    return begun


@pytest.mark.parametrize("height", [3, 5, 10, 24, 50, 200])
def test_more_steps_than_lines_fit_the_terminal(height: int) -> None:
    lines = shown(many(100), height=height)
    if height < 100:
        assert any("more" in line for line in lines)


def test_a_failed_step_stays_in_sight() -> None:
    happenings = many(100)
    happenings += [
        CommandEnded("legs[n=7]", 1, Outcome.FAILED, 1, seconds=1.0, message="exit code 1"),
        StepEnded("legs[n=7]", Outcome.FAILED, 1.0, 1, message="exit code 1"),
    ]
    for number in range(50, 100):
        happenings.append(StepEnded(f"legs[n={number}]", Outcome.SUCCEEDED, 1.0, 0))
    for number in range(8, 50):
        happenings.append(StepEnded(f"legs[n={number}]", Outcome.SUCCEEDED, 1.0, 0))
    lines = shown(happenings)
    assert any("✘ n=7" in line for line in lines)
    assert any("▶ n=0" in line for line in lines)
    assert any("▶ legs" in line for line in lines)


@pytest.mark.parametrize("width", [10, 20, 40, 80])
def test_a_narrow_terminal_gets_narrow_lines(width: int) -> None:
    shown(
        [*upto(Output, "iterate[1].build"), Output("iterate[1].build", Stream.STDOUT, "漢" * 100 + "\n")], width=width
    )


def test_painting_again_leaves_on_the_screen_just_the_new_lines() -> None:
    stream = io.StringIO()
    painter = Painter(stream, Console(file=stream))
    screen = Screen()

    def paint(*lines: str, size: tuple[int, int] = (80, 24)) -> list[str]:
        painter.paint([((line, "bold"),) for line in lines], size)
        screen.feed(stream.getvalue())
        stream.seek(0)
        stream.truncate()
        return screen.lines

    assert paint("a", "b", "c") == ["a", "b", "c"]
    assert paint("a", "longer b", "c", "d") == ["a", "longer b", "c", "d"]
    assert paint("a", "x") == ["a", "x"]
    assert paint("a", "y", size=(60, 24)) == ["a", "y"]
    painter.leave([((f"line {number}", ""),) for number in range(30)])
    screen.feed(stream.getvalue())
    assert [*screen.scrolled, *screen.lines] == [f"line {number}" for number in range(30)]


def test_a_repaint_writes_only_what_changed() -> None:
    stream = io.StringIO()
    painter = Painter(stream, Console(file=stream))
    painter.paint([(("same", ""),), (("old", ""),)], (80, 24))
    stream.seek(0)
    stream.truncate()
    painter.paint([(("same", ""),), (("new", ""),)], (80, 24))
    assert "same" not in stream.getvalue()
    assert "new" in stream.getvalue()
    painter.forget()
    painter.paint([(("same", ""),), (("new", ""),)], (80, 24))
    assert "same" in stream.getvalue()


def test_the_view_leaves_the_tree_and_the_summary_and_no_escape_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    stream = io.StringIO()
    view = LiveView(stream, Path(".system/runs/r1"))
    scripted = events([*default_run()[:-1], Output("clean", Stream.STDOUT, "\x1b[2J\x1b]0;x\x07\n"), default_run()[-1]])
    for event in scripted:
        view(event)
    view.close()
    screen = Screen(width=200)
    screen.feed(stream.getvalue())
    left = [*screen.scrolled, *screen.lines]
    assert left[0].startswith("default-run · r1 · vm · 44s")
    assert left[-1] == "record: .system/runs/r1"
    assert sum(line.startswith("default-run") for line in left) == 1


def test_a_run_that_never_began_leaves_nothing() -> None:
    stream = io.StringIO()
    LiveView(stream, Path("r")).close()
    assert stream.getvalue() == ""


def test_ten_thousand_finished_steps_are_painted_in_bounded_lines() -> None:
    happenings: list[Happening] = [started("g"), StepStarted("g", "repeat"), RoundStarted("g", 1, 1)]
    for number in range(2000):
        happenings += ran(f"g[1].s{number}", LOCAL, Place.LOCAL)
    assert len(shown(happenings)) == 23
    state = RunState()
    for event in events([*happenings, RunEnded(Outcome.SUCCEEDED, "succeeded", False, 9.0)]):
        state.apply(event)
    assert len(final_board(state, START, 80)) <= 201
