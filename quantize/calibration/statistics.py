"""Input statistics of a linear layer: what its quantization error must be weighed by.

The error of a candidate Q for W is tr[(W - Q) H (W - Q)^T] with H the mean of x x^T over the inputs x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ACTIVATION_TOKENS = 256  # that show what rounding activations costs
CHUNK_TOKENS = (
    256  # tokens added to a Gram matrix at once: a short inner dimension is summed in one order by any thread count
)
BLOCK_ROWS = 1024  # rows of a Gram matrix made at once; what lies left of the diagonal is mirrored


@dataclass
class ActivationStats:
    """Sums over the tokens seen by one input.

    count: tokens seen. magnitude: sum of |x|, (in,). largest: largest |x|, (in,). gram: sum of x x^T, (in, in), or None
    where samples on disk stand for it. tokens: some of them, (n, in), or None. All float32 but the tokens.
    """

    count: int
    abs_sum: Tensor
    abs_max: Tensor
    hessian: Tensor | None
    tokens: Tensor | None = None

    @classmethod
    def empty(cls, width: int, gram: bool) -> ActivationStats:
        return cls(0, torch.zeros(width), torch.zeros(width), torch.zeros(width, width) if gram else None)

    def add(self, x: Tensor) -> None:
        """Adds tokens (n, in)."""
        self.count += len(x)
        for part in x.split(CHUNK_TOKENS):
            part = part.float()
            size = part.abs()
            self.abs_sum += size.sum(0)
            self.abs_max = torch.maximum(self.abs_max, size.amax(0))
            if self.hessian is not None:
                self.hessian.addmm_(part.T, part)

    def keep_tokens(self, x: Tensor) -> None:
        """Keeps tokens (n, in) as they are."""
        self.tokens = x.clone() if self.tokens is None else torch.cat([self.tokens, x])

    def mean_abs(self) -> Tensor:
        """Mean |x| of each input channel, (in,)."""
        return self.abs_sum / self.count

    def is_finite(self) -> bool:
        """Whether all sums are; no entry of H can pass the square of the largest magnitude."""
        return bool(torch.isfinite(self.abs_sum.square()).all())

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """What must be stored, under this input's name."""
        held = {f"{name}/count": torch.tensor(self.count)}
        held |= {f"{name}/magnitude": self.abs_sum, f"{name}/largest": self.abs_max}
        optional = {f"{name}/gram": self.hessian, f"{name}/tokens": self.tokens}
        return held | {key: tensor for key, tensor in optional.items() if tensor is not None}

    @classmethod
    def from_state_dict(cls, name: str, stored: dict[str, Tensor]) -> ActivationStats:
        """The inverse of `tensors`."""
        magnitude, largest = stored[f"{name}/magnitude"], stored[f"{name}/largest"]
        optional = stored.get(f"{name}/gram"), stored.get(f"{name}/tokens")
        return cls(int(stored[f"{name}/count"]), magnitude, largest, *optional)


def compute_hessian(tokens: Tensor) -> Tensor:
    """H, the mean of x x^T over tokens (n, in): (in, in) float32. Half of it is computed and mirrored."""
    x = tokens.float()
    gram = torch.empty(x.shape[1], x.shape[1])
    for start in range(0, x.shape[1], BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        gram[start:stop, start:] = x[:, start:stop].T @ x[:, start:] / len(x)
        gram[stop:, start:stop] = gram[start:stop, stop:].T
    return gram


def output_errors(error: Tensor, hessian: Tensor) -> Tensor:
    """For each output o the mean squared (E x)_o: diag(E^T H E), (out,) float64, for E (in, out) and H (in, in).

    H may be bfloat16; products are then made in it. What lies left of the diagonal is not multiplied but doubled.
    """
    found = torch.zeros(error.shape[1], dtype=torch.float64)
    for start in range(0, len(error), BLOCK_ROWS):
        rows, above = error[start : start + BLOCK_ROWS], error[:start]
        own = hessian[start : start + BLOCK_ROWS, start : start + BLOCK_ROWS] @ rows.to(hessian.dtype)
        if start:
            own = own.float() + 2 * (hessian[start : start + BLOCK_ROWS, :start] @ above.to(hessian.dtype)).float()
        found += (own.float() * rows).sum(0, dtype=torch.float64)
    return found
