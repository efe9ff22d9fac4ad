"""The file that says what quantization scaled the inputs and outputs of linears by, for the LoRAs beside them.

It is no weight file: other programs that read the component do not see it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..storage.checkpoint import open_safetensors, write_tensors
from ..storage.layout import LORA_SCALES

SCALE_NAMES = INPUT_SCALE, OUTPUT_SCALE = "lora_input_scale", "lora_output_scale"  # last part of a tensor's name


class LoraScales(NamedTuple):
    """What a LoRA beside a linear multiplies its input and its output by.

    Attributes:
        input: (in,) or a single value, float32; None: by nothing.
        output: (out,) or a single value, float32; None: by nothing.
    """

    input: Tensor | None
    output: Tensor | None


def write_lora_scales(tensors: dict[str, Tensor], component: Path) -> None:
    """Writes the scales of a component's linears into its folder, unless there are none.

    Args:
        tensors: By the linear's path and INPUT_SCALE or OUTPUT_SCALE.
        component: The component's folder.
    """
    if tensors:
        file = component / LORA_SCALES
        file.parent.mkdir(exist_ok=True)
        write_tensors(tensors, file)


def read_scale_tensors(component: Path, prefix: str = "") -> dict[str, Tensor]:
    """Reads the tensors of the file in a component's folder whose names begin so; none where there is no file."""
    file = component / LORA_SCALES
    if not file.is_file():
        return {}
    with open_safetensors(file) as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys() if name.startswith(prefix)}  # noqa: SIM118


def read_lora_scales(component: Path, linears: Iterable[str]) -> dict[str, LoraScales]:
    """Reads the scales of linears from a component's folder, by linear; none where there is no such file."""
    tensors = read_scale_tensors(component)
    scales = {
        linear: LoraScales(tensors.get(f"{linear}.{INPUT_SCALE}"), tensors.get(f"{linear}.{OUTPUT_SCALE}"))
        for linear in linears
    }
    return {linear: scale for linear, scale in scales.items() if any(tensor is not None for tensor in scale)}
