"""Weights as ComfyUI stores them in quantized files: dequantized, so that such a file can be judged in diffusers.

Older files multiply float8 by a scale: `<layer>.scale_weight` beside `<layer>.weight`. Newer ones name a layout in
`<layer>.comfy_quant`, JSON in bytes: `float8_e4m3fn` and `float8_e5m2` with `<layer>.weight_scale`, and `awq_w4a16`,
which `edgepress export comfyui` writes: (code - 8) * scale + zero, pairs of codes in a byte, the even input in the low
nibble, a scale and a zero for each group of inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import UserError
from ..storage.safetensors_header import TensorHeader

if TYPE_CHECKING:
    from torch import Tensor

LAYOUT_SUFFIX, OLD_SCALE = ".comfy_quant", ".scale_weight"
SCALED, AWQ = "scaled float8", "awq_w4a16"
LAYOUTS = {"float8_e4m3fn": SCALED, "float8_e5m2": SCALED, AWQ: AWQ}
MARKERS = ("scaled_fp8",)  # tensors of no layer
EXTRAS = (LAYOUT_SUFFIX, OLD_SCALE, ".scale_input", ".input_scale", ".weight_scale", ".weight_zero")
MIDDLE_CODE = 8


def find_comfy_layouts(headers: list[TensorHeader]) -> bool:
    """Whether a file holds quantized weights as ComfyUI stores them."""
    return any(header.name.endswith((LAYOUT_SUFFIX, OLD_SCALE)) for header in headers)


def list_comfy_tensors(file: Path, headers: list[TensorHeader]) -> dict[str, TensorHeader]:
    """The tensors of such a file as they are after dequantizing, by name.

    Args:
        file: The file.
        headers: Its tensors.

    Raises:
        UserError: A layer has a layout that is not read.
    """
    layouts = _read_layouts(file, headers)
    tensors = {}
    for header in headers:
        if header.name in MARKERS or header.name.endswith(EXTRAS):
            continue
        shape = header.shape
        if layouts.get(header.name.removesuffix(".weight")) == AWQ:
            shape = (*shape[:-1], 2 * shape[-1])
        tensors[header.name] = TensorHeader(header.name, "F32" if shape != header.shape else header.dtype, shape, 0)
    return tensors


def dequantize_comfy(file: Path) -> dict[str, Tensor]:
    """All tensors of such a file, in float32 where they are quantized.

    Raises:
        UserError: A layer has a layout that is not read, or lacks its scale.
    """
    from safetensors.torch import load_file

    from ..storage.safetensors_header import read_tensor_headers

    stored = load_file(file)
    layouts = _read_layouts(file, read_tensor_headers(file))
    tensors = {}
    for name, tensor in stored.items():
        if name in MARKERS or name.endswith(EXTRAS):
            continue
        layer = name.removesuffix(".weight")
        layout = layouts.get(layer, SCALED if f"{layer}{OLD_SCALE}" in stored else None)
        if layout is not None and name.endswith(".weight"):
            try:
                tensor = _dequantize_awq(stored, layer) if layout == AWQ else _scale(stored, layer)
            except KeyError as error:
                raise UserError(f"{file} lacks the tensor {error} of a quantized layer. Download it again.") from error
        tensors[name] = tensor
    return tensors


def _read_layouts(file: Path, headers: list[TensorHeader]) -> dict[str, str]:
    """The kind of each layer's layout, of the layers that name one."""
    from safetensors import safe_open

    layouts = {}
    with safe_open(file, framework="pt") as stored:
        for name in (header.name for header in headers if header.name.endswith(LAYOUT_SUFFIX)):
            try:
                form = json.loads(bytes(stored.get_tensor(name).tolist()))["format"]
            except (ValueError, LookupError, TypeError) as error:
                raise UserError(f"{file} does not say the layout of {name!r}. Download it again.") from error
            if form not in LAYOUTS:
                raise UserError(
                    f"{file} has weights in ComfyUI's layout {form!r}, which is not read here. Give a file in "
                    f"{', '.join(LAYOUTS)}, floating point or GGUF."
                )
            layouts[name.removesuffix(LAYOUT_SUFFIX)] = LAYOUTS[form]
    return layouts


def _scale(stored: Mapping[str, Tensor], layer: str) -> Tensor:
    """A weight in float8 times its scale, which is one number or one for each output."""
    name = f"{layer}{OLD_SCALE}" if f"{layer}{OLD_SCALE}" in stored else f"{layer}.weight_scale"
    weight, scale = stored[f"{layer}.weight"].float(), stored[name].float()
    return weight * (scale.reshape(-1, *[1] * (weight.ndim - 1)) if scale.numel() > 1 else scale)


def _dequantize_awq(stored: Mapping[str, Tensor], layer: str) -> Tensor:
    """A weight (out, in) of bytes (out, in / 2), scales and zeros (groups, out)."""
    import torch

    packed = stored[f"{layer}.weight"].view(torch.uint8)
    codes = torch.stack([packed & 15, packed >> 4], -1).reshape(packed.shape[0], -1).float()
    scale, zero = (stored[f"{layer}.{kind}"].float().T for kind in ("weight_scale", "weight_zero"))
    size = codes.shape[1] // scale.shape[1]
    scale, zero = (values.repeat_interleave(size, 1) for values in (scale, zero))
    return (codes - MIDDLE_CODE) * scale + zero
