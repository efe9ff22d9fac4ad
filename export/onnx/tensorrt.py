"""The script that builds TensorRT's engines on a board.

What it was written from, as there is no board here: trtexec's options are those of TensorRT's own samples, 10.3 and
10.16 (github.com/NVIDIA/TensorRT, samples/common/sampleOptions.cpp); which operators are read is said by the parser's
docs/Changelog.md (github.com/onnx/onnx-tensorrt): INT4 since 10.0, Attention since 10.14, RMSNormalization and
RotaryEmbedding since 10.15, and since 10.9 the GroupNormalization of opset 21. So graphs of opset 21 with all of these
written out are for every TensorRT 10. INT4 has blocks of 64 or 128 and no zero points (docs.nvidia.com/deeplearning/
tensorrt, "Quantization Schemes").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ...runtime.onnx.shape_buckets import BucketedGraph
from .shape_buckets import Axes

SCRIPT_NAME = "build_engines.sh"
SUPPORTED_BLOCK_SIZES = (64, 128)  # of INT4 that TensorRT reads
SCRIPT_HEAD = """\
#!/bin/sh
# Builds TensorRT engines of these graphs, on the board that they are for: an engine is for one GPU and one version.
#
# NOT VERIFIED HERE: it was never run. Written for TensorRT 10.3 (JetPack 6.2) to 10.16 (JetPack 7.2).
#
# The types in the graphs say what is computed in which precision (--stronglyTyped), so --fp16 or --int4 have no place.
# Weights are read from the files beside the graphs. Shapes are those of the export's sizes and of its longest prompt.
#
#   ./build_engines.sh [GRAPH ...]       all graphs but those of tiles, or only those named; engines go to engines/
#   TRTEXEC=/path/to/trtexec ./build_engines.sh
set -eu
cd "$(dirname "$0")"
TRTEXEC=${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}
WANTED=" $* "
mkdir -p engines

build() {
  name=$1
  shift
  case "$WANTED" in
    "  " | *" $name "*)
      "$TRTEXEC" --onnx="$name.onnx" --saveEngine="engines/$name.engine" --stronglyTyped --skipInference \\
        --timingCacheFile=engines/timing.cache "$@"
      ;;
  esac
}
"""


def get_unsupported_reason(block_sizes: Iterable[int]) -> str:
    """Why TensorRT cannot read 4-bit weights in blocks of these sizes, in a sentence; empty where it can."""
    unsupported = sorted(set(block_sizes) - set(SUPPORTED_BLOCK_SIZES))
    if not unsupported:
        return ""
    return (
        f"There is no {SCRIPT_NAME}, as TensorRT reads 4-bit weights in blocks of 64 or 128 and these have {unsupported[0]}; for "
        "TensorRT, quantize with a group_size of 64 or 128 (quantize.also)."
    )


def write_engine_script(
    graphs: Mapping[str, BucketedGraph], shapes: Mapping[str, Sequence[Axes]], folder: Path
) -> None:
    """Writes the script beside the graphs.

    Args:
        asked: the axes that each graph is asked with; those that are never asked, such as those of tiles, are left out.
    """
    lines = [line for name, axes in shapes.items() for line in _list_build_calls(graphs[name], axes)]
    file = folder / SCRIPT_NAME
    file.write_text("\n".join([SCRIPT_HEAD, *lines]) + "\n", "utf-8")
    file.chmod(0o755)


def _list_build_calls(graph: BucketedGraph, shapes: Sequence[Axes]) -> list[str]:
    """A line for each file of a graph; engines of dynamic shapes are tuned for the largest."""
    if graph.buckets[0].axis_sizes:
        return [f"build {bucket.name}" for bucket in graph.buckets]
    (bucket,) = graph.buckets
    ranges = {"min": min, "opt": max, "max": max}
    options = [
        f"--{name}Shapes={_format_shapes(graph, _reduce_axes(shapes, choose))}" for name, choose in ranges.items()
    ]
    return [" \\\n  ".join([f"build {bucket.name}", *options])]


def _reduce_axes(shapes: Sequence[Axes], choose: Callable[[Iterable[int]], int]) -> Axes:
    return {axis: choose(axes[axis] for axes in shapes) for axis in shapes[0]}


def _format_shapes(graph: BucketedGraph, axes: Axes) -> str:
    """Of all inputs that have dynamic axes, in trtexec's words."""
    sized = {
        name: "x".join(str(axes[axis] if isinstance(axis, str) else axis) for axis in port)
        for name, port in graph.input_axes.items()
        if any(isinstance(axis, str) for axis in port)
    }
    return ",".join(f"{name}:{shape}" for name, shape in sized.items())
