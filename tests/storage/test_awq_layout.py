"""The `quantization_config` of weights in AWQ's layout against their headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.awq_layout import require_awq_layout
from edgepress.storage.safetensors_header import TensorHeader

WIDTHS = {"model.layers.0.mlp.up_proj": 256, "model.layers.0.mlp.down_proj": 96}  # 96 takes groups of 32
SETTINGS: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}


def make_headers(groups: dict[str, int]) -> list[TensorHeader]:
    headers = []
    for layer, width in WIDTHS.items():
        headers += [
            TensorHeader(f"{layer}.qweight", "I32", (width, 8), 4 * width * 8, 0),
            TensorHeader(f"{layer}.scales", "F16", (groups[layer], 64), 2 * groups[layer] * 64, 0),
        ]
    return [*headers, TensorHeader("model.norm.weight", "BF16", (64,), 128, 0)]


def check(settings: dict[str, Any], *groups: int) -> None:
    require_awq_layout(Path("encoder"), make_headers(dict(zip(WIDTHS, groups, strict=True))), SETTINGS | settings)


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ({"extra_config": {"mlp.up_proj": {"bits": 8, "group_size": -1}}}, (1, 3)),
        ({}, (2, 3)),
        ({"group_size": 32}, (8, 3)),
        ({"version": "GEMM"}, (2, 3)),
        ({"extra_config": {"layers.0.mlp.up_proj": {"bits": 4, "group_size": 64}}}, (4, 3)),
    ],
)
def test_what_describes_the_weights_passes(settings: dict[str, Any], groups: tuple[int, int]) -> None:
    """Names of modules may lack a prefix that the file's names have."""
    check(settings, *groups)


@pytest.mark.parametrize(
    ("settings", "groups", "problem"),
    [
        ({"bits": 8}, (2, 3), "unsupported AWQ format: 8 bits, version 'gemm'"),
        ({"bits": "4"}, (2, 3), "unsupported AWQ format: 4 bits"),
        ({"version": "gemv"}, (2, 3), "unsupported AWQ format: 4 bits, version 'gemv'"),
        ({"group_size": 64}, (2, 3), r"'model\.layers\.0\.mlp\.up_proj' has 2 scales for 256 inputs, .* groups of 64"),
        ({"group_size": -1}, (1, 1), "has 1 scales for 256 inputs, which are no groups of -1"),
        ({"group_size": "128"}, (2, 3), "its group_size is no whole number for 'model"),
        ({}, (2, 1), "down_proj' has 1 scales for 96 inputs"),
    ],
)
def test_what_describes_other_weights_is_refused(
    settings: dict[str, Any], groups: tuple[int, int], problem: str
) -> None:
    with pytest.raises(UserError, match=rf"^encoder/config\.json has a quantization_config .*: .*{problem}.* Download"):
        check(settings, *groups)
