"""The cost model of ONNX graphs: bits of a weight, memory of weights and activations, and the least time.

The factors are those of ONNX Runtime 1.31.1 on x86, from the demo's graphs at 128x128 and 512x512 pixels (docs/plan.md
compares them with measured peaks). They are used for other devices too, where nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...recipes.hardware import PeakRates
from ...recipes.schema import ExportSettings, QuantizationSettings

FLOAT_BITS = {"fp32": 32, "fp16": 16}
# Bytes that ONNX Runtime takes for a byte of live activations. It rounds memory up to powers of two. Convolutions copy
# their inputs.
ACTIVATION_FACTOR, CONVOLUTION_FACTOR = 1.35, 1.75
CONVOLUTION_WEIGHT_FACTOR = 2.0  # weights of convolutions are kept in a second layout
WeightKind = Literal["linear", "embedding", "convolution", "float"]


@dataclass(frozen=True)
class CostModel:
    """What weights and operations of an export cost.

    Args:
        export: How graphs are exported.
        quantization: How weights are quantized.
    """

    export: ExportSettings
    quantization: QuantizationSettings

    @property
    def float_dtype(self) -> str:
        """The dtype of what is not quantized: `fp32` or `fp16`."""
        settings = self.export
        if settings.precision == "int4":
            return settings.float_dtype
        return "fp16" if settings.precision == "fp16" else "fp32"

    @property
    def float_bytes(self) -> int:
        """Bytes of a value that is not quantized."""
        return FLOAT_BITS[self.float_dtype] // 8

    @property
    def computes_in_integers(self) -> bool:
        """Whether linear layers multiply 8-bit integers."""
        return self.export.precision == "w8a8" or bool(
            self.export.precision == "int4" and self.export.format == "ort" and self.export.accuracy_level
        )

    def count_stored_bits(self, kind: WeightKind) -> float:
        """Bits of a weight in the exported file, with its share of scales and zero points."""
        if kind == "embedding" and self.quantization.embeddings == "int8":
            return 8
        if kind == "convolution" and self.quantization.conv == "int8" and self.export.precision not in FLOAT_BITS:
            return 8
        if kind != "linear" or self.export.precision in FLOAT_BITS:
            return FLOAT_BITS[self.float_dtype]
        if self.export.precision == "w8a8":
            return 8
        group_size = self.quantization.scheme.group_size
        assert group_size != "channel"  # the primary scheme has groups
        return 4 + (FLOAT_BITS[self.float_dtype] + 4) / group_size

    def count_resident_bits(self, kind: WeightKind) -> float:
        """Bits of a weight in memory: products in integers also keep the sum of each group."""
        bits = self.count_stored_bits(kind)
        if kind == "linear" and self.export.precision == "int4" and self.computes_in_integers:
            group_size = self.quantization.scheme.group_size
            assert group_size != "channel"
            bits += 32 / group_size
        return bits

    def find_linear_rate(self, peak: PeakRates) -> float | None:
        """Operations a second of linear layers in 10^12; processors without integer products multiply floats."""
        floats = self.find_float_rate(peak)
        return (peak.int8 or floats) if self.computes_in_integers else floats

    def find_float_rate(self, peak: PeakRates) -> float | None:
        """Operations a second of everything else in 10^12."""
        return peak.fp16 if self.float_dtype == "fp16" else peak.fp32
