"""Which stored weights are read: floating point as it is, plain float8 by an exact cast. All else is refused by name.

Names and dtypes decide, so that no weight is read. A quantized weight whose scale is stored in another tensor would be
wrong without an error if only its codes were read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..common.errors import UserError

FLOAT_DTYPES = ("F64", "F32", "BF16", "F16")
CAST_DTYPES = ("F8_E4M3", "F8_E5M2")  # bfloat16 holds their values exactly
INTEGER_DTYPES = ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")

# What the names of tensors say about a scheme, and what to do.
ORIGINAL = "Use the pipeline in its original precision (float32, float16 or bfloat16)."
MERGE = "Merge it with fuse_lora() and unload_lora_weights(), or with merge_and_unload(), and save the pipeline again."
SCHEMES = (
    (r"(^|\.)scaled_fp8$|\.scale_weight$|\.scale_input$", "scaled float8 as ComfyUI stores it", ORIGINAL),
    (r"\.comfy_quant$", "quantized weights as ComfyUI stores them", ORIGINAL),
    (r"\.weight_scale_inv$", "float8 with a scale for each block", ORIGINAL),
    (
        r"\.(weight_scale|weight_scale_2|input_scale|weight_zero_point|weight_packed)$",
        "quantized weights with scales, as compressed-tensors and ModelOpt store them",
        ORIGINAL,
    ),
    (
        r"\.quant_state\.|\.(absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format)$",
        "weights quantized by bitsandbytes",
        ORIGINAL,
    ),
    (r"\.(qweight|qzeros|g_idx)$", "weights quantized by AWQ or GPTQ", ORIGINAL),
    (r"\.(_data|_scale)$", "weights quantized by optimum-quanto", ORIGINAL),
    (r"\.(wscales|wzeros|smooth_factor|proj_down|proj_up)$", "weights quantized by SVDQuant", ORIGINAL),
    (
        r"(\.|^|_)(lora[._]|hada_w|lokr_w|dora_scale)|\.base_layer\.",
        "a LoRA that was not merged into the weights",
        MERGE,
    ),
)


def is_awq(config: Mapping[str, Any]) -> bool:
    """Whether a component's config.json describes weights in AWQ's layout, which edgepress writes and loads."""
    settings = config.get("quantization_config")
    return isinstance(settings, Mapping) and settings.get("quant_method") == "awq"


def describe_unsupported(dtypes: Mapping[str, str], config: Mapping[str, Any] | None = None) -> str:
    """Says which tensor of a component cannot be read, why, and what to do; empty if all can.

    Args:
        dtypes: Dtype of each tensor, as safetensors calls it, by its name.
        config: config.json of the component, whose `quantization_config` counts as well.
    """
    method = (config or {}).get("quantization_config")
    if method:
        name = method.get("quant_method", "unknown") if isinstance(method, Mapping) else method
        return f"config.json has a quantization_config: the weights are already quantized ({name}). {ORIGINAL}"
    for pattern, scheme, advice in SCHEMES:
        if name := _find(pattern, dtypes):
            return f"the tensor {name!r} belongs to {scheme}. {advice}"
    for name, dtype in dtypes.items():
        if dtype not in (*FLOAT_DTYPES, *CAST_DTYPES, *INTEGER_DTYPES):
            return f"the tensor {name!r} has the dtype {dtype}, which cannot be read. {ORIGINAL}"
        if dtype in INTEGER_DTYPES and name.endswith((".weight", ".bias")):
            return f"the weight {name!r} has the dtype {dtype}: it is quantized. {ORIGINAL}"
    return ""


def require_supported(folder: Path, dtypes: Mapping[str, str], config: Mapping[str, Any] | None = None) -> None:
    """Checks that all tensors of a component are in a format that is read.

    Args:
        folder: The component's folder.
        dtypes: As for `describe_unsupported`.
        config: As for `describe_unsupported`.

    Raises:
        UserError: A tensor has an unknown dtype, or belongs to quantized weights or a LoRA.
    """
    explanation = describe_unsupported(dtypes, config)
    if explanation:
        raise UserError(f"Cannot read the weights in {folder}: {explanation}")


def _find(pattern: str, names: Iterable[str]) -> str | None:
    expression = re.compile(pattern)
    return next((name for name in names if expression.search(name)), None)
