"""What was written of a component in safetensors files, from their headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ...storage.safetensors_header import read_tensor_headers
from ...storage.weight_export import ComponentRecord
from .component import WeightReader


def record_safetensors(files: Iterable[Path], weights: WeightReader, max_difference: float = 0.0) -> ComponentRecord:
    """The record of a component in export.json.

    Args:
        files: The files that were written.
        weights: The component.
        max_difference: The largest difference of a quantized weight from the artifact's, in steps between codes.
    """
    headers = [header for file in files for header in read_tensor_headers(file)]
    return ComponentRecord(
        weights=weights.num_weights,
        bytes=sum(header.nbytes for header in headers),
        types=dict(Counter(header.dtype for header in headers)),
        max_difference=max_difference,
    )
