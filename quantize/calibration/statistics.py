"""Statistics of a linear's input, and what a weight error costs under them.

The mean squared output error of a candidate Q for W is tr[(W - Q) H (W - Q)^T], with H the mean of x x^T over inputs x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from torch import Tensor

ACTIVATION_TOKENS = 256  # kept of an input, to measure what rounding activations costs
# Tokens added to H at once: a short inner dimension is summed in the same order by any number of threads.
CHUNK_TOKENS = 256
VALIDATION_TOKENS = 1024  # kept of an input, of prompts that are not solved on
POWER_FLOOR = 1e-3  # of the mean power of a call's tokens, below which a token's power does not count as smaller
HESSIAN_SUFFIX = "/hessian"  # of the stored names of H matrices
BLOCK_ROWS = 1024  # rows of H computed at once; what is left of the diagonal is mirrored


@dataclass
class WeightedMean:
    """The mean of tokens with the weights that `normalize_tokens` gives their squares.

    Attributes:
        weighted_sum: (in,) float64.
        sum_of_weights: () float64.
    """

    weighted_sum: Tensor
    sum_of_weights: Tensor

    @classmethod
    def empty(cls, width: int, device: torch.device | None = None) -> WeightedMean:
        """Returns the mean of no token of a width, on a device; by default the processor."""
        sums = torch.zeros(width, dtype=torch.float64, device=device)
        return cls(sums, sums.new_zeros(()))

    def add(self, x: Tensor, floor: float) -> None:
        """Adds tokens (n, in) with the floor of their call."""
        for chunk in x.split(CHUNK_TOKENS) if len(x) else ():
            weights = token_scales(chunk.float(), floor).square_().double()
            self.weighted_sum += (chunk.double() * weights).sum(0)
            self.sum_of_weights += weights.sum()

    def value(self) -> Tensor:
        """Returns the mean, (in,) float32."""
        return (self.weighted_sum / self.sum_of_weights.clamp(min=torch.finfo(torch.float64).tiny)).float()


@dataclass
class ActivationStats:
    """Sums over the tokens that one input has seen. All tensors are float32 except `tokens`.

    Attributes:
        count: Number of tokens.
        abs_sum: Sum of |x|, (in,).
        abs_max: Largest |x|, (in,).
        hessian: Sum of x x^T, (in, in); None where samples on disk stand for it.
        tokens: A sample, (n, in), or None.
        validation: A sample of prompts whose tokens are in nothing else, (n, in), or None.
        mean: The mean of the tokens that are in H, weighted as they are in it.
    """

    count: int
    abs_sum: Tensor
    abs_max: Tensor
    hessian: Tensor | None
    tokens: Tensor | None = None
    validation: Tensor | None = None
    mean: WeightedMean = field(default_factory=lambda: WeightedMean.empty(0))

    @classmethod
    def empty(cls, width: int, hessian: Tensor | None, device: torch.device | None = None) -> ActivationStats:
        """Returns statistics of no token.

        Args:
            width: Channels of the input.
            hessian: Zeros, (in, in) float32, that H is summed up in; None where samples on disk stand for it.
            device: Where tokens are; default: the processor.
        """
        zeros = torch.zeros(width, device=device)
        return cls(0, zeros, zeros.clone(), hessian, mean=WeightedMean.empty(width, device))

    def add(self, x: Tensor, normalized: bool = False) -> None:
        """Adds tokens (n, in) to the sums.

        Args:
            normalized: Add them to H as `normalize_tokens` returns them.
        """
        self.count += len(x)
        floor = compute_power_floor(x) if normalized else 0.0
        if normalized and self.hessian is not None:
            self.mean.add(x, floor)
        for chunk in x.split(CHUNK_TOKENS) if len(x) else ():
            chunk = chunk.float()
            magnitude = chunk.abs()
            self.abs_sum += magnitude.sum(0)
            self.abs_max = torch.maximum(self.abs_max, magnitude.amax(0))
            if self.hessian is not None:
                chunk = normalize_tokens(chunk, floor) if normalized else chunk
                self.hessian.addmm_(chunk.T, chunk)

    def keep_tokens(self, x: Tensor) -> None:
        """Appends tokens (n, in) to the sample."""
        self.tokens = x.clone() if self.tokens is None else torch.cat([self.tokens, x])

    def keep_validation(self, x: Tensor) -> None:
        """Appends tokens (n, in) to the sample for validation."""
        self.validation = x.clone() if self.validation is None else torch.cat([self.validation, x])

    def mean_abs(self) -> Tensor:
        """Returns mean |x| of each channel, (in,)."""
        return self.abs_sum / self.count

    def is_finite(self) -> bool:
        """Returns whether all sums are finite. No entry of H exceeds the square of the largest sum of |x|."""
        return bool(torch.isfinite(self.abs_sum.square()).all())

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """Returns the tensors to store, their names beginning with the input's name."""
        tensors = {
            f"{name}/count": torch.tensor(self.count),
            f"{name}/abs_sum": self.abs_sum,
            f"{name}/abs_max": self.abs_max,
        }
        optional = {
            f"{name}{HESSIAN_SUFFIX}": self.hessian,
            f"{name}/tokens": self.tokens,
            f"{name}/validation": self.validation,
            f"{name}/weighted_sum": self.mean.weighted_sum,
            f"{name}/sum_of_weights": self.mean.sum_of_weights,
        }
        return tensors | {key: tensor for key, tensor in optional.items() if tensor is not None}

    @classmethod
    def from_state_dict(cls, name: str, tensors: dict[str, Tensor]) -> ActivationStats:
        """Restores what `state_dict` returned."""
        return cls(
            int(tensors[f"{name}/count"]),
            tensors[f"{name}/abs_sum"],
            tensors[f"{name}/abs_max"],
            tensors.get(f"{name}{HESSIAN_SUFFIX}"),
            tensors.get(f"{name}/tokens"),
            tensors.get(f"{name}/validation"),
            WeightedMean(tensors[f"{name}/weighted_sum"], tensors[f"{name}/sum_of_weights"]),
        )


def map_matrix(folder: Path, rows: int, columns: int) -> Tensor:
    """Returns zeros (rows, columns) float32 in a file, which the system moves to and from memory as it sees fit.

    The file has no name, so that nothing is left of it when the process ends.
    """
    with NamedTemporaryFile(dir=folder) as file:
        return torch.from_file(file.name, shared=True, size=rows * columns).view(rows, columns)


def compute_power_floor(tokens: Tensor) -> float:
    """Returns the least power by which `normalize_tokens` divides tokens (n, in) of one call."""
    return POWER_FLOOR * float(tokens.float().square().mean(1).mean()) if len(tokens) else 0.0


def normalize_tokens(tokens: Tensor, floor: float, mean: Tensor | None = None) -> Tensor:
    """Divides tokens (n, in) by the fourth root of their mean square plus a floor: large ones then count less in H.

    Transformers normalize what their layers return, so that an error counts by its share of a token, while in a sum of
    squares few tokens with large activations decide. Other networks do not. Halfway between is good for both: see
    docs/decisions.md.

    Args:
        tokens: The tokens.
        floor: What `compute_power_floor` returned for their call.
        mean: What is subtracted from tokens before, (in,). They are divided as without it.

    Returns:
        (n, in) float32
    """
    tokens = tokens.float()
    return (tokens if mean is None else tokens - mean) * token_scales(tokens, floor)


def token_scales(tokens: Tensor, floor: float) -> Tensor:
    """Returns what `normalize_tokens` multiplies tokens (n, in) float32 by, (n, 1)."""
    power = tokens.square().mean(1, keepdim=True).add_(floor)
    return power.clamp_(min=torch.finfo(torch.float32).tiny).pow_(-0.25)


def compute_hessian(tokens: Tensor) -> Tensor:
    """Returns H, the mean of x x^T over tokens (n, in): (in, in) float32. Half of it is computed, half mirrored."""
    x = tokens.float()
    hessian = x.new_empty(x.shape[1], x.shape[1])
    for start in range(0, x.shape[1], BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        torch.div(x[:, start:stop].T @ x[:, start:], len(x), out=hessian[start:stop, start:])
        hessian[stop:, start:stop] = hessian[start:stop, stop:].T
    return hessian


def output_errors(error: Tensor, hessian: Tensor) -> Tensor:
    """Returns the mean squared output error of each output, diag(E H E^T).

    Args:
        error: E, the weight's error, (out, in) float32.
        hessian: H, (in, in). Matrix products are computed in its dtype, float32 or bfloat16.

    Returns:
        (out,) float64.
    """
    channels = error.T  # (in, out)
    factors = channels.to(hessian.dtype)
    errors = channels.new_zeros(channels.shape[1], dtype=torch.float64)
    for start in range(0, len(channels), BLOCK_ROWS):
        span = slice(start, start + BLOCK_ROWS)
        product = (hessian[span, span] @ factors[span]).float()
        if start:  # H is symmetric: what is left of the diagonal counts twice instead of being multiplied twice
            product.add_((hessian[span, :start] @ factors[:start]).float(), alpha=2)
        errors += product.mul_(channels[span]).sum(0, dtype=torch.float64)
    return errors
