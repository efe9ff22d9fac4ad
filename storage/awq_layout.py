"""Which weights in AWQ's layout are read, from config.json and headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..numerics.quant_spec import fit_group_size
from .recovery import advise_recovery
from .safetensors_header import TensorHeader

UNSUPPORTED_FORMAT = "unsupported AWQ format: {} bits, version {!r}. Only 4 bits with version 'gemm' can be loaded"
DEFAULT_GROUP_SIZE = 128


def is_supported_format(bits: Any, version: Any) -> bool:
    """Whether codes of these bits and this order of the packed values are read."""
    return bits == 4 and str(version).lower() == "gemm"


def require_awq_layout(folder: Path, headers: Iterable[TensorHeader], settings: Mapping[str, Any]) -> None:
    """Checks that a `quantization_config` describes the codes that are stored.

    Args:
        folder: The component's folder.
        headers: Its tensors.
        settings: The `quantization_config` in its config.json.

    Raises:
        UserError: The format is not read, or the scales belong to groups of another size.
    """
    problem = _find_problem({header.name: header for header in headers}, settings)
    if problem:
        file = folder / "config.json"
        raise UserError(
            f"{file} has a quantization_config that does not describe its weights: {problem}. {advise_recovery(file)}"
        )


def _find_problem(headers: Mapping[str, TensorHeader], settings: Mapping[str, Any]) -> str:
    bits, version = settings.get("bits", 4), settings.get("version", settings.get("format", "gemm"))
    if not is_supported_format(bits, version):
        return UNSUPPORTED_FORMAT.format(bits, version)
    for name, codes in headers.items():
        layer = name.removesuffix(".qweight")
        scales = headers.get(f"{layer}.scales")
        if layer == name or scales is None or len(codes.shape) != 2 or len(scales.shape) != 2:
            continue  # what is missing or has another form is found where weights are compared with their class
        layout = _find_layout(layer, settings)
        if layout.get("bits") == 8 and scales.shape[0] == 1:  # as a budget stores some: a scale for each output
            continue
        size = layout.get("group_size", settings.get("group_size", DEFAULT_GROUP_SIZE))
        if not isinstance(size, int):
            return f"its group_size is no whole number for {layer!r}"
        width, fitting = codes.shape[0], fit_group_size(size, codes.shape[0])
        if fitting is None or scales.shape[0] != width // fitting:
            return f"{layer!r} has {scales.shape[0]} scales for {width} inputs, which are no groups of {size}"
    return ""


def _find_layout(layer: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `extra_config` says of a layer; its name in a file may have a prefix that module names do not have."""
    extra = settings.get("extra_config")
    layouts = extra if isinstance(extra, Mapping) else {}
    layout: Any = next((layouts[key] for key in layouts if f".{layer}".endswith(f".{key}")), {})
    return layout if isinstance(layout, Mapping) else {}
