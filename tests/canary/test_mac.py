"""A search on a Mac: what it reads, and what it reports that it can't read."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from pccpipe.canary.ledger import Ledger, Spot, SpotVerdict
from pccpipe.canary.machine import Looker
from pccpipe.canary.places import Classifier
from pccpipe.canary.value import Canary
from tests.fake_mac import FakeMac, MacHere

PROCESSES = (Spot.ARGUMENTS, Spot.ENVIRONMENT, Spot.OWN_ENVIRONMENT)
CANARY = Canary()


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger(CANARY)
    made.name("here", (*PROCESSES, Spot.DISK), "things")
    return made


@pytest.fixture
def looker(mac: FakeMac, ledger: Ledger) -> Looker:
    return Looker(MacHere(mac), "here", CANARY, ledger, "run", may_sudo=False)


def test_arguments_are_searched_and_environments_reported_as_hidden(looker: Looker, ledger: Ledger) -> None:
    looker.processes(own_is_expected=False)
    arguments, environment, own, _ = ledger.rows
    assert arguments.verdict is SpotVerdict.CLEAN
    assert arguments.things > 3
    assert {environment.verdict, own.verdict} == {SpotVerdict.NOT_LOOKED}
    assert environment.unread == ["Darwin shows no program the environment of another"]


def test_a_secret_in_an_argument_list_is_found(looker: Looker, ledger: Ledger) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 30; exit", CANARY.value]) as process:
        looker.processes(own_is_expected=False)
        process.kill()
    assert ledger.rows[0].found == [f"process {process.pid} (sh)"]


def test_without_ps_nothing_is_reported_as_clean(looker: Looker, ledger: Ledger, mac: FakeMac) -> None:
    (mac.folder / "bin" / "ps").unlink()
    looker.processes(own_is_expected=False)
    assert {row.verdict for row in ledger.rows[:3]} == {SpotVerdict.NOT_LOOKED}


def look_into(folder: Path, looker: Looker) -> None:
    looker.files(f"pcc_files {shlex.quote(str(folder))}", Classifier((f"{folder}(/|$)", Spot.DISK)))


def test_files_names_and_links_are_searched_without_gnu_tools(looker: Looker, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "plain 'quoted' $name").write_text("nothing")
    look_into(tmp_path, looker)
    row = ledger.rows[-1]
    assert (row.verdict, row.things, row.size) == (SpotVerdict.CLEAN, 1, 7)
    (tmp_path / "in hex").write_bytes(CANARY.value.encode().hex().encode())
    (tmp_path / "link").symlink_to(f"to/{CANARY.value}")
    look_into(tmp_path, looker)
    in_name, in_file = sorted(row.found)
    assert in_file.startswith("in the name") != in_name.startswith("in the name")
    assert {f"{tmp_path}/in hex"} < set(row.found)


@pytest.mark.parametrize(("tool", "why"), [("find", "find ended with 127"), ("stat", "stat does not work")])
def test_a_search_with_broken_tools_is_not_clean(
    looker: Looker, ledger: Ledger, tmp_path: Path, mac: FakeMac, tool: str, why: str
) -> None:
    (mac.folder / "bin" / tool).unlink()
    look_into(tmp_path, looker)
    assert ledger.rows[-1].verdict is SpotVerdict.NOT_LOOKED
    assert ledger.rows[-1].unread == [f"the search failed: {why}"]
