"""Unpacks a component in AWQ's layout with AutoAWQ. `__main__.py` runs this in an environment of its own.

    python autoawq_worker.py COMPONENT OUTPUT.safetensors

AutoAWQ needs transformers 4 and has no reader for components of pipelines, so its functions for tensors are called.
Writes the weight of every layer, float16 (out, in), and its codes and zero points, uint8 (in, out) and (groups, out).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from awq.utils.packing_utils import dequantize_gemm, reverse_awq_order, unpack_awq
from safetensors.torch import load_file, save_file
from torch import Tensor

BITS = 4


def main(component: str, output: str) -> None:
    stored: dict[str, Tensor] = {}
    for file in sorted(Path(component).glob("*.safetensors")):
        stored |= load_file(file)
    tensors = {}
    for name in (name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")):
        qweight, qzeros, scales = (stored[f"{name}.{kind}"] for kind in ("qweight", "qzeros", "scales"))
        codes, zeros = reverse_awq_order(*unpack_awq(qweight, qzeros, BITS), BITS)
        weight = dequantize_gemm(qweight, qzeros, scales, BITS, qweight.shape[0] // scales.shape[0])
        tensors[f"weight.{name}"] = weight.T
        tensors[f"codes.{name}"] = (codes & 15).to(torch.uint8)
        tensors[f"zeros.{name}"] = (zeros & 15).to(torch.uint8)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
