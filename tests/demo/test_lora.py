"""The demo's LoRA: a colour that the demo does not know, also after quantization."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

import edgepress
from edgepress.demo.training.train_lora import COLOUR, LINEARS, make_prompts
from edgepress.numerics.psnr import compute_psnr
from edgepress.pipelines.hub import DEMO_LORA, DEMO_PIPELINE
from edgepress.pipelines.lora_files import parse_lora
from edgepress.pipelines.sampling import generate_images, load_pipeline, resolve_sampling
from edgepress.prompts.reader import load_prompts
from edgepress.recipes.schema import GenerationSettings, Recipe

PROMPTS = load_prompts(DEMO_LORA / "prompts.jsonl")
COUNT = 4
Images = list[npt.NDArray[np.uint8]]


def test_the_file_is_small_and_changes_the_attention_only() -> None:
    file = parse_lora("demo").file
    assert file.stat().st_size < 200_000
    tensors = load_file(file)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert all(name.startswith("transformer.") and ".attention." in name for name in tensors)
    assert all(name.partition(".lora_")[0].endswith(LINEARS) for name in tensors)


def test_its_prompts_are_those_that_training_writes() -> None:
    assert make_prompts() == PROMPTS
    assert all(f" {COLOUR} " in prompt.prompt or f" {COLOUR}:" in prompt.prompt for prompt in PROMPTS)


def generate(pipeline: Any) -> Images:
    sampling = resolve_sampling(GenerationSettings(), DEMO_PIPELINE)
    return [np.asarray(image) for image in generate_images(pipeline, PROMPTS[:COUNT], sampling)]


def count_inked(images: Images) -> int:
    """How many images have at least 50 pixels of about the LoRA's hue: red, some blue, little green."""
    channels = [np.moveaxis(image.astype(int), 2, 0) for image in images]
    return sum(int(((red - green > 60) & (blue - green > 40)).sum()) > 50 for red, green, blue in channels)


@pytest.fixture(scope="module")
def reference() -> Images:
    return generate(load_pipeline(DEMO_PIPELINE, torch.float32, ["demo"]))


def quantize(folder: Path, *loras: str) -> Any:
    """The demo with its transformer rounded to 4 bits."""
    recipe = Recipe.model_validate(
        {
            "device": "test",
            "quantize": {"method": "rtn", "components": ["transformer"]},
            "calibration": {"count": 1, "steps": 1},
        }
    )
    return load_pipeline(edgepress.quantize(recipe, output=folder, loras=loras).model, torch.float32)


def merge_before(folder: Path) -> Any:
    return quantize(folder, "demo")


def adapt_after(folder: Path) -> Any:
    pytest.importorskip("peft")
    pipeline = quantize(folder)
    pipeline.load_lora_weights(DEMO_LORA)
    return pipeline


@pytest.mark.slow
def test_the_original_learns_the_colour(reference: Images) -> None:
    assert count_inked(reference) == COUNT
    assert count_inked(generate(load_pipeline(DEMO_PIPELINE, torch.float32))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("apply", [merge_before, adapt_after])
def test_four_bits_keep_the_colour(tmp_path: Path, reference: Images, apply: Callable[[Path], Any]) -> None:
    images = generate(apply(tmp_path / "artifact"))
    assert count_inked(images) == COUNT
    psnr = [compute_psnr(expected, image) for image, expected in zip(images, reference, strict=True)]
    assert np.mean(psnr) > 30, psnr
