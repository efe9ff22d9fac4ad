"""What validation chooses: the candidate with the least error on other tokens, whatever its error on its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgepress.numerics.affine import dequantize
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.solver.candidates import (
    GPTQ,
    STRONG_DAMPING,
    TRIAL_OUTPUTS,
    VARIANTS,
    Candidate,
    ValidatedInput,
    list_candidates,
)
from edgepress.quantize.solver.layer import LayerInput, quantize_layer

SPEC = QuantSpec(4, 32, False, False)
CANDIDATES = list_candidates("validated", refines=True)


def make_input(seed: int, tokens: int, validation: int) -> tuple[Tensor, ValidatedInput, Tensor]:
    """A weight (40, 64), its input and the tokens to validate on."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(64, 64, generator=generator)
    x, unseen = (torch.randn(count, 64, generator=generator) @ mix for count in (tokens, validation))
    weight = torch.randn(40, 64, generator=generator)
    return weight, ValidatedInput(LayerInput(x.T @ x / len(x), SPEC), unseen), unseen


@pytest.mark.parametrize(("seed", "tokens"), [(0, 20), (1, 2000)])
def test_the_candidate_with_the_least_error_on_other_tokens_is_taken(seed: int, tokens: int) -> None:
    weight, validated, unseen = make_input(seed, tokens, 500)
    errors = {}
    for candidate in (*CANDIDATES, *(replace(candidate, damping=STRONG_DAMPING) for candidate in CANDIDATES)):
        layer_input = LayerInput(validated.layer_input.hessian, SPEC, damping=candidate.damping)
        quantized = quantize_layer("o", weight, layer_input, candidate.steps).quantized
        error = (unseen.double() @ (dequantize(quantized) - weight).T.double()).square().sum()
        errors[candidate] = float(error / (unseen.double() @ weight.T.double()).square().sum())
    choice = validated.choose("o", weight, CANDIDATES)
    steps = min(CANDIDATES, key=errors.__getitem__).steps  # then the damping
    best = min(error for candidate, error in errors.items() if candidate.steps == steps)
    assert choice.validation_error == pytest.approx(best, rel=1e-4)
    assert errors[choice.candidate] == best


def test_with_few_tokens_more_damping_is_chosen_than_with_many() -> None:
    few, many = ([make_input(seed, tokens, 500) for seed in range(6)] for tokens in (8, 4000))
    dampings = [
        sum(validated.choose("o", weight, CANDIDATES).candidate.damping for weight, validated, _ in inputs)
        for inputs in (few, many)
    ]
    assert dampings[0] > dampings[1]


def test_without_tokens_to_validate_on_it_is_gptq() -> None:
    weight, validated, _ = make_input(0, 200, 1)
    choice = ValidatedInput(validated.layer_input, None).choose("o", weight, CANDIDATES)
    expected = quantize_layer("o", weight, validated.layer_input, ("gptq",))
    assert choice.candidate == GPTQ
    assert choice.validation_error is None
    assert torch.equal(choice.result.quantized.codes, expected.quantized.codes)


def test_many_outputs_are_judged_by_some_of_them_and_all_are_quantized() -> None:
    weight, validated, _ = make_input(0, 200, 100)
    tall = weight.repeat(TRIAL_OUTPUTS // 10, 1)
    choice = validated.choose("o", tall, (Candidate(("gptq",)), Candidate(("range_search", "gptq"))))
    assert choice.result.quantized.codes.shape == tall.shape


def test_what_has_no_time_for_refining_has_fewer_candidates() -> None:
    for variant in VARIANTS:
        some, all_candidates = (set(list_candidates(variant, refines)) for refines in (False, True))
        assert some
        assert all_candidates
        assert not any("reround" in candidate.steps for candidate in some)
    assert not any(candidate.clips for candidate in list_candidates("unclipped", refines=True))
    assert list_candidates("gptq", refines=True) == (GPTQ,)
