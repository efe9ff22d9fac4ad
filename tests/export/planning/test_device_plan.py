"""Verdicts of plans whose numbers are given."""

from __future__ import annotations

import pytest

from edgepress.common.errors import UserError
from edgepress.export.planning.device_plan import DevicePlan, GraphEstimate, Verdict

MIB = 2**20


def make_graph(name: str, weights: int, activations: int, runs: int = 1, floor: float | None = None) -> GraphEstimate:
    return GraphEstimate(name, name, "denoising", runs, weights, weights * MIB, activations * MIB, 10, 20, floor)


def make_plan(usable: int, *graphs: GraphEstimate) -> DevicePlan:
    return DevicePlan(
        "board", "SomePipeline", "int4", (64, 64), 8, 32, 2 * usable * MIB, usable * MIB, 10 * MIB, {"a": 1}, graphs
    )


@pytest.mark.parametrize(
    ("usable", "verdict", "peak"),
    [
        (310, Verdict.FITS, 310),  # 10 for the process, 100 and 200 for the graphs
        (309, Verdict.IN_PHASES, 210),
        (210, Verdict.IN_PHASES, 210),
        (209, Verdict.DOES_NOT_FIT, 210),
    ],
)
def test_the_verdict_compares_peaks_with_what_can_be_used(usable: int, verdict: Verdict, peak: int) -> None:
    plan = make_plan(usable, make_graph("a", 60, 40), make_graph("b", 150, 50))
    assert (plan.verdict, plan.peak_bytes) == (verdict, peak * MIB)
    assert (plan.margin_bytes, plan.missing_bytes) == (max(0, usable - peak) * MIB, max(0, peak - usable) * MIB)
    assert "-" not in str(plan).partition("Verdict: ")[2]
    assert f"Verdict: {verdict}" in str(plan)


def test_what_does_not_fit_is_refused_with_what_would_make_it_fit() -> None:
    graph = make_graph("a", 60, 40)
    make_plan(110, graph).require_fits()
    with pytest.raises(UserError, match=r"^The pipeline does not fit on board: .* 0\.107 GiB .* Give --force\.$"):
        make_plan(109, graph).require_fits("Give --force.")


def test_the_floor_of_an_image_is_that_of_all_runs_and_unknown_where_one_is() -> None:
    graphs = make_graph("a", 1, 1, runs=1, floor=0.5), make_graph("b", 1, 1, runs=8, floor=0.25)
    plan = make_plan(100, *graphs)
    assert plan.floor_seconds == 0.5 + 8 * 0.25
    assert "at least 2.5 s" in str(plan)
    unknown = make_plan(100, *graphs, make_graph("c", 1, 1))
    assert unknown.floor_seconds is None
    assert "states no rates" in str(unknown)
