#!/usr/bin/env bash
# auto-round 0.16.1 with transformers 5.23.0 on a CPU: a model with packing_format auto_round:auto_awq, asymmetric in groups of
# 128, opens without an error although the package auto-round-lib is missing, which has the only kernel for it. Its layers are of
# a backend that holds no weights, the packed tensors are reported as not used, and what the layers compute is not the model.
# With auto-round-lib 0.16.0 the same folder gives every weight to the bit. So an export must name both packages, and a reader
# must compare weights, not only open.
#
# Seen on 2026-11-30:
#   without auto-round-lib: opened, 0 of 7 weights equal, layers of fake.FakeActQuantLinear
#   with auto-round-lib: opened, 7 of 7 weights equal, layers of qlinear.QuantLinearAWQ
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 auto-round==0.16.1 accelerate py-cpuinfo
cat > "$folder/make.py" <<'PYTHON'
"""Writes a model of one block whose linear layers are packed in AWQ's layout, and the weights that they stand for."""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3Model

folder, GROUP, ORDER = Path(sys.argv[1]), 128, [0, 2, 4, 6, 1, 3, 5, 7]
torch.manual_seed(0)
config = Qwen3Config(vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=2,
                     num_key_value_heads=2, head_dim=64)
Qwen3Model(config).save_pretrained(folder)
stored = load_file(folder / "model.safetensors")
tensors, expected = {}, {}


def pack(codes):  # int32 (rows, columns / 8) of codes (rows, columns)
    nibbles = codes.reshape(codes.shape[0], -1, 8)[..., ORDER].to(torch.int64)
    words = sum(nibbles[..., i] << (4 * i) for i in range(8))
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


for name, weight in stored.items():
    if weight.ndim != 2 or "embed" in name:
        tensors[name] = weight
        continue
    inputs = weight.float().T.reshape(-1, GROUP, weight.shape[0])  # (groups, inputs, outputs)
    low, high = inputs.amin(1).clamp(max=0), inputs.amax(1).clamp(min=0)
    scales = ((high - low) / 15).half()
    zeros = (-low / scales.float()).round().clamp(0, 15)
    codes = (inputs / scales.float()[:, None] + zeros[:, None]).round().clamp(0, 15)
    stem = name.removesuffix(".weight")
    tensors |= {f"{stem}.qweight": pack(codes.reshape(-1, weight.shape[0])), f"{stem}.qzeros": pack(zeros),
                f"{stem}.scales": scales}
    expected[stem] = ((codes - zeros[:, None]) * scales.float()[:, None]).reshape(-1, weight.shape[0]).T.contiguous()
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
save_file(expected, folder.with_name("expected.safetensors"))
content = json.loads((folder / "config.json").read_text())
content["quantization_config"] = {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4,
                                  "group_size": GROUP, "sym": False, "data_type": "int"}
(folder / "config.json").write_text(json.dumps(content))
PYTHON
cat > "$folder/open.py" <<'PYTHON'
"""Opens the model, and compares what each layer makes of the unit vectors with the weight that it stands for."""
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModel

folder = Path(sys.argv[1])
expected = load_file(folder.with_name("expected.safetensors"))
model = AutoModel.from_pretrained(folder, dtype=torch.float32)
layers = {name: model.get_submodule(name) for name in expected}
equal = 0
for name, layer in layers.items():
    try:
        with torch.no_grad():
            weight = layer(torch.eye(expected[name].shape[1])).T.float()
    except Exception as error:
        print("a layer fails:", type(error).__name__, file=sys.stderr)
        continue
    equal += torch.equal(weight, expected[name])
kinds = sorted({f"{type(layer).__module__.rpartition('.')[2]}.{type(layer).__name__}" for layer in layers.values()})
print(f"{equal} of {len(layers)} weights equal, layers of {', '.join(kinds)}")
PYTHON
"$folder/env/bin/python" "$folder/make.py" "$folder/model"
without=$("$folder/env/bin/python" -W ignore "$folder/open.py" "$folder/model" 2>"$folder/without.log" | tail -1)
echo "without auto-round-lib: opened, $without"
"$folder/env/bin/pip" install --quiet auto-round-lib==0.16.0
with=$("$folder/env/bin/python" -W ignore "$folder/open.py" "$folder/model" 2>"$folder/with.log" | tail -1)
echo "with auto-round-lib: opened, $with"
[ "${without:0:1}" = 0 ] && [ "${with%% weights*}" = "7 of 7" ]
