from __future__ import annotations

from xml.dom import minidom

import pytest
from helpers.report_results import HOSTILE, make_many_results
from helpers.result_rows import failed_pair, make_prompt, make_results, pair_result, sample_result, sample_with

from edgepress.evaluate.report import junit
from edgepress.evaluate.results.schema import Results

OUTCOMES = ("failure", "error", "skipped")


def read(results: Results) -> dict[str, dict[str, tuple[str | None, str]]]:
    """By suite and case: the outcome and what it says, as another parser reads them; counts are checked on the way."""
    document = minidom.parseString(junit.render(results).encode())
    found: dict[str, dict[str, tuple[str | None, str]]] = {}
    for suite in document.getElementsByTagName("testsuite"):
        cases = suite.getElementsByTagName("testcase")
        own = found.setdefault(suite.getAttribute("name"), {})
        for case in cases:
            (element,) = [node for node in case.childNodes if node.nodeType == node.ELEMENT_NODE]
            told = element.getAttribute("message") or "".join(node.data for node in element.childNodes)
            outcome = element.tagName if element.tagName in OUTCOMES else None
            own[case.getAttribute("name")] = (outcome, told)
        assert len(own) == len(cases)
        _check_counts(suite, [outcome for outcome, _ in own.values()])
    _check_counts(document.documentElement, [outcome for own in found.values() for outcome, _ in own.values()])
    return found


def _check_counts(element: minidom.Element, outcomes: list[str | None]) -> None:
    assert int(element.getAttribute("tests")) == len(outcomes)
    for name, attribute in zip(OUTCOMES, ("failures", "errors", "skipped"), strict=True):
        assert int(element.getAttribute(attribute)) == outcomes.count(name)


def test_a_case_for_each_gate_and_each_failed_pair(results: Results) -> None:
    found = read(results)
    gates = found["gates"]
    expected = {"passed": None, "failed": "failure", "not measured": "error", "inconclusive": "skipped"}
    assert [outcome for outcome, _ in gates.values()] == [expected[gate.verdict] for gate in results.gates]
    assert any("95" not in told and "dB" in told for _, told in gates.values())
    pairs = found["pairs"]
    assert (
        sorted(pairs.values())
        == [("error", "missing")] * 2 + [("error", "size 64x128 instead of 128x128")] * 2 + [("failure", "black")] * 2
    )
    assert found["compared"] == {"pairs were compared": (None, "28 pairs")}


def test_a_strict_recipe_fails_where_it_is_inconclusive(results: Results) -> None:
    gates = read(results)["gates"].values()
    strict = read(results.model_copy(update={"strict": True}))["gates"].values()
    assert [outcome for outcome, _ in strict] == ["failure" if one == "skipped" else one for one, _ in gates]


def test_a_reference_that_shows_nothing_is_an_error() -> None:
    """Told once, though the variant's picture shows nothing either."""
    made = pair_result(9.0, defect="black").model_copy(update={"failure": "reference black"})
    found = read(make_results([sample_with(make_prompt("a"), made, defect="black")]))
    assert found["pairs"] == {"int4: a, seed 0": ("error", "reference black")}


def test_what_the_reference_repeats_as_well_is_no_failure() -> None:
    found = read(
        make_results([sample_with(make_prompt("a"), pair_result(9.0, defect="duplicate"), defect="duplicate")])
    )
    assert found["pairs"] == {"int4: a, seed 0": (None, "duplicate, as the reference's")}


def test_nothing_compared_is_an_error() -> None:
    found = read(make_results([sample_with(make_prompt("a"), failed_pair())]))
    assert found["compared"]["pairs were compared"] == ("error", "0 pairs")
    assert found["pairs"] == {"int4: a, seed 0": ("error", "missing")}


def test_without_gates_there_is_still_a_case() -> None:
    assert read(make_results([sample_result(make_prompt("a"), 30.0)])) == {
        "compared": {"pairs were compared": (None, "1 pairs")}
    }


@pytest.mark.parametrize("text", [HOSTILE, "\x00\x1b[31m", "\ufffe]]>", "<!--"])
def test_any_name_is_valid_xml(text: str) -> None:
    (name,) = read(make_results([sample_with(make_prompt(text), failed_pair(text))]))["pairs"]
    assert "\x07" not in name
    assert len(name) == len(f"int4: {text}, seed 0")


def test_many_prompts_are_many_cases() -> None:
    assert len(read(make_many_results(40, 2))["pairs"]) == 40
