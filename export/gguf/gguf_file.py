"""One component as a GGUF file, in which its codes are carried over.

Codes in 4 bits become Q4_0 where they are symmetric and Q4_1 where they have zero points, codes in 8 bits Q8_0.
Matrices in 16 bits stay as they are; all else is F32, as the loaders expect.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import torch
from gguf import GGMLQuantizationType as TensorType
from gguf import LlamaFileType
from torch import Tensor

from ...common.errors import UserError
from ...common.progress import Progress
from ...models.base.single_file import SingleFileLayout
from ...numerics.affine import QuantizedWeight
from ...numerics.gguf_blocks import BLOCK_SIZE, is_symmetric, pack_q4_0, pack_q4_1, pack_q8_0, q4_1_difference
from ...numerics.int8_rows import Int8Rows
from ...storage.files import read_json_object
from ...storage.weight_export import ComponentRecord
from ..graph.source_model import SourcePipeline
from ..weights.component import Weight, WeightReader, to_float
from .preflight import GgufType, require_solution

FLOAT_TYPES = {torch.float32: TensorType.F32, torch.float16: TensorType.F16, torch.bfloat16: TensorType.BF16}
QUANTIZATION_VERSION = 2  # of the layout of ggml's blocks


class EncodedTensor(NamedTuple):
    """A tensor as a GGUF file stores it.

    Attributes:
        type: Its type.
        data: Its bytes, uint8 (rows, bytes of a row), or the values of a type of floats.
        difference: The largest difference from the artifact's weight, in steps between codes.
    """

    type: TensorType
    data: Tensor
    difference: float = 0.0


class GgufFile:
    """One component on its way to a GGUF file. Tensors are encoded one at a time.

    Args:
        component: The component's folder.
        layout: The architecture, and the names of its tensors.
        weights: Its weights.
        kind: The type that was asked for, if any.

    Raises:
        UserError: A part of a layer that is fused in the file is missing.
    """

    def __init__(self, component: str, layout: SingleFileLayout, weights: WeightReader, kind: GgufType | None) -> None:
        self._component, self._layout, self._weights, self._kind = component, layout, weights, kind
        tensors = layout.names.group(weights.names())
        self._tensors = {layout.names.prefix + name: tensor for name, tensor in tensors.items()}

    def write(self, file: Path, pipeline: SourcePipeline, progress: Progress) -> ComponentRecord:
        """Writes the file: its header needs all types and shapes first, so tensors are encoded twice."""
        writer = gguf.GGUFWriter(file, self._layout.architecture)
        types: Counter[str] = Counter()
        total, difference = 0, 0.0
        for name in self._tensors:
            encoded = self._encode(name)
            array = encoded.data.numpy()
            writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes, encoded.type)
            types[encoded.type.name] += 1
            total += array.nbytes
            difference = max(difference, encoded.difference)
        self._add_metadata(writer, pipeline, types)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for number, name in enumerate(self._tensors, 1):
            writer.write_tensor_data(self._encode(name).data.numpy())
            progress(f"writing {file.name}", number, len(self._tensors))
        writer.close()
        return ComponentRecord(
            weights=self._weights.num_weights, bytes=total, types=dict(types), max_difference=difference
        )

    def _encode(self, name: str) -> EncodedTensor:
        weight = self._weights.load_file_tensor(self._tensors[name])
        try:
            return encode(name, weight, self._kind)
        except ValueError as error:
            raise UserError(f"The weight {name!r} cannot be stored in GGUF: {error}. Quantize it again.") from error

    def _add_metadata(self, writer: Any, pipeline: SourcePipeline, types: Counter[str]) -> None:
        writer.add_name(f"{pipeline.family.pipeline_class} {self._component}")
        writer.add_quantization_version(QUANTIZATION_VERSION)
        matrices = [kind for kind, _ in types.most_common() if kind.startswith("Q")]
        if matrices:
            writer.add_file_type(LlamaFileType[f"MOSTLY_{matrices[0]}"])
        for key, value in self._layout.read_metadata(self._weights.config).items():
            add = writer.add_uint32 if isinstance(value, int) else writer.add_float32
            add(key, value)


def encode(name: str, weight: Weight, kind: GgufType | None = None) -> EncodedTensor:
    """Encodes a weight without rounding it again, but for Q4_1's minimum.

    Args:
        name: The tensor's name in the file. Readers dequantize only matrices of linear layers and embeddings.
        weight: The weight.
        kind: `q4_1` stores symmetric codes with a minimum, too.

    Raises:
        ValueError: The format cannot hold the codes.
    """
    if isinstance(weight, QuantizedWeight):
        if is_symmetric(weight) and kind != "q4_1":
            return EncodedTensor(TensorType.Q4_0, pack_q4_0(weight))
        return EncodedTensor(TensorType.Q4_1, pack_q4_1(weight), q4_1_difference(weight))
    if isinstance(weight, Int8Rows) and not weight.codes.shape[1] % BLOCK_SIZE:
        return EncodedTensor(TensorType.Q8_0, pack_q8_0(weight))
    values = to_float(weight)
    dequantized = (torch.float16,) if values.ndim > 2 else tuple(FLOAT_TYPES)  # kernels of convolutions: never blocks
    if values.ndim < 2 or not name.endswith(".weight") or values.dtype not in dequantized:
        values = values.float()
    data = values.contiguous()
    tensor_type = FLOAT_TYPES[data.dtype]
    return EncodedTensor(tensor_type, data.view(torch.uint8) if tensor_type is TensorType.BF16 else data)


def open_weights(pipeline: SourcePipeline, component: str, kind: GgufType | None) -> WeightReader:
    """Opens a component with the solution that a type needs.

    Raises:
        UserError: There is no such solution.
    """
    checkpoint = pipeline.open_checkpoint(component)
    config = read_json_object(checkpoint.folder / "config.json")
    weights = WeightReader(checkpoint, config)
    if kind == "q8_0" or (kind == "q4_0" and not weights.is_symmetric):
        return WeightReader(checkpoint, config, require_solution(pipeline, component, kind))
    return weights
