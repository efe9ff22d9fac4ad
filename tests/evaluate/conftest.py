"""Pipelines and pictures that the tests of the evaluation share."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import write_tiny_pipeline

from edgepress.evaluate.images.types import ImageArray
from edgepress.prompts.prompt import Prompt, load_prompts

DATA = Path(__file__).parent / "data"  # four true signs of the demo, drawn once by demo/signs.py


@pytest.fixture(scope="session")
def signs() -> list[tuple[Prompt, Path]]:
    """Prompts of the demo with their true pictures, 128 x 128."""
    return [(prompt, DATA / f"{prompt.id}.png") for prompt in load_prompts(DATA / "signs.jsonl")]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines") / "reference"
    write_tiny_pipeline(folder)
    return folder


@pytest.fixture(scope="session")
def candidate(reference: Path) -> Path:
    """The reference with one weight matrix of the transformer coarsened."""
    from safetensors.torch import load_file, save_file

    folder = reference.with_name("candidate") / "model"
    shutil.copytree(reference, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("feed_forward.w2.weight"))
    tensors[name] = (tensors[name] * 64).round() / 64
    save_file(tensors, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def prompts() -> tuple[Prompt, ...]:
    return (
        Prompt(id="a", prompt='a red wall: "OPEN"', language="en", lines=("OPEN",), categories={"size": "large"}),
        Prompt(id="b", prompt="白墙红字：“花园”", language="zh", lines=("花园",), categories={"size": "small"}),
        Prompt(id="c", prompt="an empty grey wall", language="en"),
    )


@pytest.fixture
def noise() -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
