"""Input statistics of a linear layer: what its quantization error must be weighed by.

The error of a candidate Q for W is tr[(W - Q) H (W - Q)^T] with H the mean of x x^T over the inputs x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOKENS = 256  # that show what rounding activations costs
CHUNK = 256  # tokens added to a Gram matrix at once: a short inner dimension is summed in one order by any thread count
PANEL = 1024  # rows of a Gram matrix made at once; what lies left of the diagonal is mirrored


@dataclass
class Statistics:
    """Sums over the tokens seen by one input.

    count: tokens seen. magnitude: sum of |x|, (in,). largest: largest |x|, (in,). gram: sum of x x^T, (in, in), or None
    where samples on disk stand for it. tokens: some of them, (n, in), or None. All float32 but the tokens.
    """

    count: int
    magnitude: Tensor
    largest: Tensor
    gram: Tensor | None
    tokens: Tensor | None = None

    @classmethod
    def empty(cls, width: int, gram: bool) -> Statistics:
        return cls(0, torch.zeros(width), torch.zeros(width), torch.zeros(width, width) if gram else None)

    def add(self, x: Tensor) -> None:
        """Adds tokens (n, in)."""
        self.count += len(x)
        for part in x.split(CHUNK):
            part = part.float()
            size = part.abs()
            self.magnitude += size.sum(0)
            self.largest = torch.maximum(self.largest, size.amax(0))
            if self.gram is not None:
                self.gram.addmm_(part.T, part)

    def keep(self, x: Tensor) -> None:
        """Keeps tokens (n, in) as they are."""
        self.tokens = x.clone() if self.tokens is None else torch.cat([self.tokens, x])

    def mean_magnitude(self) -> Tensor:
        """Mean |x| of each input channel, (in,)."""
        return self.magnitude / self.count

    def finite(self) -> bool:
        """Whether all sums are; no entry of H can pass the square of the largest magnitude."""
        return bool(torch.isfinite(self.magnitude.square()).all())

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What must be stored, under this input's name."""
        held = {f"{name}/count": torch.tensor(self.count)}
        held |= {f"{name}/magnitude": self.magnitude, f"{name}/largest": self.largest}
        optional = {f"{name}/gram": self.gram, f"{name}/tokens": self.tokens}
        return held | {key: tensor for key, tensor in optional.items() if tensor is not None}

    @classmethod
    def restore(cls, name: str, stored: dict[str, Tensor]) -> Statistics:
        """The inverse of `tensors`."""
        magnitude, largest = stored[f"{name}/magnitude"], stored[f"{name}/largest"]
        optional = stored.get(f"{name}/gram"), stored.get(f"{name}/tokens")
        return cls(int(stored[f"{name}/count"]), magnitude, largest, *optional)


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
