"""What the server loads and computes that commands are forked from: what takes long, and is the same in all of them."""

from __future__ import annotations

import gc
import importlib

from ...common.code_fingerprint import code_fingerprint, model_modules
from ...models.registry import load_families

PACKAGE = __name__.partition(".")[0]
STAGES = (
    "cli.main",
    "cli.quantize_tables",
    "evaluate.evaluator",
    "evaluate.metrics.psnr",
    "evaluate.report.terminal",
    "evaluate.report.writer",
    "export.onnx.verifier",
    "export.onnx.writer",
    "export.rknn.run",
    "pipelines.hf_quantizers",
    "quantize.run",
    "runtime.pipeline",
    "benchmarks.reliability.fault_runner",
    "benchmarks.synthetic.classes",
)
LIBRARIES = (
    "diffusers.guiders",
    "diffusers.pipelines.onnx_utils",
    "onnx.reference",
    "onnxruntime",
    "rich.console",
    "rich.progress",
    "rich.table",
    "skimage.metrics",
    "torch.onnx._internal.exporter._core",
    "torch._export.serde.serialize",
)

for module in (*(f"{PACKAGE}.{stage}" for stage in STAGES), *LIBRARIES):
    importlib.import_module(module)
load_families()
for stage in ("quantize.pipeline", "evaluate.evaluator", "export.graph.trace"):
    code_fingerprint(f"{PACKAGE}.{stage}", *model_modules())  # remembers what each module imports
gc.collect()
gc.freeze()  # else collecting garbage touches, and so copies, the memory that commands share
