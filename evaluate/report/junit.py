"""JUnit's XML, as CI servers show it: a case for each gate, and one for each pair that failed or shows nothing.

A gate that failed is a failure; what could not be measured is an error; an inconclusive gate is skipped, or a failure
where the recipe is strict. Without gates one case stands for the comparison itself, so that a suite is never empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from ..results.schema import GateResult, Results
from . import formatting

INVALID_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 may not hold

Outcome = Literal["failure", "error", "skipped"]


class JUnitCase(NamedTuple):
    """One test case; no outcome is a pass."""

    suite: str
    name: str
    outcome: Outcome | None
    message: str


def render(results: Results) -> str:
    """The file's text."""
    found = list(list_cases(results))
    root = ElementTree.Element("testsuites", _counts("edgepress evaluate", found))
    root.set("time", f"{sum(results.stage_seconds.values()):.3f}")
    for suite in dict.fromkeys(case.suite for case in found):
        own = [case for case in found if case.suite == suite]
        element = ElementTree.SubElement(root, "testsuite", _counts(suite, own) | {"timestamp": results.created[:19]})
        for case in own:
            _add(element, case)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return text.decode() + "\n"


def list_cases(results: Results) -> Iterator[JUnitCase]:
    """All cases, gates first."""
    for gate in results.gates:
        name = f"{gate.variant}: {formatting.format_gate(gate, results)}"
        yield JUnitCase("gates", name, _outcome(gate, results.strict), _message(gate, results))
    for trouble in formatting.find_problems(results):
        if trouble.variant is not None:
            for prompt, seed in trouble.samples:
                yield JUnitCase("pairs", f"{trouble.variant}: {prompt}, seed {seed}", trouble.outcome, trouble.problem)
    pairs = sum(summary.num_pairs for summary in results.variants.values())
    yield JUnitCase("compared", "pairs were compared", None if pairs else "error", f"{pairs} pairs")


def _outcome(gate: GateResult, strict: bool) -> Outcome | None:
    if gate.verdict == "inconclusive":
        return "failure" if strict else "skipped"
    outcomes: dict[str, Outcome] = {"failed": "failure", "not measured": "error"}
    return outcomes.get(gate.verdict)


def _message(gate: GateResult, results: Results) -> str:
    """What was found, and why it is not enough."""
    found = " ".join(
        part
        for part in (
            formatting.format_gate_value(gate.value, gate, results),
            formatting.format_gate_interval(gate, results),
        )
        if part
    )
    return "; ".join(part for part in (gate.verdict, found, formatting.format_gate_remarks(gate, results)) if part)


def _counts(name: str, own: list[JUnitCase]) -> dict[str, str]:
    outcomes = [case.outcome for case in own]
    return {
        "name": name,
        "tests": str(len(own)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
    }


def _add(suite: ElementTree.Element, case: JUnitCase) -> None:
    """The case, with what it says of itself."""
    attributes = {"classname": f"edgepress.{case.suite}", "name": _allowed(case.name), "time": "0"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.outcome:
        ElementTree.SubElement(element, case.outcome, {"message": _allowed(case.message)})
    else:
        ElementTree.SubElement(element, "system-out").text = _allowed(case.message)


def _allowed(text: str) -> str:
    """The text with a mark in the place of every character that XML cannot hold."""
    return INVALID_XML.sub("\ufffd", text)
