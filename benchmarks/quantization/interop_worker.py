"""Opens a pressed text encoder with stock transformers; run by `interop.py` in an environment without edgepress.

    python stock.py FOLDER OUTPUT.safetensors

Writes what the AWQ backend itself unpacks of every linear (codes, zeros, and the weight in float16), and the second
last hidden states of some tokens.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, AwqConfig

TOKEN_IDS = range(5, 37)
# The backend without compiled code: the default one compiles C++ for minutes at its first use.
BACKEND = "torch_awq"


def load_model(folder: str) -> Any:
    """The model in float16; every key of the file must have found its place, and only unread blocks may lack theirs."""
    config = AwqConfig(backend=BACKEND)  # type: ignore[no-untyped-call, unused-ignore]
    model, loading_info = AutoModel.from_pretrained(
        folder, dtype=torch.float16, quantization_config=config, output_loading_info=True
    )
    unused = json.loads((Path(folder) / "config.json").read_text("utf-8"))["quantization_config"].get("unread", [])
    loading_info["missing_keys"] = [
        key for key in loading_info["missing_keys"] if not key.startswith(tuple(f"{x}." for x in unused))
    ]
    if any(loading_info.values()):
        raise SystemExit(f"keys that do not fit: {loading_info}")
    return model


def unpack_linears(model: Any) -> dict[str, Tensor]:
    """For every packed linear, (in, out) as the backend has them: codes, zeros, weight."""
    packing = importlib.import_module("gptqmodel.quantization.awq.utils.packing_utils")
    tensors = {}
    for name, module in model.named_modules():
        if hasattr(module, "qweight"):
            raw = packing.unpack_awq(module.qweight, module.qzeros, module.bits)
            codes, zeros = (values & 15 for values in packing.reverse_awq_order(*raw, module.bits))
            tensors[f"codes.{name}"], tensors[f"zeros.{name}"] = codes.to(torch.uint8), zeros.to(torch.uint8)
            weight = packing.dequantize_gemm(
                module.qweight, module.qzeros, module.scales, module.bits, module.group_size
            )
            tensors[f"weight.{name}"] = weight
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def main(folder: str, output: str) -> None:
    model = load_model(folder)
    tensors = unpack_linears(model)
    with torch.no_grad():
        states = model(torch.tensor([list(TOKEN_IDS)]), output_hidden_states=True).hidden_states
    save_file(tensors | {"hidden": states[-2].contiguous()}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
