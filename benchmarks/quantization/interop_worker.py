"""Opens a quantized text encoder with stock transformers. `interop.py` runs this in an environment without edgepress.

    python interop_worker.py FOLDER OUTPUT.safetensors

Writes what the AWQ backend itself unpacks from every linear layer (codes, zero points, and the weight in float16), and
the second-to-last hidden states for some tokens.
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
# A backend without compiled code: the default one compiles C++ for minutes when it is first used.
BACKEND = "torch_awq"


def load_model(folder: str) -> Any:
    """Loads the model in float16.

    Raises:
        SystemExit: A key of the file has no place in the model, or a parameter outside unused blocks has no key.
    """
    model, loading_info = AutoModel.from_pretrained(
        folder,
        dtype=torch.float16,
        quantization_config=AwqConfig(backend=BACKEND),  # type: ignore[no-untyped-call, unused-ignore]
        output_loading_info=True,
    )
    config = json.loads((Path(folder) / "config.json").read_text("utf-8"))["quantization_config"]
    unused = tuple(f"{block}." for block in config.get("unused_blocks", []))
    loading_info["missing_keys"] = [key for key in loading_info["missing_keys"] if not key.startswith(unused)]
    if any(loading_info.values()):
        raise SystemExit(f"Some keys of {folder} do not match the model: {loading_info}")
    return model


def unpack_linears(model: Any) -> dict[str, Tensor]:
    """Returns codes, zero points and weight of every quantized linear layer, each (in, out) as in the backend."""
    packing = importlib.import_module("gptqmodel.quantization.awq.utils.packing_utils")
    tensors = {}
    for name, module in model.named_modules():
        if hasattr(module, "qweight"):
            raw = packing.unpack_awq(module.qweight, module.qzeros, module.bits)
            codes, zeros = (values & 15 for values in packing.reverse_awq_order(*raw, module.bits))
            tensors[f"codes.{name}"], tensors[f"zeros.{name}"] = codes.to(torch.uint8), zeros.to(torch.uint8)
            tensors[f"weight.{name}"] = packing.dequantize_gemm(
                module.qweight, module.qzeros, module.scales, module.bits, module.group_size
            )
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def main(folder: str, output: str) -> None:
    model = load_model(folder)
    tensors = unpack_linears(model)
    with torch.no_grad():
        states = model(torch.tensor([list(TOKEN_IDS)]), output_hidden_states=True).hidden_states
    save_file(tensors | {"hidden": states[-2].contiguous()}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
