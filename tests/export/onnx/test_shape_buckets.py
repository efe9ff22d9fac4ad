"""The shapes with which a host runs its graphs, against the numbers of tokens and patches counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgepress.export.onnx.shape_buckets import (
    ShapeRecorder,
    build_bucketed_graphs,
    build_dynamic_buckets,
    build_fixed_buckets,
    collect_shapes,
    get_input_axes,
)
from edgepress.models.base.family import Family
from edgepress.models.base.prompt_tokens import PromptFormat
from edgepress.runtime.onnx.shape_buckets import select_bucket


def make_model(inputs: dict[str, list[int | str]], output: list[int | str]) -> ir.Model:
    values = [
        ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        for name, shape in [*inputs.items(), ("y", output)]
    ]
    return ir.Model(ir.Graph(values[:-1], values[-1:], nodes=[]), ir_version=10)


@pytest.fixture
def models() -> dict[str, ir.Model]:
    return {
        "text": make_model({"ids": [1, "L"]}, [1, "L", 4]),
        "image": make_model({"patches": ["N", 8], "text": [1, "L", 4]}, ["N", 8]),
    }


def test_axes_are_sizes_or_names(models: dict[str, ir.Model]) -> None:
    assert get_input_axes(models["image"]) == {"patches": ("N", 8), "text": (1, "L", 4)}


def test_a_recorder_returns_zeros_of_the_outputs_shape_and_counts_each_shape_once(models: dict[str, ir.Model]) -> None:
    recorder = ShapeRecorder(models)
    for length in (5, 7, 5):
        output = recorder("text", {"ids": np.zeros((1, length))})
        assert (output.shape, output.dtype, output.any()) == ((1, length, 4), np.float32, False)
    recorder("image", {"patches": np.zeros((12, 8)), "text": np.zeros((1, 7, 4))})
    assert recorder.shapes == {"text": [{"L": 5}, {"L": 7}], "image": [{"N": 12, "L": 7}]}


def test_inputs_select_the_file_that_was_made_for_their_shapes(models: dict[str, ir.Model]) -> None:
    fixed = build_fixed_buckets({"image": [{"N": 12, "L": 7}, {"N": 16, "L": 7}], "text": [{"L": 7}]})
    assert [bucket.name for bucket in fixed["image"]] == ["image-N12-L7", "image-N16-L7"]
    inputs = {"patches": np.zeros((16, 8)), "text": np.zeros((1, 7, 4))}
    assert select_bucket(build_bucketed_graphs(models, fixed), "image", inputs) == "image-N16-L7"
    assert select_bucket(build_bucketed_graphs(models, build_dynamic_buckets(models)), "image", inputs) == "image"


def test_names_of_files_differ_where_shapes_do() -> None:
    shapes = [{"N": n, "L": length} for n in (1, 11) for length in (1, 11)]
    names = [bucket.name for bucket in build_fixed_buckets({"image": shapes})["image"]]
    assert len(set(names)) == len(shapes)


class PaddingHost:
    """Pads texts to multiples of 4 tokens, and has one patch for every 16x16 pixels."""

    encoder_graph = "encoder"
    prompt_formats = (PromptFormat("tokenizer", 512),)

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return height // 16, width // 16

    def encode_prompt(self, run: Any, tokens: Any) -> Any:
        return run("text", {"ids": np.zeros((1, -(-tokens["tokenizer"].ids.size // 4) * 4))})

    def predict_velocity(self, run: Any, latents: Any, timestep: float, prompt: Any) -> Any:  # noqa: ARG002
        return run("image", {"patches": np.zeros((latents.size, 8)), "text": prompt})

    def decode_latents(self, run: Any, latents: Any) -> Any:  # noqa: ARG002
        return np.zeros((1, 1, 3))


def test_a_host_is_run_with_every_shape_of_prompts_and_images(models: dict[str, ir.Model]) -> None:
    """Up to 9 tokens are 4, 8 or 12 padded ones; images of 4x4 and of 2x8 patches are one shape."""
    host: Any = PaddingHost()
    sizes = [(64, 64), (32, 128), (64, 32)]
    shapes = collect_shapes(host, Family("SomePipeline", "transformer"), models, sizes, 9)
    assert shapes["text"] == [{"L": 4}, {"L": 8}, {"L": 12}]
    expected = {(16, 4), (16, 8), (16, 12), (8, 4), (8, 8), (8, 12)}
    assert {(axes["N"], axes["L"]) for axes in shapes["image"]} == expected
    assert len(shapes["image"]) == len(expected)
