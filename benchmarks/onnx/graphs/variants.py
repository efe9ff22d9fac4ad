"""The variants: how each is quantized and exported, or which tool of ONNX Runtime quantizes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BASE = "fp32"  # the reference, and the input of ONNX Runtime's tools
LINEARS = "int4-128-0"  # the variant that says which linear layers ONNX Runtime's tools quantize
INT8_SCHEME = {"bits": 8, "group_size": "channel", "symmetric": True, "narrow_range": True}
EXTRA_SCHEMES: dict[str, dict[str, Any]] = {
    "qdq": {"group_size": 128, "symmetric": True},
    "w8a8": INT8_SCHEME | {"activations": "dynamic"},
    "w8a8-static": INT8_SCHEME | {"activations": "static"},
}


@dataclass(frozen=True)
class Variant:
    """A folder of graphs.

    Attributes:
        name: Name of the folder.
        title: Title in the tables.
        group_size: Group size of the quantized pipeline that is exported; None: the original pipeline.
        settings: Export settings.
        tool: Tool of ONNX Runtime that quantizes the fp32 graphs instead.
        options: Options of the tool.
    """

    name: str
    title: str
    group_size: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tool: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def _int4(group_size: int, level: int) -> Variant:
    settings = {"precision": "int4", "accuracy_level": level}
    title = f"int4, groups of {group_size}, accuracy level {level}"
    return Variant(f"int4-{group_size}-{level}", title, group_size, settings)


def _w8a8(activations: str) -> Variant:
    settings = {"precision": "w8a8", "activations": activations}
    return Variant(f"w8a8-{activations}", f"w8a8, {activations} scales of activations", 128, settings)


def _nbits(algorithm: str, group_size: int, title: str) -> Variant:
    options = {"algorithm": algorithm, "group_size": group_size}
    name = f"onnxruntime-{algorithm}-{group_size}"
    return Variant(name, f"ONNX Runtime, {title}, groups of {group_size}", tool="nbits", options=options)


VARIANTS = (
    Variant(BASE, "fp32", settings={"precision": "fp32"}),
    Variant("fp16", "fp16", settings={"precision": "fp16"}),
    *(_int4(size, level) for size in (128, 64, 32) for level in (0, 4)),
    Variant("int4-qdq", "int4 as `DequantizeLinear`", 128, {"precision": "int4", "format": "qdq"}),
    *(_w8a8(activations) for activations in ("dynamic", "static")),
    *(_nbits("default", size, "rounding") for size in (128, 32)),
    _nbits("hqq", 128, "HQQ"),
    _nbits("k_quant", 64, "k-quant"),
    Variant("onnxruntime-dynamic", "ONNX Runtime, dynamic int8", tool="dynamic"),
)
