from __future__ import annotations

from xml.dom import minidom

import pytest
from helpers.report_results import HOSTILE, make_many_results
from helpers.result_rows import make_failed_pair, make_pair, make_prompt, make_results, make_sample, make_sample_with

from edgepress.evaluate.report import junit
from edgepress.evaluate.results.schema import Results

OUTCOMES = ("failure", "error", "skipped")


def parse(results: Results) -> dict[str, dict[str, tuple[str | None, str]]]:
    """The outcome and message of each case by suite and name, from an independent parser; also checks the counts."""
    document = minidom.parseString(junit.render(results).encode())
    suites: dict[str, dict[str, tuple[str | None, str]]] = {}
    for suite in document.getElementsByTagName("testsuite"):
        elements = suite.getElementsByTagName("testcase")
        cases = suites.setdefault(suite.getAttribute("name"), {})
        for element in elements:
            (result,) = [node for node in element.childNodes if node.nodeType == node.ELEMENT_NODE]
            message = result.getAttribute("message") or "".join(node.data for node in result.childNodes)
            outcome = result.tagName if result.tagName in OUTCOMES else None
            cases[element.getAttribute("name")] = (outcome, message)
        assert len(cases) == len(elements)
        _check_counts(suite, [outcome for outcome, _ in cases.values()])
    _check_counts(document.documentElement, [outcome for cases in suites.values() for outcome, _ in cases.values()])
    return suites


def _check_counts(element: minidom.Element, outcomes: list[str | None]) -> None:
    assert int(element.getAttribute("tests")) == len(outcomes)
    for name, attribute in zip(OUTCOMES, ("failures", "errors", "skipped"), strict=True):
        assert int(element.getAttribute(attribute)) == outcomes.count(name)


def test_a_case_for_each_gate_and_each_failed_pair(results: Results) -> None:
    suites = parse(results)
    gates = suites["gates"]
    expected = {"passed": None, "failed": "failure", "not measured": "error", "inconclusive": "skipped"}
    assert [outcome for outcome, _ in gates.values()] == [expected[gate.verdict] for gate in results.gates]
    assert any("95" not in message and "dB" in message for _, message in gates.values())
    pairs = suites["pairs"]
    assert (
        sorted(pairs.values())
        == [("error", "missing")] * 2 + [("error", "size 64x128 instead of 128x128")] * 2 + [("failure", "black")] * 2
    )
    assert suites["compared"] == {"pairs were compared": (None, "28 pairs")}


def test_with_a_strict_recipe_inconclusive_gates_are_failures(results: Results) -> None:
    gates = parse(results)["gates"].values()
    strict = parse(results.model_copy(update={"strict": True}))["gates"].values()
    assert [outcome for outcome, _ in strict] == [
        "failure" if outcome == "skipped" else outcome for outcome, _ in gates
    ]


def test_a_defective_reference_is_a_single_error() -> None:
    """Also if the variant's image is defective."""
    pair = make_pair(9.0, defect="black").model_copy(update={"failure": "reference black"})
    suites = parse(make_results([make_sample_with(make_prompt("a"), pair, defect="black")]))
    assert suites["pairs"] == {"int4: a, seed 0": ("error", "reference black")}


def test_a_defect_that_the_reference_shares_is_not_a_failure() -> None:
    sample = make_sample_with(make_prompt("a"), make_pair(9.0, defect="duplicate"), defect="duplicate")
    assert parse(make_results([sample]))["pairs"] == {"int4: a, seed 0": (None, "duplicate, like the reference")}


def test_without_compared_pairs_there_is_an_error() -> None:
    suites = parse(make_results([make_sample_with(make_prompt("a"), make_failed_pair())]))
    assert suites["compared"]["pairs were compared"] == ("error", "0 pairs")
    assert suites["pairs"] == {"int4: a, seed 0": ("error", "missing")}


def test_without_gates_there_is_still_a_case() -> None:
    assert parse(make_results([make_sample(make_prompt("a"), 30.0)])) == {
        "compared": {"pairs were compared": (None, "1 pair")}
    }


@pytest.mark.parametrize("text", [HOSTILE, "\x00\x1b[31m", "\ufffe]]>", "<!--"])
def test_any_name_is_valid_xml(text: str) -> None:
    (name,) = parse(make_results([make_sample_with(make_prompt(text), make_failed_pair(text))]))["pairs"]
    assert "\x07" not in name
    assert len(name) == len(f"int4: {text}, seed 0")


def test_there_is_a_case_for_each_of_many_prompts() -> None:
    assert len(parse(make_many_results(40, 2))["pairs"]) == 40
