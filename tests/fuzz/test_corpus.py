"""Replay the corpus: inputs that broke a parser once, or nearly did."""

from __future__ import annotations

import pytest

from tests.fuzz.rule import CORPUS, corpus, hold
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_parser_survives_its_corpus(name: str) -> None:
    inputs = corpus(name)
    assert inputs
    for path in inputs:
        try:
            hold(name, path.read_bytes())
        except Exception as error:
            error.add_note(f"the input is {path}")
            raise


def test_every_input_has_a_parser() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
