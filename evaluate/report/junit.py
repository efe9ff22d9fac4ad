"""The JUnit report for CI: a test case for each gate, and one for each pair that failed or is defective.

A failed gate is a failure, one that was not measured is an error, and an inconclusive one is skipped, or a failure if
the recipe is strict. A last case stands for the comparison itself, so that the report is never empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from ..results.schema import GateResult, Results
from .descriptions import find_problems
from .formatting import format_gate, format_gate_interval, format_gate_remarks, format_gate_value, pluralize

INVALID_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML 1.0 forbids

CaseOutcome = Literal["failure", "error", "skipped"]


class JUnitCase(NamedTuple):
    """A test case; an outcome of None is a pass."""

    suite: str
    name: str
    outcome: CaseOutcome | None
    message: str


def render(results: Results) -> str:
    """Renders the XML file."""
    cases = list(list_cases(results))
    root = ElementTree.Element("testsuites", _count_outcomes("edgepress evaluate", cases))
    root.set("time", f"{sum(results.stage_seconds.values()):.3f}")
    for suite in dict.fromkeys(case.suite for case in cases):
        members = [case for case in cases if case.suite == suite]
        attributes = _count_outcomes(suite, members) | {"timestamp": results.created[:19]}
        element = ElementTree.SubElement(root, "testsuite", attributes)
        for case in members:
            _add_case(element, case)
    ElementTree.indent(root)
    xml: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return xml.decode() + "\n"


def list_cases(results: Results) -> Iterator[JUnitCase]:
    """Lists all cases, gates first."""
    for gate in results.gates:
        name = f"{gate.variant}: {format_gate(gate, results)}"
        yield JUnitCase("gates", name, _get_outcome(gate, results.strict), _format_message(gate, results))
    for problem in find_problems(results):
        if problem.variant is not None:
            for prompt, seed in problem.samples:
                name = f"{problem.variant}: {prompt}, seed {seed}"
                yield JUnitCase("pairs", name, problem.outcome, problem.text)
    num_pairs = sum(summary.num_pairs for summary in results.variants.values())
    yield JUnitCase("compared", "pairs were compared", None if num_pairs else "error", pluralize(num_pairs, "pair"))


def _get_outcome(gate: GateResult, strict: bool) -> CaseOutcome | None:
    if gate.verdict == "inconclusive":
        return "failure" if strict else "skipped"
    outcomes: dict[str, CaseOutcome] = {"failed": "failure", "not measured": "error"}
    return outcomes.get(gate.verdict)


def _format_message(gate: GateResult, results: Results) -> str:
    """Returns the verdict, the value with its interval, and the reason."""
    value = f"{format_gate_value(gate.value, gate, results)} {format_gate_interval(gate, results)}".strip()
    return "; ".join(part for part in (gate.verdict, value, format_gate_remarks(gate, results)) if part)


def _count_outcomes(name: str, cases: Sequence[JUnitCase]) -> dict[str, str]:
    outcomes = [case.outcome for case in cases]
    return {
        "name": name,
        "tests": str(len(cases)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
    }


def _add_case(suite: ElementTree.Element, case: JUnitCase) -> None:
    attributes = {"classname": f"edgepress.{case.suite}", "name": _sanitize(case.name), "time": "0"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.outcome:
        ElementTree.SubElement(element, case.outcome, {"message": _sanitize(case.message)})
    else:
        ElementTree.SubElement(element, "system-out").text = _sanitize(case.message)


def _sanitize(text: str) -> str:
    """Replaces characters that XML forbids."""
    return INVALID_XML.sub("\ufffd", text)
