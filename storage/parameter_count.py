"""Counts the parameters of a pipeline from the headers of its weight files, quantized or not."""

from __future__ import annotations

from pathlib import Path

from .safetensors_header import TensorHeader, read_tensor_headers
from .weight_files import WeightFiles, find_weight_folders, select_weight_files

INT4_PER_INT32 = 8
GRID_SUFFIXES = (".qzeros", ".scales")  # what the AWQ layout stores beside the codes


def count_parameters(pipeline: Path) -> int:
    """Counts the parameters of all components of a pipeline folder; 4-bit codes count one by one.

    Raises:
        UserError: A component's weights cannot be read.
    """
    weights = map(select_weight_files, find_weight_folders(pipeline))
    return sum(count_tensor_parameters(header) for files in weights for header in read_loaded_headers(files))


def read_loaded_headers(weights: WeightFiles) -> list[TensorHeader]:
    """Reads the tensors that are loaded; of one in two files, that in the file that the index names."""
    return [
        header
        for file in weights.files
        for header in read_tensor_headers(file)
        if weights.locations.get(header.name, file) == file
    ]


def count_tensor_parameters(header: TensorHeader) -> int:
    """Counts the parameters in a tensor: eight in each int32 of AWQ's codes, none in its scales and zero points."""
    if header.name.endswith(GRID_SUFFIXES):
        return 0
    is_packed = header.name.endswith(".qweight") and header.dtype == "I32"
    return header.numel * (INT4_PER_INT32 if is_packed else 1)
