"""The weights of a transformer in ComfyUI's layout `awq_w4a16`, as the package comfy-kitchen defines it.

A weight is (q - 8) * scale + zero: codes in pairs, that of the even input in the low nibble, and for every group of 64
inputs a scale and a zero in fp16. Larger groups repeat theirs. What is stored beside each layer as `comfy_quant` is the
name of the layout and the size of the groups, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from ...common.progress import Progress
from ...models.base.single_file import FileTensor
from ...numerics.affine import QuantizedWeight
from ...storage.layout import COMFYUI
from ..weights.component import WeightReader, to_float

FORMAT = "awq_w4a16"
GROUP_SIZE = 64  # inputs; smaller groups stay as they are
MIDDLE_CODE = 8
ONE_FILE = 2**63  # bytes: ComfyUI reads single files


class ComfyLayers:
    """The tensors of a transformer in ComfyUI's layout, one layer in memory at a time.

    Args:
        weights: The component.
        tensors: What the file holds, by name.

    Attributes:
        max_difference: The largest difference of a weight from the artifact's so far, in steps between codes.
    """

    def __init__(self, weights: WeightReader, tensors: dict[str, FileTensor]) -> None:
        self._weights, self._tensors, self.max_difference = weights, tensors, 0.0

    def iterate(self, progress: Progress) -> Iterator[tuple[str, Tensor]]:
        """Yields names and tensors."""
        for number, (name, tensor) in enumerate(self._tensors.items(), 1):
            weight = self._weights.load_file_tensor(tensor)
            if isinstance(weight, QuantizedWeight):
                layer = name.removesuffix(".weight")
                yield from ((f"{layer}.{kind}", packed) for kind, packed in pack(weight).items())
                self.max_difference = max(self.max_difference, zero_difference(weight))
            else:
                yield name, to_float(weight)
            progress(f"writing {COMFYUI}", number, len(self._tensors))


def pack(weight: QuantizedWeight) -> dict[str, Tensor]:
    """Packs a 4-bit weight (out, in): its codes and scales exactly, the zero of each group rounded to fp16.

    Returns:
        `weight` int8 (out, in / 2), `weight_scale` and `weight_zero` float16 (groups, out), `comfy_quant` uint8.
    """
    codes, qparams = weight
    size = codes.shape[1] // qparams.scales.shape[1]
    repeats = max(1, size // GROUP_SIZE)
    pairs = codes[:, ::2] | (codes[:, 1::2] << 4)
    text = json.dumps({"format": FORMAT, "group_size": min(size, GROUP_SIZE)})
    return {
        "weight": pairs.view(torch.int8),
        "weight_scale": qparams.scales.to(torch.float16).repeat_interleave(repeats, 1).T.contiguous(),
        "weight_zero": _compute_zeros(weight).to(torch.float16).repeat_interleave(repeats, 1).T.contiguous(),
        "comfy_quant": torch.tensor(list(text.encode()), dtype=torch.uint8),
    }


def zero_difference(weight: QuantizedWeight) -> float:
    """The largest difference that rounding the zeros makes, in steps between codes."""
    zeros, scales = _compute_zeros(weight), weight.qparams.scales
    return float(((zeros.to(torch.float16).float() - zeros).abs() / scales.clamp(min=2.0**-24)).max())


def _compute_zeros(weight: QuantizedWeight) -> Tensor:
    """What the middle code stands for: (out, groups)."""
    return (MIDDLE_CODE - weight.qparams.zero_points.float()) * weight.qparams.scales
