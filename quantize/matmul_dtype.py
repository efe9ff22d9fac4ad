"""The dtype that products of large matrices are computed in on this processor."""

from __future__ import annotations

import torch

from ..common.cpu_features import read_cpu_features


def choose_matmul_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns bfloat16 for a reference in bfloat16 where the processor multiplies it by itself, and else float32.

    Other processors convert every number of a product in bfloat16 again and again, and take several times as long as in
    float32, in which the results are only nearer to the exact ones.

    Args:
        dtype: What the reference computes in.
    """
    return torch.bfloat16 if dtype is torch.bfloat16 and read_cpu_features().has_bf16_products else torch.float32
