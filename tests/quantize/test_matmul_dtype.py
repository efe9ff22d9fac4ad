"""Products are in bfloat16 only for a reference in bfloat16, on processors that multiply it."""

from __future__ import annotations

import pytest
import torch

from edgepress.common.cpu_features import CpuFeatures
from edgepress.quantize import matmul_dtype
from edgepress.quantize.matmul_dtype import choose_matmul_dtype


@pytest.mark.parametrize(
    ("flags", "dtype", "expected"),
    [
        ({"avx2", "fma"}, torch.bfloat16, torch.float32),
        ({"avx512f", "avx512_bf16"}, torch.bfloat16, torch.bfloat16),
        ({"avx512f", "avx512_bf16"}, torch.float32, torch.float32),
        ({"avx512f", "avx512_bf16"}, torch.float16, torch.float32),
    ],
)
def test_the_dtype_of_products(
    flags: set[str], dtype: torch.dtype, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul_dtype, "read_cpu_features", lambda: CpuFeatures("x86_64", frozenset(flags)))
    assert choose_matmul_dtype(dtype) is expected
