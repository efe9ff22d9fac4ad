from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgepress.common.errors import UserError
from edgepress.evaluate.generation.candidates import ImageSource
from edgepress.evaluate.generation.generators import PromptBatch, make_generator
from edgepress.evaluate.generation.image_cache import GenerationJob, generate_cached_images
from edgepress.evaluate.images.image_file import ImageRecord, load_record
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt

SAMPLING = SamplingParams(height=64, width=64, steps=2, guidance=0.0)
WISH = Prompt(id="wish", prompt='a plain white wall, large red letters, top: "GO"', language="en", lines=("GO",))


@pytest.mark.slow
def test_graphs_paint_what_the_pipeline_paints(exported: Path) -> None:
    """From the same noise: to 1 of 255 but for a few pixels."""
    (graphs,) = make_generator(ImageSource("onnx", exported / "onnx"), SAMPLING, "float32")(PromptBatch((WISH,), 3))
    image = generate_images(load_pipeline(DEMO_PIPELINE, torch.float32), [WISH], SAMPLING, 3)[0]
    far = np.abs(graphs.image.astype(int) - np.asarray(image).astype(int))
    assert not graphs.has_nan
    assert far.max() <= 2
    assert np.asarray(image).std() > 10


@pytest.mark.slow
def test_graphs_paint_without_guidance(exported: Path) -> None:
    guided = SamplingParams(height=64, width=64, steps=2, guidance=1.0)
    with pytest.raises(UserError, match="exported graphs paint without guidance"):
        make_generator(ImageSource("onnx", exported / "onnx"), guided, "float32")


@pytest.mark.slow
def test_graphs_that_make_nan_are_told(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    shutil.copytree(exported / "onnx", folder)
    for file in folder.glob("vae*.safetensors"):
        content = file.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        nan = np.full((len(content) - start) // 4, np.nan, np.float32).tobytes()
        file.write_bytes(content[:start] + nan)  # graphs name offsets, which must stay
    (made,) = make_generator(ImageSource("onnx", folder), SAMPLING, "float32")(PromptBatch((WISH,), 0))
    assert made.has_nan


@pytest.mark.slow
def test_a_prompt_that_graphs_do_not_read_to_its_end_is_told_after_the_file_too(exported: Path, tmp_path: Path) -> None:
    long = WISH.model_copy(update={"prompt": "wall " * 600})
    source = GenerationJob(ImageSource("onnx", exported / "onnx"), "", "float32", SAMPLING)
    found = generate_cached_images(source, [WISH, long.model_copy(update={"id": "long"})], 1, tmp_path / "cache")
    shots = [load_record(found[name, 0]) for name in ("wish", "long")]
    assert [isinstance(shot, ImageRecord) and shot.truncation_notice[:15] for shot in shots] == ["", "The prompt has "]


def test_a_pipeline_that_makes_nan_is_told_after_the_file_too(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(reference, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("feed_forward.w2.weight"))
    save_file(tensors | {name: torch.full_like(tensors[name], torch.nan)}, file, {"format": "pt"})
    found = generate_cached_images(
        GenerationJob(ImageSource("diffusers", folder), "", "float32", SAMPLING), [WISH], 1, tmp_path / "cache"
    )
    shot = load_record(found["wish", 0])
    assert isinstance(shot, ImageRecord)
    assert shot.defect == "nan"
