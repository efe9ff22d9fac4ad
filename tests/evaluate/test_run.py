from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepress.errors import UserError
from edgepress.evaluate.generate import open_picture
from edgepress.evaluate.plan import Plan
from edgepress.evaluate.results import load_results
from edgepress.evaluate.run import evaluate
from edgepress.prompts import Prompt
from edgepress.sampling import Sampling


@pytest.fixture
def plan(reference: Path, candidate: Path, prompts: tuple[Prompt, ...], tmp_path: Path) -> Plan:
    return Plan(
        reference=reference,
        candidate=candidate,
        prompts=prompts,
        sampling=Sampling(height=64, width=64, steps=2, guidance=0.0),
        dtype="float32",
        output=tmp_path / "evaluation",
        cache=tmp_path / "pictures",
    )


def test_two_pipelines_are_compared(plan: Plan) -> None:
    stages: list[str] = []
    results = evaluate(plan, lambda stage, done, total: stages.append(stage) if done == total else None)
    assert stages == [
        "reading the reference",
        "reading the candidate",
        "painting with the reference",
        "painting with the candidate",
        "measuring",
    ]
    assert load_results(plan.output / "results.json") == results
    assert [row.prompt for row in results.rows] == list(plan.prompts)
    assert results.summary.identical == 0
    for row in results.rows:
        one, other = (open_picture(plan.cache / side.file).astype(float) for side in (row.reference, row.variant))
        assert row.values["psnr"] == pytest.approx(10 * np.log10(255**2 / ((one - other) ** 2).mean()))
    assert results.rows[2].reference.values["text_accuracy"] is None
    assert results.summary.groups[0].scores["text_accuracy"].drop.count == 2


def test_a_second_run_measures_the_same_and_writes_the_same_bytes(plan: Plan) -> None:
    evaluate(plan)
    first = (plan.output / "results.json").read_bytes()
    made = {file: file.stat().st_mtime_ns for file in plan.cache.rglob("*.png")}
    evaluate(plan)
    assert (plan.output / "results.json").read_bytes() == first
    assert {file: file.stat().st_mtime_ns for file in plan.cache.rglob("*.png")} == made


def test_a_pipeline_equals_itself(plan: Plan) -> None:
    results = evaluate(replace(plan, candidate=plan.reference, seeds=2, prompts=plan.prompts[2:]))
    assert results.summary.identical == results.summary.pictures == 2
    assert "psnr" not in results.summary.groups[0].pairs
    assert results.summary.groups[0].pairs["ssim"].mean.mean == 1


def test_comparing_nothing_is_an_error(plan: Plan) -> None:
    for nothing in (replace(plan, prompts=()), replace(plan, seeds=0)):
        with pytest.raises(UserError, match="nothing to compare"):
            evaluate(nothing)
