"""The dtype that products of large matrices are computed in."""

from __future__ import annotations

import torch

from ..common.cpu_features import read_cpu_features
from .compute_device import CPU

BF16_CAPABILITY = (8, 0)  # of the first GPUs of NVIDIA that multiply bfloat16


def choose_matmul_dtype(dtype: torch.dtype, device: torch.device = CPU) -> torch.dtype:
    """Returns bfloat16 for a reference in bfloat16 where the device multiplies it by itself, and else float32.

    Others convert every number of a product in bfloat16 again and again, and take several times as long as in
    float32, in which the results are only nearer to the exact ones.

    Args:
        dtype: What the reference computes in.
        device: Where it does.
    """
    if dtype is not torch.bfloat16:
        return torch.float32
    if device.type == "cpu":
        has_products = read_cpu_features().has_bf16_products
    else:
        has_products = torch.get_device_module(device).get_device_capability(device) >= BF16_CAPABILITY
    return torch.bfloat16 if has_products else torch.float32
