"""Each broken file of tests/corpus gives exactly the message beside it. UPDATE_CORPUS=1 writes what it gives now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pccpipe.errors import SpecError
from pccpipe.spec.load import load_pipeline

CORPUS = Path(__file__).resolve().parents[1] / "corpus"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_broken_pipeline_gives_its_messages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)
    with pytest.raises(SpecError) as raised:
        load_pipeline(Path(path.name))
    text = str(raised.value) + "\n"
    expected = path.with_suffix(".expected")
    if os.environ.get("UPDATE_CORPUS"):
        expected.write_text(text)
    assert text == expected.read_text()


def test_the_corpus_is_large_and_says_nothing_in_the_schema_librarys_words() -> None:
    texts = [path.read_text() for path in CORPUS.glob("*.expected")]
    assert len(texts) >= 100
    for words in (
        "is not valid under any",
        "False schema",
        "Additional properties",
        "is a required property",
        "does not match",
    ):
        assert not [text for text in texts if words in text]
