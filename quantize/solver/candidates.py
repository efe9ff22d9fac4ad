"""What `best` tries on a linear, and what it chooses by: the error on tokens of prompts that nothing is solved on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.affine import QuantizedWeight, dequantize
from ...recipes.schema import Step
from ..algorithms.gptq import DAMPING
from .layer import LayerInput, LayerResult, quantize_layer

STRONG_DAMPING = 0.15  # for inputs of which the calibration has seen too little
TRIAL_OUTPUTS = 256  # of a linear that candidates are tried on
MAX_REFINED_WEIGHTS = 2 * 10**8  # of a component; refining takes four times as long as GPTQ


@dataclass(frozen=True)
class Candidate:
    """Steps that may suit a linear.

    Attributes:
        steps: Applied in this order.
        damping: Of H, as a share of its mean diagonal.
    """

    steps: tuple[Step, ...]
    damping: float = DAMPING

    @property
    def name(self) -> str:
        """As the manifest has it."""
        return f"{'+'.join(self.steps)}, damping {self.damping:g}"

    @property
    def clips(self) -> bool:
        """Whether ranges of weights are clipped."""
        return "range_search" in self.steps


GPTQ = Candidate(("gptq",))
CLIPPED = Candidate(("range_search", "gptq"))
REFINEMENT: tuple[Step, ...] = ("scale_refit", "reround")
# Of a whole model, from the least to the most simple. Without a reason, the simplest is taken: see confirmation.
VARIANTS = ("validated", "unclipped", "unscaled", "gptq")


def list_candidates(variant: str, refines: bool) -> tuple[Candidate, ...]:
    """Returns what is tried on each linear.

    Args:
        variant: One of VARIANTS.
        refines: Whether there is time for more than one pass of GPTQ.
    """
    bases = {"validated": (GPTQ, CLIPPED), "unclipped": (GPTQ,), "unscaled": (GPTQ,), "gptq": (GPTQ,)}[variant]
    if variant == "gptq" or not refines:
        return bases
    return tuple(replace(base, steps=(*base.steps, *REFINEMENT)) for base in bases)


class Choice(NamedTuple):
    """A linear with the candidate that was chosen for it.

    Attributes:
        result: The quantized linear.
        candidate: What it took.
        validation_error: Relative to the output, on tokens that it was not solved on; None if there are none.
    """

    result: LayerResult
    candidate: Candidate
    validation_error: float | None


@dataclass(frozen=True)
class ValidatedInput:
    """The input of linears with everything that candidates share of it.

    Attributes:
        layer_input: H and the format.
        tokens: Tokens that are not in H, (n, in) float32, or None.
        mean: Where H and tokens are centered, the mean that biases are corrected with, (in,).
        damped: The input with other dampings, each of which is factorized once.
    """

    layer_input: LayerInput
    tokens: Tensor | None
    mean: Tensor | None = None
    damped: dict[float, LayerInput] = field(default_factory=dict, repr=False)
    _errors: dict[tuple[str, Candidate], float] = field(default_factory=dict, init=False, repr=False)
    _choices: dict[tuple[str, Candidate], Choice] = field(default_factory=dict, init=False, repr=False)

    def forget_results(self) -> ValidatedInput:
        """Returns the same input for weights that have changed."""
        return ValidatedInput(self.layer_input, self.tokens, self.mean, self.damped)

    def with_damping(self, damping: float) -> LayerInput:
        """Returns the input with another damping."""
        if damping == self.layer_input.damping:
            return self.layer_input
        return self.damped.setdefault(damping, replace(self.layer_input, damping=damping))

    def choose(self, name: str, weight: Tensor, candidates: Sequence[Candidate]) -> Choice:
        """Quantizes a weight (out, in) with the candidate whose validation error is the least.

        The best is also tried with more damping, each on some outputs where there are many. Without tokens, there
        is no choice: it is GPTQ.

        Args:
            name: The linear's name. Its weight must always be the same.
            weight: (out, in)
            candidates: What is tried.
        """
        best = candidates[0]
        if self.tokens is None and len(candidates) > 1:
            best = GPTQ
        elif self.tokens is not None and candidates != (GPTQ,):
            best = min(candidates, key=lambda candidate: self.try_candidate(name, weight, candidate))
            damped = replace(best, damping=STRONG_DAMPING)
            best = min((best, damped), key=lambda candidate: self.try_candidate(name, weight, candidate))
        if self.tokens is None:
            return Choice(self._quantize(name, weight, best), best, None)
        return self._solve(name, weight, best)

    def try_candidate(self, name: str, weight: Tensor, candidate: Candidate) -> float:
        """Returns the validation error of a weight (out, in), or of some of its outputs, with a candidate.

        Args:
            name: The linear's name. Its weight must always be the same.
        """
        stride = len(weight) // TRIAL_OUTPUTS
        if stride <= 1:  # then it is all of them, and need not be quantized again
            error = self._solve(name, weight, candidate).validation_error
            assert error is not None
            return error
        if (name, candidate) not in self._errors:
            sample = weight[::stride]
            self._errors[name, candidate] = self.measure(sample, self._quantize(name, sample, candidate).quantized)
        return self._errors[name, candidate]

    def _solve(self, name: str, weight: Tensor, candidate: Candidate) -> Choice:
        """Returns a weight (out, in) quantized with a candidate, and its validation error."""
        if (name, candidate) not in self._choices:
            result = self._quantize(name, weight, candidate)
            self._choices[name, candidate] = Choice(result, candidate, self.measure(weight, result.quantized))
        return self._choices[name, candidate]

    def _quantize(self, name: str, weight: Tensor, candidate: Candidate) -> LayerResult:
        return quantize_layer(name, weight, self.with_damping(candidate.damping), candidate.steps)

    def measure(self, weight: Tensor, quantized: QuantizedWeight) -> float:
        """Returns the squared output error of a quantized weight on the tokens, relative to the squared output."""
        assert self.tokens is not None
        power = _sum_of_squares(self.tokens, weight.float())
        return _sum_of_squares(self.tokens, dequantize(quantized).sub_(weight)) / power if power else 0.0


def _sum_of_squares(tokens: Tensor, weight: Tensor) -> float:
    """Returns the sum of squares of tokens (n, in) times a weight (out, in), the same with any number of threads."""
    return float((tokens @ weight.T).square().sum(0, dtype=torch.float64).sum())
