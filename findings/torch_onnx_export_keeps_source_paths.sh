#!/usr/bin/env bash
# torch.onnx.export (torch 2.13.0, dynamo) writes the exporting machine's absolute source paths, and lines of the source
# code itself, into the metadata of every node of the .onnx file. It is not debug output: it happens by default, survives
# saving, and makes two exports of one model differ by where the code lies. edgepress removes it after tracing.
#
# Seen on 2026-11-29:
#   nodes with a stack trace: 3 of 3
#   same bytes from two folders: no
#   same bytes without metadata: yes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2
cat > "$folder/export.py" <<'PYTHON'
import sys

import torch


class Net(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x) * 2


torch.onnx.export(Net(), (torch.ones(2, 3),), sys.argv[1], dynamo=True, optimize=False, verbose=False)
PYTHON
for place in one two; do
  mkdir -p "$folder/$place"
  cp "$folder/export.py" "$folder/$place/export.py"
  "$folder/env/bin/python" "$folder/$place/export.py" "$folder/$place.onnx" >/dev/null 2>&1
done
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import onnx

folder = Path(sys.argv[1])
models = {place: onnx.load(folder / f"{place}.onnx") for place in ("one", "two")}
nodes = [node for node in models["one"].graph.node if node.op_type != "Constant"]
traced = [
    node
    for node in nodes
    if any(p.key == "pkg.torch.onnx.stack_trace" and str(folder / "one" / "export.py") in p.value for p in node.metadata_props)
]
same = models["one"].SerializeToString() == models["two"].SerializeToString()
for model in models.values():
    for node in model.graph.node:
        del node.metadata_props[:]
clean = models["one"].SerializeToString() == models["two"].SerializeToString()
print(f"nodes with a stack trace: {len(traced)} of {len(nodes)}")
print(f"same bytes from two folders: {'yes' if same else 'no'}")
print(f"same bytes without metadata: {'yes' if clean else 'no'}")
sys.exit(0 if traced and not same and clean else 1)
PYTHON
