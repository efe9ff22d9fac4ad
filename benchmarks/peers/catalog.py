"""The peers: each has its tool, environment and settings, and is one row of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Peer:
    """A tool with its settings.

    Attributes:
        name: Name of its cache folder.
        environment: Name of its environment; ENVIRONMENT.txt pins the packages.
        worker: Its module in workers/.
        title: Title in the table, which is followed by the version.
        options: Settings of the worker.
        calibrates: Whether it uses the recipe's calibration prompts.
        dtype: Dtype of the weights that it quantizes; the demo's own unless the tool needs float32.
    """

    name: str
    environment: str
    worker: str
    title: str
    options: dict[str, Any] = field(default_factory=dict)
    calibrates: bool = False
    dtype: str = "bfloat16"


@dataclass(frozen=True)
class EdgepressMethod:
    """A method of edgepress.

    Attributes:
        method: `quantize.method` of the recipe.
        group_size: Group size of the scheme.
    """

    method: str
    group_size: int = 128

    @property
    def name(self) -> str:
        """Name of the cache folder."""
        return f"{self.method}-{self.group_size}"

    @property
    def title(self) -> str:
        """Title in the table."""
        groups = "" if self.group_size == 128 else f", groups of {self.group_size}"
        return f"edgepress {self.method}{groups}"


METHODS = ("rtn", "awq", "best")  # from the simplest to the most accurate
# The best one also with the group sizes of peers that use more bits.
EDGEPRESS_METHODS = (
    *(EdgepressMethod(method) for method in METHODS),
    EdgepressMethod(METHODS[-1], 64),
    EdgepressMethod(METHODS[-1], 32),
)


def _torchao(name: str, title: str, calibrates: bool = False, **options: Any) -> Peer:
    return Peer(name, "torchao", "torchao", f"torchao, {title}", {"group_size": 128} | options, calibrates)


def _sdnq(name: str, title: str, **options: Any) -> Peer:
    return Peer(name, "sdnq", "sdnq", f"SDNQ, {title}", options)


def _onnxruntime(algorithm: str, group_size: int, title: str) -> Peer:
    return Peer(
        f"{algorithm}-{group_size}",
        "onnxruntime",
        "onnxruntime",
        f"ONNX Runtime, {title}, groups of {group_size}",
        {"algorithm": algorithm, "group_size": group_size},
        calibrates=algorithm == "gptq",
        dtype="float32",
    )


PEERS = (
    _torchao("public", "Int4WeightOnlyConfig", config="public"),
    _torchao("int4", "int4 for CPUs (prototype)", config="prototype", algorithm="tinygemm"),
    _torchao("int4-hqq", "int4 for CPUs (prototype) with HQQ", config="prototype", algorithm="hqq"),
    _torchao("int4-awq", "AWQ (prototype)", True, config="prototype", algorithm="tinygemm", awq=True),
    _torchao("intx", "IntxWeightOnlyConfig int4, one byte per code", config="intx"),
    Peer("qint4", "quanto", "quanto", "optimum-quanto, qint4"),
    _sdnq("uint4", "uint4, default settings"),
    _sdnq("uint4-128", "uint4, groups of 128", group_size=128, dequantize_fp32=False),
    _sdnq("uint4-hadamard", "uint4 with Hadamard", group_size=128, dequantize_fp32=False, use_hadamard=True),
    _sdnq("uint4-svd4", "uint4 with SVD of rank 4", group_size=128, dequantize_fp32=False, use_svd=True, svd_rank=4),
    _sdnq("uint4-svd32", "uint4 with SVD of rank 32", group_size=128, dequantize_fp32=False, use_svd=True),
    Peer("nf4", "bitsandbytes", "bitsandbytes", "bitsandbytes, NF4", {"quant_type": "nf4"}),
    Peer(
        "nf4-double",
        "bitsandbytes",
        "bitsandbytes",
        "bitsandbytes, NF4 with double quantization",
        {"quant_type": "nf4", "compress_statistics": True},
    ),
    Peer("q4_0", "gguf", "gguf", "GGUF, Q4_0", {"kind": "Q4_0"}),
    Peer("q4_1", "gguf", "gguf", "GGUF, Q4_1", {"kind": "Q4_1"}),
    Peer("q4_k", "gguf", "gguf", "GGUF, Q4_K", {"kind": "Q4_K"}),
    Peer("hqq-128", "hqq", "hqq", "HQQ, groups of 128", {"group_size": 128}),
    Peer("hqq-64", "hqq", "hqq", "HQQ, groups of 64", {"group_size": 64}),
    _onnxruntime("default", 128, "rounding"),
    _onnxruntime("hqq", 128, "HQQ"),
    _onnxruntime("k_quant", 128, "k-quant"),
    _onnxruntime("k_quant", 64, "k-quant"),
    _onnxruntime("gptq", 128, "GPTQ"),
    _onnxruntime("gptq", 64, "GPTQ"),
    Peer("rtn", "autoround", "autoround", "AutoRound, W4A16 without tuning", {"iters": 0}, calibrates=True),
    Peer("tuned", "autoround", "autoround", "AutoRound, W4A16", {"iters": 200}, calibrates=True),
    Peer("gptq", "gptqmodel", "gptqmodel", "GPTQModel, GPTQ", {"group_size": 128}, calibrates=True, dtype="float32"),
)
