"""Input statistics of a linear layer: what its quantization error must be weighed by.

The error of a candidate Q for W is tr[(W - Q) H (W - Q)^T] with H the mean of x x^T over the inputs x. Narrow inputs
keep H itself; for wide ones, where H would take hundreds of MB, a fixed random sample of tokens stands for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

WIDEST_GRAM = 2048  # a float32 Gram matrix of 16 MB
SAMPLE_TOKENS = 1024


@dataclass
class Statistics:
    """Sums over the tokens seen by one input.

    count: tokens seen. magnitude: sum of |x|, (in,). gram: sum of x x^T, (in, in), or None; then tokens (n, in) and
    their priorities (n,) are a uniform sample of all tokens seen. All float32, except priorities float64.
    """

    name: str
    count: int
    magnitude: Tensor
    gram: Tensor | None
    tokens: Tensor
    priorities: Tensor

    @classmethod
    def empty(cls, name: str, width: int) -> Statistics:
        gram = torch.zeros(width, width) if width <= WIDEST_GRAM else None
        return cls(name, 0, torch.zeros(width), gram, torch.empty(0, width), torch.empty(0, dtype=torch.float64))

    def add(self, x: Tensor, batch: int) -> None:
        """Adds tokens (n, in). `batch` numbers the call, so that the sample does not depend on where a run was cut."""
        x = x.float()
        self.count += len(x)
        self.magnitude += x.abs().sum(0)
        if self.gram is not None:
            self.gram.addmm_(x.T, x)
        else:
            self._keep_some(x, batch)

    def mean_magnitude(self) -> Tensor:
        """Mean |x| of each input channel, (in,)."""
        return self.magnitude / self.count

    def mean_gram(self) -> Tensor:
        """H, the mean of x x^T, (in, in)."""
        if self.gram is not None:
            return self.gram / self.count
        return self.tokens.T @ self.tokens / len(self.tokens)

    def _keep_some(self, x: Tensor, batch: int) -> None:
        """Each token draws a number; those with the smallest stay. The order of batches does not matter."""
        digest = hashlib.sha256(f"{self.name}:{batch}:{self.count}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        drawn = torch.rand(len(x), generator=generator, dtype=torch.float64)
        priorities = torch.cat([self.priorities, drawn])
        chosen = priorities.argsort()[:SAMPLE_TOKENS]
        self.tokens = torch.cat([self.tokens, x])[chosen]
        self.priorities = priorities[chosen]

    def tensors(self) -> dict[str, Tensor]:
        """What must be stored, under this input's name."""
        held = {"magnitude": self.magnitude, "tokens": self.tokens, "priorities": self.priorities}
        if self.gram is not None:
            held["gram"] = self.gram
        return {f"{self.name}/{key}": tensor for key, tensor in held.items()} | {
            f"{self.name}/count": torch.tensor(self.count)
        }

    @classmethod
    def restore(cls, name: str, stored: dict[str, Tensor]) -> Statistics:
        """The inverse of `tensors`."""
        gram = stored.get(f"{name}/gram")
        count = int(stored[f"{name}/count"])
        rest = (stored[f"{name}/{key}"] for key in ("magnitude", "tokens", "priorities"))
        magnitude, tokens, priorities = rest
        return cls(name, count, magnitude, gram, tokens, priorities)


def relative_error(error: Tensor, weight: Tensor, gram: Tensor) -> float:
    """The mean squared norm of E x over that of W x; 0 where there is no output to lose."""
    power = output_error(weight, gram)
    return output_error(error, gram) / power if power else 0.0


def output_error(error: Tensor, gram: Tensor) -> float:
    """tr(E H E^T): the mean squared norm of E x, for E (out, in) and H (in, in)."""
    return float(((error @ gram) * error).sum(dtype=torch.float64))
