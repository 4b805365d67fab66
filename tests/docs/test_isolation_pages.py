"""Test that the pages on isolation have every reason and every key of a container."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pccpipe.outcome import Reason

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_on_fallbacks_has_a_row_for_each_reason_and_for_nothing_else() -> None:
    page = (ROOT / "docs/why-did-it-fall-back.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(reason.value for reason in Reason)
    assert all(len(meaning) > 20 and len(fix) > 10 for _, meaning, fix in rows)


def test_the_page_on_isolation_names_each_key_that_holds_a_container() -> None:
    page = (ROOT / "docs/isolation.md").read_text(encoding="utf-8")
    schema = json.loads((ROOT / "schemas/pipeline.schema.json").read_text(encoding="utf-8"))
    keys = set(schema["definitions"]["container"]["properties"]) - {"image", "extends", "env"}
    assert not [key for key in sorted(keys) if f"`{key}:" not in page]
