"""An agent that needs files hidden runs only where pccpipe can hide them, unless its step trusts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.errors import SpecError
from pccpipe.spec.load import load_pipeline

AGENT = """
version: 1
name: own
program: own
api: openai
in_container: own
outside: own
hide: [.own]
"""
PIPELINE = """
version: 1
name: p
agents: {own: {use: ./own.yaml, model: m}}
containers: {box: {image: "img:1"}}
steps:
  - {id: build, on: PLACE, CONTAINER agent: own, prompt: {text: Do it.}, workspace_config: CONFIG}
"""


@pytest.mark.parametrize(
    ("place", "config", "fits"),
    [("container", "hidden", True), ("local", "hidden", False), ("local", "trusted", True), ("vm", "hidden", False)],
)
def test_nothing_hides_files_outside_of_a_container(tmp_path: Path, place: str, config: str, *, fits: bool) -> None:
    (tmp_path / "own.yaml").write_text(AGENT)
    pipeline = tmp_path / "p.yaml"
    text = PIPELINE.replace("PLACE", place).replace("CONFIG", config)
    pipeline.write_text(text.replace("CONTAINER", "container: box," if place == "container" else ""))
    if fits:
        load_pipeline(pipeline)
        return
    with pytest.raises(SpecError) as raised:
        load_pipeline(pipeline)
    assert f"nothing hides .own from the agent `own` on `{place}`" in str(raised.value)
