"""How ONNX Runtime computes products on a processor, where that is not what it does elsewhere."""

from __future__ import annotations

import logging

from ...common.cpu_features import CpuFeatures, read_cpu_features

logger = logging.getLogger(__name__)


def explain_arithmetic(features: CpuFeatures) -> list[str]:
    """Says how ONNX Runtime computes on a processor, as far as that differs between processors. Sentences."""
    notes = [
        "INT4: the accuracy level in the graphs decides; the session option session.qdq_matmulnbits_accuracy_level "
        "changes nothing in graphs with MatMulNBits."
    ]
    if features.is_x86 and features.has_exact_int8:
        notes.append("W8A8: products are exact (VNNI).")
    elif features.is_x86:
        notes.append(
            "W8A8: this processor has no VNNI. Dynamic graphs run with session.x64quantprecision=1, exactly and more "
            "slowly; products of static graphs saturate."
        )
    if features.is_arm64 and not features.has_dot_products:
        notes.append("INT4: this processor has no dot products, so accuracy level 4 computes as level 0, in floats.")
    elif features.is_arm64:
        notes.append(
            "INT4 at accuracy level 4: weights without zero points are multiplied by KleidiAI, which rounds "
            "activations by row instead of by block; the session option mlas.disable_kleidiai=1 computes as on x86."
        )
    if features.is_arm64 and features.has_fp16_arithmetic:
        notes.append(
            "fp16: sums are in float16 here, up to 1.5 % off for wide layers, and infinite where a partial sum passes "
            "65,504. Use fp32, INT4 or W8A8 on the CPU."
        )
    return notes


def warn_about_fp16_sums(runs_on_cpu: bool) -> None:
    """Warns if this processor sums in float16, which makes images of float16 graphs wrong that are right elsewhere.

    Args:
        runs_on_cpu: Whether all of the graphs run on the processor, and not only what a GPU leaves to it.
    """
    features = read_cpu_features()
    if features.is_arm64 and features.has_fp16_arithmetic:
        logger.warning(
            "%s on a processor that sums float16 products in float16: images may be wrong or not finite. Export the "
            "artifact with fp32 floats for such processors, and compare with 'edgepress verify'.",
            "These float16 graphs run" if runs_on_cpu else "What the GPU leaves of these float16 graphs runs",
        )
