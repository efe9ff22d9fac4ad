from __future__ import annotations

from pathlib import Path

import pytest
from helpers.candidate_results import GIB, NUM_PROMPTS, Candidate, make_candidate_results, spread
from rich.console import Console

from edgepress.common.errors import UserError
from edgepress.evaluate.comparison import terminal
from edgepress.evaluate.comparison.builder import build_comparison
from edgepress.recipes.loader import load_recipe, recipe_names

MB = 10**6
NOISE = [40 + 4 * (-1) ** number for number in range(NUM_PROMPTS)]
CANDIDATES = {
    "small": Candidate(spread(30), 10 * MB, 1 * GIB),
    "large": Candidate(spread(40), 40 * MB, 3 * GIB),
    "beaten": Candidate(spread(29), 20 * MB, 100 * GIB, text=0.5),
    "unmeasured": Candidate(spread(35), 15 * MB),
    "board": Candidate(spread(0), None, own_noise="its noise is its own"),
}


def test_the_closest_comes_first_and_others_have_paired_gaps() -> None:
    comparison = build_comparison([make_candidate_results(CANDIDATES)])
    assert [entry.name for entry in comparison.candidates] == ["large", "unmeasured", "small", "beaten", "board"]
    gaps = [entry.gap and (entry.gap.mean, entry.gap.low, entry.gap.high) for entry in comparison.candidates]
    assert gaps == [None, (-5, -5, -5), (-10, -10, -10), (-11, -11, -11), None]
    assert [entry.on_front for entry in comparison.candidates] == [True, True, True, False, False]


def test_the_choice_for_a_device_is_the_smallest_that_cannot_be_distinguished_from_the_closest() -> None:
    alike = {"a": Candidate(spread(40), 40 * MB, GIB), "b": Candidate(NOISE, 30 * MB, GIB)}
    comparison = build_comparison([make_candidate_results(CANDIDATES | alike)])
    assert {budget.choice for budget in comparison.budgets if budget.usable_bytes - budget.process_bytes > 4 * GIB} == {
        "b"
    }
    certain = build_comparison([make_candidate_results(CANDIDATES)])
    for budget in certain.budgets:
        free = budget.usable_bytes - budget.process_bytes
        assert budget.fits["large"] == (free >= 3 * GIB)
        assert (budget.fits["beaten"], budget.fits["unmeasured"]) == (False, None)
        assert budget.choice == ("large" if free >= 3 * GIB else "small")


def test_budgets_are_those_of_the_recipes() -> None:
    budgets = build_comparison([make_candidate_results(CANDIDATES)]).budgets
    expected = {
        (name, memory, int((memory - hardware.reserved) * GIB))
        for name in recipe_names()
        for hardware in [load_recipe(name).hardware]
        if hardware
        for memory in hardware.memory
    }
    assert {(budget.device, budget.memory, budget.usable_bytes) for budget in budgets} == expected


def test_answers_say_what_follows() -> None:
    answers = build_comparison([make_candidate_results(CANDIDATES)]).answers
    assert answers == (
        "Closest to the reference is large: 40.00 [39.50, 40.50] dB, 40.0 MB.",
        "The smallest is small: 10.0 MB, 30.00 [29.50, 30.50] dB, 10.00 dB behind the closest.",
        "For beaten another candidate is no larger and closer to the reference.",
        "Text suffers measurably with beaten (50.0 [50.0, 50.0] points).",
        "board was not compared with the reference's images: its noise is its own.",
    )


def test_identical_images_are_the_closest() -> None:
    candidates = {"same": Candidate([None] * NUM_PROMPTS, 20 * MB, GIB), "close": Candidate(spread(60), 30 * MB, GIB)}
    comparison = build_comparison([make_candidate_results(candidates)])
    assert [(entry.name, entry.on_front) for entry in comparison.candidates] == [("same", True), ("close", False)]
    assert comparison.answers[0] == "All images of same equal the reference's in every pixel."
    assert {budget.choice for budget in comparison.budgets} == {"same"}


def test_equal_candidates_are_both_on_the_front() -> None:
    comparison = build_comparison([make_candidate_results({name: Candidate(spread(40), 10 * MB) for name in "ab"})])
    assert [entry.on_front for entry in comparison.candidates] == [True, True]
    assert not any("closer to the reference" in answer for answer in comparison.answers)


def test_results_of_several_runs_are_put_together() -> None:
    parts = [make_candidate_results({name: candidate}) for name, candidate in CANDIDATES.items() if name != "board"]
    paths = [Path(f"{number}.json") for number in range(len(parts))]
    together, apart = build_comparison([make_candidate_results(CANDIDATES)]), build_comparison(parts, paths)
    assert apart.candidates == tuple(entry for entry in together.candidates if entry.name != "board")
    with pytest.raises(UserError, match=r"0\.json and 0\.json both have a candidate 'small'"):
        build_comparison([parts[0], parts[0]], [paths[0], paths[0]])
    identity = parts[1].identity.model_copy(update={"prompts_sha256": "2" * 64})
    with pytest.raises(UserError, match=r"0\.json and 1\.json cannot be compared: the prompts differ"):
        build_comparison([parts[0], parts[1].model_copy(update={"identity": identity})], paths[:2])


def test_the_terminal_shows_every_candidate_and_device() -> None:
    comparison = build_comparison([make_candidate_results(CANDIDATES)])
    console = Console(width=160)
    with console.capture() as capture:
        console.print(terminal.render(comparison))
    text = capture.get()
    for name in (*CANDIDATES, *(budget.device for budget in comparison.budgets)):
        assert name in text
    assert "30.00 [29.50, 30.50]" in text
    assert "1.50 [1.25, 1.75]" in text
