"""Input statistics of a linear layer: what its quantization error must be weighed by.

The error of a candidate Q for W is tr[(W - Q) H (W - Q)^T] with H the mean of x x^T over the inputs x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 256  # tokens added to a Gram matrix at once: a short inner dimension is summed in one order by any thread count
PANEL = 1024  # rows of a Gram matrix made at once; what lies left of the diagonal is mirrored


@dataclass
class Statistics:
    """Sums over the tokens seen by one input.

    count: tokens seen. magnitude: sum of |x|, (in,). gram: sum of x x^T, (in, in), or None where samples on disk stand
    for it. All float32.
    """

    count: int
    magnitude: Tensor
    gram: Tensor | None

    @classmethod
    def empty(cls, width: int, gram: bool) -> Statistics:
        return cls(0, torch.zeros(width), torch.zeros(width, width) if gram else None)

    def add(self, x: Tensor) -> None:
        """Adds tokens (n, in)."""
        self.count += len(x)
        for part in x.split(CHUNK):
            part = part.float()
            self.magnitude += part.abs().sum(0)
            if self.gram is not None:
                self.gram.addmm_(part.T, part)

    def mean_magnitude(self) -> Tensor:
        """Mean |x| of each input channel, (in,)."""
        return self.magnitude / self.count

    def finite(self) -> bool:
        """Whether all sums are; no entry of H can pass the square of the largest magnitude."""
        return bool(torch.isfinite(self.magnitude.square()).all())

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What must be stored, under this input's name."""
        held = {f"{name}/count": torch.tensor(self.count), f"{name}/magnitude": self.magnitude}
        return held if self.gram is None else held | {f"{name}/gram": self.gram}

    @classmethod
    def restore(cls, name: str, stored: dict[str, Tensor]) -> Statistics:
        """The inverse of `tensors`."""
        return cls(int(stored[f"{name}/count"]), stored[f"{name}/magnitude"], stored.get(f"{name}/gram"))


def gram_of(tokens: Tensor) -> Tensor:
    """H, the mean of x x^T over tokens (n, in): (in, in) float32. Half of it is computed and mirrored."""
    x = tokens.float()
    gram = torch.empty(x.shape[1], x.shape[1])
    for start in range(0, x.shape[1], PANEL):
        stop = start + PANEL
        gram[start:stop, start:] = x[:, start:stop].T @ x[:, start:] / len(x)
        gram[stop:, start:stop] = gram[start:stop, stop:].T
    return gram


def output_errors(error: Tensor, gram: Tensor) -> Tensor:
    """For each output o the mean squared (E x)_o: diag(E^T H E), (out,) float64, for E (in, out) and H (in, in).

    H may be bfloat16; products are then made in it. What lies left of the diagonal is not multiplied but doubled.
    """
    found = torch.zeros(error.shape[1], dtype=torch.float64)
    for start in range(0, len(error), PANEL):
        rows, above = error[start : start + PANEL], error[:start]
        own = gram[start : start + PANEL, start : start + PANEL] @ rows.to(gram.dtype)
        if start:
            own = own.float() + 2 * (gram[start : start + PANEL, :start] @ above.to(gram.dtype)).float()
        found += (own.float() * rows).sum(0, dtype=torch.float64)
    return found
