"""The steps of a tuning depend on the recipe and the model alone."""

from __future__ import annotations

import pytest

from edgepress.quantize.tuning.budget import (
    ASSUMED_FLOPS,
    AUTO_SEEDS,
    AUTO_STEPS,
    BATCH,
    TRAINING_FACTOR,
    TuningBudget,
    plan_budget,
)

DEMO = 3e9  # operations of a small denoiser for one sample


def test_auto_takes_its_steps_on_a_small_model() -> None:
    assert plan_budget("auto", DEMO, 8, 100, 2) == TuningBudget(100, AUTO_SEEDS, AUTO_STEPS)


def test_auto_leaves_a_large_model() -> None:
    assert plan_budget("auto", 1e13, 8, 100, 1) is None


@pytest.mark.parametrize("minutes", [0.5, 5.0, 60.0])
@pytest.mark.parametrize("num_schemes", [1, 2])
def test_minutes_are_used_up_and_not_exceeded(minutes: float, num_schemes: int) -> None:
    budget = plan_budget(minutes, DEMO, 8, 100, num_schemes)
    assert budget is not None
    step = TRAINING_FACTOR * BATCH * DEMO
    used = budget.prompts * budget.seeds * 8 * DEMO + num_schemes * budget.steps * step
    available = minutes * 60 * ASSUMED_FLOPS
    assert available - num_schemes * step <= used <= available


def test_little_time_takes_fewer_prompts_and_at_least_one_step() -> None:
    budget = plan_budget(0.001, DEMO, 8, 100, 1)
    assert budget == TuningBudget(2, 1, 1)
