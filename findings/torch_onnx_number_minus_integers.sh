#!/usr/bin/env bash
# torch 2.13.0 with onnxscript 0.7.2 and onnx 1.23.2: a module that returns `2.5 - x` for a tensor of integers x, as schedules and
# position embeddings compute it, runs in torch, passes torch.export, and is then refused by torch.onnx.export: the exporter
# interprets the graph anew and finds no operator for a number, less a tensor of another type. `-x + 2.5` is the same function,
# and is exported and right. So the description of a model must write such differences the other way around.
#
# Seen on 2026-12-01:
#   2.5 - x: ConversionError
#   -x + 2.5: exported, [2.5, 1.5, 0.5]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 numpy
cat > "$folder/export.py" <<'PYTHON'
import onnxruntime
import torch


class NumberFirst(torch.nn.Module):
    def forward(self, x):
        return 2.5 - x


class NumberLast(torch.nn.Module):
    def forward(self, x):
        return -x + 2.5


x = torch.arange(3)
for text, module in (("2.5 - x", NumberFirst()), ("-x + 2.5", NumberLast())):
    torch.export.export(module, (x,))
    try:
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    except Exception as error:
        print(f"{text}: {type(error).__name__}")
        continue
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    print(f"{text}: exported, {output.tolist()}")
PYTHON
seen=$(ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" -W ignore "$folder/export.py" 2>"$folder/log")
echo "$seen"
[ "$seen" = "2.5 - x: ConversionError
-x + 2.5: exported, [2.5, 1.5, 0.5]" ]
