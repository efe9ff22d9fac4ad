"""Products of a graph as matrices: MatMul, Gemm and Conv in float16, of which the largest rows and columns are taken.

Their sums have as many terms as the matrices have inner columns. A convolution multiplies each window of its input with
each filter, in the order of ONNX Runtime's kernel for float16: all channels of a point, then the next point.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

NUM_ROWS, NUM_COLUMNS = 8, 64  # of a product's inputs and weights: those with the largest values
EXPLICIT_PADS: Final = ("NOTSET", "VALID")  # of a convolution; other kinds of padding are in no export
Matrix = NDArray[np.float16]


def count_terms(node: ir.Node) -> int | None:
    """Returns the number of terms of a product's sums; None if it is no product in float16 with weights.

    Args:
        node: A node of a graph.
    """
    right = node.inputs[1] if node.domain == "" and len(node.inputs) > 1 else None
    if right is None or right.dtype != ir.DataType.FLOAT16 or right.shape is None:
        return None
    shape = [size for size in right.shape if isinstance(size, int)]
    if len(shape) != len(right.shape):
        return None
    if node.op_type == "MatMul" and len(shape) == 2:
        return shape[0]
    if node.op_type == "Gemm":
        return shape[1 if _get(node, "transB", 0) else 0]
    if node.op_type == "Conv" and _get(node, "auto_pad", EXPLICIT_PADS[0]) in EXPLICIT_PADS:
        return prod(shape[1:])
    return None


def sample_matrices(node: ir.Node, left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """Returns the rows and columns of a product with the largest sums of magnitudes.

    Args:
        node: One that `count_terms` has counted.
        left: Its input.
        right: Its weights.

    Returns:
        (rows, terms) and (terms, columns); of a convolution in groups those of the group with the largest weights.
    """
    if node.op_type == "Conv":
        return _sample_windows(node, left, right)
    if node.op_type == "Gemm":
        left = left.T if _get(node, "transA", 0) else left
        right = right.T if _get(node, "transB", 0) else right
    rows = left.reshape(-1, left.shape[-1])
    return rows[_find_largest(rows, NUM_ROWS)], right[:, _find_largest(right.T, NUM_COLUMNS)]


def _sample_windows(node: ir.Node, image: Matrix, filters: Matrix) -> tuple[Matrix, Matrix]:
    """The windows of an image (batch, channels, …) and the filters (outputs, channels of a group, …) as matrices."""
    rank = image.ndim - 2
    num_groups = int(_get(node, "group", 1))
    by_group = filters.reshape(num_groups, -1, *filters.shape[1:])
    sums = np.abs(by_group.astype(np.float32)).sum(tuple(range(1, by_group.ndim)))
    group, channels = int(sums.argmax()), filters.shape[1]
    image = image[:, group * channels : (group + 1) * channels]
    windows = _list_windows(node, image, filters.shape[2:])
    magnitudes = _list_windows(node, np.abs(image.astype(np.float32)).sum(1, keepdims=True), filters.shape[2:])
    largest = _find_largest(magnitudes.reshape(-1, prod(filters.shape[2:])), NUM_ROWS)
    positions = np.unravel_index(largest, windows.shape[: 1 + rank])
    rows = windows[positions].reshape(len(largest), -1)  # windows are views; only these are copied
    columns = np.moveaxis(by_group[group], 1, -1).reshape(by_group.shape[1], -1).T
    return rows, columns[:, _find_largest(columns.T, NUM_COLUMNS)]


def _list_windows(node: ir.Node, image: NDArray[Any], kernel: tuple[int, ...]) -> NDArray[Any]:
    """All windows of an image, as a view: (batch, positions …, kernel …, channels)."""
    rank = len(kernel)
    strides, dilations = (_get(node, name, [1] * rank) for name in ("strides", "dilations"))
    pads = _get(node, "pads", [0] * 2 * rank)
    padded = np.pad(image, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    spans = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, tuple(range(2, 2 + rank)))
    steps = [slice(None, None, int(step)) for step in (*strides, *dilations)]
    return np.moveaxis(windows[(slice(None), slice(None), *steps)], 1, -1)


def _find_largest(rows: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Indices of the rows with the largest sums of magnitudes."""
    return np.argsort(np.abs(rows.astype(np.float32)).sum(1))[-count:]


def _get(node: ir.Node, name: str, default: Any) -> Any:
    """The value of an attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value
