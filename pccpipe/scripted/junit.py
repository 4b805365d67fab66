"""The results of cases in JUnit's XML, which CI servers read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from pccpipe.scripted.play import CaseResult

_INVALID = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot have: a run's message may quote any."""


def junit(name: str, results: Sequence[CaseResult]) -> bytes:
    """Return the results of a test file as a document."""
    failed = sum(bool(result.differences) for result in results)
    total = f"{sum(result.seconds for result in results):.3f}"
    counts = {"tests": str(len(results)), "failures": str(failed), "errors": "0", "time": total}
    suites = Element("testsuites", counts)
    suite = SubElement(suites, "testsuite", {"name": _valid(name), **counts})
    for result in results:
        facts = {"classname": _valid(name), "name": _valid(result.name), "time": f"{result.seconds:.3f}"}
        case = SubElement(suite, "testcase", facts)
        if result.differences:
            failure = SubElement(case, "failure", {"message": _valid(result.differences[0])})
            failure.text = _valid("\n".join([*result.differences, f"run: {result.run_id}"]))
    text: bytes = tostring(suites, "utf-8")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + text + b"\n"


def _valid(text: str) -> str:
    return _INVALID.sub("?", text)
