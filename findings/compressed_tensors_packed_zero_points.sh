#!/usr/bin/env bash
# compressed-tensors 0.20.0 with transformers 5.23.0: a model in the format pack-quantized with zero points (4 bits, groups of
# 128), which that package itself defines with the zero points packed eight in an int32 along the outputs, opens only with
# CompressedTensorsConfig(dequantize=True): otherwise transformers prepares a parameter for unpacked zero points and refuses the
# file. And weights are computed in the dtype of the scales: with scales in float16, not all weights equal (code - zero) * scale.
# So edgepress stores scales in float32, and its documentation says dequantize=True.
#
# Seen on 2026-11-30:
#   scales in float32: refused (RuntimeError)
#   scales in float32, dequantize=True: 7 of 7 weights equal
#   scales in float16, dequantize=True: 0 of 7 weights equal, off by up to 4.1e-04 of the largest
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 compressed-tensors==0.20.0 accelerate
cat > "$folder/check.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, CompressedTensorsConfig, Qwen3Config, Qwen3Model

GROUP = 128


def pack(codes):  # int32 (rows, columns / 8) of codes (rows, columns), the first in the lowest nibble
    nibbles = codes.reshape(codes.shape[0], -1, 8).to(torch.int64)
    words = sum(nibbles[..., i] << (4 * i) for i in range(8))
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def write(folder, dtype):
    """Writes a model of one block with scales of a dtype; returns the weights that its layers stand for."""
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=2, head_dim=64)
    Qwen3Model(config).save_pretrained(folder)
    tensors, expected = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if weight.ndim != 2 or "embed" in name:
            tensors[name] = weight
            continue
        inputs = weight.float().reshape(weight.shape[0], -1, GROUP)  # (outputs, groups, inputs)
        low, high = inputs.amin(2).clamp(max=0), inputs.amax(2).clamp(min=0)
        scales = ((high - low) / 15).half()
        zeros = (-low / scales.float()).round().clamp(0, 15)
        codes = (inputs / scales.float()[..., None] + zeros[..., None]).round().clamp(0, 15)
        tensors |= {f"{name}_packed": pack(codes.reshape(weight.shape)), f"{name}_zero_point": pack(zeros.T).T.contiguous(),
                    f"{name}_scale": scales.to(dtype), f"{name}_shape": torch.tensor(weight.shape)}
        expected[name.removesuffix(".weight")] = ((codes - zeros[..., None]) * scales.float()[..., None]).reshape(weight.shape)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": GROUP}
    content["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": [],
    }
    (folder / "config.json").write_text(json.dumps(content))
    return expected


def describe(folder, expected, **options):
    try:
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, **options)
    except Exception as error:
        return f"refused ({type(error).__name__})"
    weights = {name: model.get_submodule(name).weight.detach() for name in expected}
    equal = sum(torch.equal(weights[name], expected[name]) for name in expected)
    largest = max(float((weights[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in expected)
    return f"{equal} of {len(expected)} weights equal" + (f", off by up to {largest:.1e} of the largest" if largest else "")


for dtype in (torch.float32, torch.float16):
    folder = Path(sys.argv[1]) / str(dtype)
    expected = write(folder, dtype)
    name = str(dtype).removeprefix("torch.")
    if dtype == torch.float32:
        print(f"scales in {name}: {describe(folder, expected)}")
    config = CompressedTensorsConfig(dequantize=True)
    print(f"scales in {name}, dequantize=True: {describe(folder, expected, quantization_config=config)}")
PYTHON
seen=$("$folder/env/bin/python" -W ignore "$folder/check.py" "$folder" 2>"$folder/log")
echo "$seen"
[ "$(echo "$seen" | grep -c 'float32: refused')" = 1 ]
[ "$(echo "$seen" | grep -c 'float32, dequantize=True: 7 of 7 weights equal')" = 1 ]
[ "$(echo "$seen" | grep -c 'float16, dequantize=True: 0 of 7 weights equal')" = 1 ]
