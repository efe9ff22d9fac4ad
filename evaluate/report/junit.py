"""JUnit's XML, as CI servers show it: a case for each gate, and one for each pair that failed or shows nothing.

A gate that failed is a failure; what could not be measured is an error; an inconclusive gate is skipped, or a failure
where the recipe is strict. Without gates one case stands for the comparison itself, so that a suite is never empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from ..results import Gate, Results
from . import words

FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 may not hold

Outcome = Literal["failure", "error", "skipped"]


class Case(NamedTuple):
    """One test case; no outcome is a pass."""

    suite: str
    name: str
    outcome: Outcome | None
    message: str


def render(results: Results) -> str:
    """The file's text."""
    found = list(cases(results))
    root = ElementTree.Element("testsuites", _counts("edgepress evaluate", found))
    root.set("time", f"{sum(results.seconds.values()):.3f}")
    for suite in dict.fromkeys(case.suite for case in found):
        own = [case for case in found if case.suite == suite]
        element = ElementTree.SubElement(root, "testsuite", _counts(suite, own) | {"timestamp": results.created[:19]})
        for case in own:
            _add(element, case)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return text.decode() + "\n"


def cases(results: Results) -> Iterator[Case]:
    """All cases, gates first."""
    for gate in results.gates:
        name = f"{gate.variant}: {words.gate_title(gate, results)}"
        yield Case("gates", name, _outcome(gate, results.strict), _message(gate, results))
    for trouble in words.troubles(results):
        if trouble.variant is not None:
            for prompt, seed in trouble.where:
                yield Case("pairs", f"{trouble.variant}: {prompt}, seed {seed}", trouble.outcome, trouble.what)
    pairs = sum(summary.pictures for summary in results.variants.values())
    yield Case("compared", "pairs were compared", None if pairs else "error", f"{pairs} pairs")


def _outcome(gate: Gate, strict: bool) -> Outcome | None:
    if gate.verdict == "inconclusive":
        return "failure" if strict else "skipped"
    outcomes: dict[str, Outcome] = {"failed": "failure", "not measured": "error"}
    return outcomes.get(gate.verdict)


def _message(gate: Gate, results: Results) -> str:
    """What was found, and why it is not enough."""
    found = " ".join(
        part for part in (words.gate_amount(gate.value, gate, results), words.gate_interval(gate, results)) if part
    )
    return "; ".join(part for part in (gate.verdict, found, words.gate_remarks(gate, results)) if part)


def _counts(name: str, own: list[Case]) -> dict[str, str]:
    outcomes = [case.outcome for case in own]
    return {
        "name": name,
        "tests": str(len(own)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
    }


def _add(suite: ElementTree.Element, case: Case) -> None:
    """The case, with what it says of itself."""
    attributes = {"classname": f"edgepress.{case.suite}", "name": _allowed(case.name), "time": "0"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.outcome:
        ElementTree.SubElement(element, case.outcome, {"message": _allowed(case.message)})
    else:
        ElementTree.SubElement(element, "system-out").text = _allowed(case.message)


def _allowed(text: str) -> str:
    """The text with a mark in the place of every character that XML cannot hold."""
    return FORBIDDEN.sub("\ufffd", text)
