"""The text recognizer of PP-OCRv6, small, from the package rapidocr: an ONNX graph.

Its blocks mix pixels by depthwise convolutions and channels by pairs of linears with a GELU between them, as
transformers do; two blocks with attention follow, whose width of 120 no group size divides. Quantized are the pairs of
linears, which the graph has as convolutions of one pixel. Inputs are lines of text drawn with Pillow's own font, on
grounds of several colours. The output is the logits of all characters.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...quantize.plan import QuantBlock
from .texts import load_sentences
from .yardstick import make_block, write_checkpoint

REQUIREMENT = "rapidocr==3.10.0"
HEIGHT, WIDTH = 48, 320
SMALLEST_GROUP = 32  # widths that it does not divide cannot be quantized
BATCH_SIZE = 16
WORDS_PER_LINE = 3
PATH = "convolutions"
NUM_LINES = 320


class TextRecognizer:
    """See `Yardstick`.

    Args:
        packages: Where the package is installed.
        folder: Where the weights are written as a checkpoint.
    """

    title = "text recognizer: PP-OCRv6 small (convolutions, pointwise linears up to width 768)"

    def __init__(self, packages: Path, folder: Path) -> None:
        import onnx
        from onnx import numpy_helper

        self.graph = onnx.load(packages / "rapidocr" / "models" / "PP-OCRv6_rec_small.onnx")
        constants = {node.output[0]: node for node in self.graph.graph.node if node.op_type == "Constant"}
        stored = {tensor.name: tensor for tensor in self.graph.graph.initializer}
        stored |= {name: node.attribute[0].t for name, node in constants.items()}
        self.tensors: dict[str, Any] = {}  # of the graph, by linear
        self.inputs: dict[str, str] = {}  # names of values, by linear
        self.shapes: dict[str, tuple[int, ...]] = {}
        weights: dict[str, Tensor] = {}
        for node in self.graph.graph.node:
            tensor = stored.get(node.input[1]) if node.op_type == "Conv" else None
            if tensor is None or list(tensor.dims[2:]) != [1, 1] or tensor.dims[1] % SMALLEST_GROUP:
                continue
            if tensor.dims[0] % SMALLEST_GROUP or _is_grouped(node):
                continue
            name = f"linear_{len(weights)}"
            values = numpy_helper.to_array(tensor)
            weights[f"{PATH}.{name}.weight"] = torch.from_numpy(values.copy()).float().flatten(1)
            self.tensors[name], self.inputs[name], self.shapes[name] = tensor, node.input[0], values.shape
        self.checkpoint = write_checkpoint(weights, folder)
        self.config: dict[str, Any] = {}
        self.blocks: tuple[QuantBlock, ...] = (make_block(PATH, [(name,) for name in self.tensors]),)
        self.logits = next(node.input[0] for node in reversed(self.graph.graph.node) if node.op_type == "Softmax")
        lines = draw_lines()
        self.calibration: Sequence[Any] = lines[::2]
        self.evaluation: Sequence[Any] = lines[1::2]

    def run(self, weights: Mapping[str, Tensor], inputs: Sequence[Any]) -> Tensor:
        """Returns logits (inputs, positions x characters)."""
        for name, tensor in self.tensors.items():
            full_name = f"{PATH}.{name}.weight"
            weight = weights[full_name] if full_name in weights else self.checkpoint.load_tensor(full_name)
            tensor.ClearField("float_data")
            tensor.raw_data = weight.numpy().reshape(self.shapes[name]).tobytes()
        return torch.cat([torch.from_numpy(logits).flatten(1) for (logits,) in self._compute([self.logits], inputs)])

    def observe(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        """Returns every pixel that a linear reads, as a token."""
        self.run({}, inputs[:1])  # the original weights
        tokens: dict[str, list[Tensor]] = {}
        for values in self._compute(list(self.inputs.values()), inputs):
            for name, value in zip(self.inputs, values, strict=True):
                x = torch.from_numpy(value).movedim(1, -1).flatten(0, -2)
                tokens.setdefault(f"{PATH}.{name}", []).append(x[:: max(1, len(x) // 1024)].clone())
        return {name: torch.cat(parts) for name, parts in tokens.items()}

    def _compute(self, names: Sequence[str], inputs: Sequence[Any]) -> Any:
        """Yields values of the graph for batches of inputs."""
        import onnx
        import onnxruntime

        known = {output.name for output in self.graph.graph.output}
        missing = [name for name in dict.fromkeys(names) if name not in known]
        added = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in missing]
        self.graph.graph.output.extend(added)
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(self.graph.SerializeToString(), options, ["CPUExecutionProvider"])
        finally:
            for _ in added:
                del self.graph.graph.output[-1]
        source = session.get_inputs()[0].name
        for start in range(0, len(inputs), BATCH_SIZE):
            yield session.run(list(names), {source: np.stack(inputs[start : start + BATCH_SIZE])})


def draw_lines() -> list[Any]:
    """Draws words of sentences; returns images (3, height, width) float32 from -1 to 1."""
    from PIL import Image, ImageDraw, ImageFont

    generator, images = random.Random(0), []
    for sentence in load_sentences()[:NUM_LINES]:
        parts = sentence.split()
        start = generator.randrange(max(1, len(parts) - WORDS_PER_LINE))
        ground = tuple(generator.randrange(128, 256) for _ in range(3))
        ink = tuple(generator.randrange(0, 96) for _ in range(3))
        image = Image.new("RGB", (WIDTH, HEIGHT), ground)
        font = ImageFont.load_default(generator.randrange(20, 34))
        text = " ".join(parts[start : start + WORDS_PER_LINE])
        ImageDraw.Draw(image).text((generator.randrange(2, 12), generator.randrange(2, 12)), text, ink, font)
        images.append((np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5)
    return images


def _is_grouped(node: Any) -> bool:
    return any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)
