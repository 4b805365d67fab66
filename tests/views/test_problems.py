"""Problems for programs: their formats stay, and no text of a file or message breaks out of them."""

from __future__ import annotations

import json

from pccpipe.spec.position import Position
from pccpipe.spec.problem import Problem, Rule
from pccpipe.views.problems import ProblemFormat, shown

PROBLEMS = [
    Problem(
        Position("a, b:c%.yaml", 3, 5),
        "`x` is not a key\n::error::of a step",
        "did you mean `y`?",
        "    x: 1",
        Rule.STRUCTURE,
    ),
    Problem(Position("/p/é.yaml", 9, 1), "100% wrong"),
]


def test_json_has_a_documented_shape() -> None:
    written = json.loads(shown(PROBLEMS, ProblemFormat.JSON))
    assert written == {
        "version": 1,
        "problems": [
            {
                "file": "a, b:c%.yaml",
                "line": 3,
                "column": 5,
                "rule": "structure",
                "message": "`x` is not a key\n::error::of a step",
                "hint": "did you mean `y`?",
            },
            {"file": "/p/é.yaml", "line": 9, "column": 1, "rule": "meaning", "message": "100% wrong", "hint": ""},
        ],
    }
    assert json.loads(shown([], ProblemFormat.JSON)) == {"version": 1, "problems": []}


def test_github_gets_a_line_for_each_problem_with_its_characters_escaped() -> None:
    assert shown(PROBLEMS, ProblemFormat.GITHUB).split("\n") == [
        "::error file=a%2C b%3Ac%25.yaml,line=3,col=5,title=pccpipe"
        "::`x` is not a key%0A::error::of a step; did you mean `y`?",
        "::error file=/p/é.yaml,line=9,col=1,title=pccpipe::100%25 wrong",
    ]
    assert shown([], ProblemFormat.GITHUB) == ""


def test_sarif_has_all_that_its_schema_requires() -> None:
    # The properties that sarif-schema-2.1.0.json requires, and the limits of those that pccpipe writes.
    log = json.loads(shown(PROBLEMS, ProblemFormat.SARIF))
    assert (log["version"], log.keys()) == ("2.1.0", {"$schema", "version", "runs"})
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "pccpipe"
    assert run["columnKind"] in {"utf16CodeUnits", "unicodeCodePoints"}
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"]) == len(Rule)
    for result in run["results"]:
        assert result["message"]["text"]
        assert result["level"] == "error"
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        region = location["physicalLocation"]["region"]
        assert min(region["startLine"], region["startColumn"]) >= 1
    uris = [each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in run["results"]]
    assert uris == ["a%2C%20b%3Ac%25.yaml", "file:///p/%C3%A9.yaml"]
    assert json.loads(shown([], ProblemFormat.SARIF))["runs"][0]["results"] == []


def test_text_is_all_messages_and_their_number() -> None:
    text = shown(PROBLEMS, ProblemFormat.TEXT)
    assert "    x: 1\n        ^\n    hint: did you mean `y`?\n/p/é.yaml:9:1: 100% wrong\n2 problems" in text
    assert shown([], ProblemFormat.TEXT) == ""
