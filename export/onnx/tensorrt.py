"""The script that builds TensorRT engines on a board.

It was written without a board, from two sources. Options of trtexec are those of TensorRT's samples, 10.3 and 10.16
(github.com/NVIDIA/TensorRT, samples/common/sampleOptions.cpp). Supported operators are listed in the parser's
docs/Changelog.md (github.com/onnx/onnx-tensorrt): INT4 since 10.0, Attention since 10.14, RMSNormalization and
RotaryEmbedding since 10.15, and the GroupNormalization of opset 21 since 10.9. So graphs of opset 21 with all of these
decomposed work with every TensorRT 10. INT4 has blocks of 64 or 128 and no zero points (docs.nvidia.com/deeplearning/
tensorrt, "Quantization Schemes").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ...runtime.onnx.shape_buckets import BucketedGraph
from .shape_buckets import AxisSizes

SCRIPT_NAME = "build_engines.sh"
SUPPORTED_BLOCK_SIZES = (64, 128)  # of INT4
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
    """Returns why TensorRT cannot read INT4 weights with these block sizes; empty if it can."""
    unsupported = sorted(set(block_sizes) - set(SUPPORTED_BLOCK_SIZES))
    if not unsupported:
        return ""
    return (
        f"{SCRIPT_NAME} was not written: TensorRT supports INT4 in blocks of 64 or 128, not {unsupported[0]}. For "
        "TensorRT, quantize with a group_size of 64 or 128 (quantize.extra_schemes)."
    )


def write_engine_script(
    graphs: Mapping[str, BucketedGraph], shapes: Mapping[str, Sequence[AxisSizes]], folder: Path
) -> None:
    """Writes the script beside the graphs.

    Args:
        graphs: Exported graphs by name.
        shapes: The axis sizes with which each graph is run. Graphs without any, such as those of tiles, are left out.
        folder: Folder of the graphs.
    """
    calls = [call for name, graph_shapes in shapes.items() for call in _list_build_calls(graphs[name], graph_shapes)]
    file = folder / SCRIPT_NAME
    file.write_text("\n".join([SCRIPT_HEAD, *calls]) + "\n", "utf-8")
    file.chmod(0o755)


def _list_build_calls(graph: BucketedGraph, shapes: Sequence[AxisSizes]) -> list[str]:
    """Returns a call of `build` for each file of a graph. Engines of dynamic shapes are tuned for the largest."""
    if graph.buckets[0].axis_sizes:
        return [f"build {bucket.name}" for bucket in graph.buckets]
    (bucket,) = graph.buckets
    profile = {"min": min, "opt": max, "max": max}
    options = [
        f"--{name}Shapes={_format_shapes(graph, _reduce_axes(shapes, reduce))}" for name, reduce in profile.items()
    ]
    return [" \\\n  ".join([f"build {bucket.name}", *options])]


def _reduce_axes(shapes: Sequence[AxisSizes], reduce: Callable[[Iterable[int]], int]) -> AxisSizes:
    return {axis: reduce(axis_sizes[axis] for axis_sizes in shapes) for axis in shapes[0]}


def _format_shapes(graph: BucketedGraph, axis_sizes: AxisSizes) -> str:
    """Formats the shapes of all inputs with dynamic axes as trtexec expects them."""
    shapes = {
        name: "x".join(str(axis_sizes[axis] if isinstance(axis, str) else axis) for axis in axes)
        for name, axes in graph.input_axes.items()
        if any(isinstance(axis, str) for axis in axes)
    }
    return ",".join(f"{name}:{shape}" for name, shape in shapes.items())
