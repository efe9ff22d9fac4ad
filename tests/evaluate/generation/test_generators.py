from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgepress.evaluate.generation.candidates import ImageSource
from edgepress.evaluate.generation.generators import PromptBatch, make_generator
from edgepress.evaluate.generation.image_cache import GenerationJob, generate_cached_images
from edgepress.evaluate.images.image_file import ImageRecord, load_record
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt

SAMPLING = SamplingParams(height=64, width=64, steps=2, guidance=0.0)
PROMPT = Prompt(id="go", prompt='a plain white wall, large red letters, top: "GO"', language="en", lines=("GO",))


@pytest.mark.slow
def test_graphs_generate_the_image_of_the_pipeline(exported: Path) -> None:
    """From the same noise; pixels differ by 2 of 255 at most."""
    source = ImageSource("onnx", exported / "onnx")
    (generated,) = make_generator(source, SAMPLING, "float32")(PromptBatch((PROMPT,), 3))
    expected = generate_images(load_pipeline(DEMO_PIPELINE, torch.float32), [PROMPT], SAMPLING, 3)[0]
    differences = np.abs(generated.image.astype(int) - np.asarray(expected).astype(int))
    assert not generated.has_nan
    assert differences.max() <= 2
    assert np.asarray(expected).std() > 10


@pytest.mark.slow
def test_graphs_are_guided_as_the_pipeline_is(exported: Path) -> None:
    """A negative prompt and a guidance scale of a prompt's own come before those of the recipe."""
    sampling, source = replace(SAMPLING, guidance=3.0, negative_prompt="a dog"), ImageSource("onnx", exported / "onnx")
    prompts = PROMPT, PROMPT.model_copy(update={"negative_prompt": "a red wall", "guidance": 2.0})
    pipeline, generate = load_pipeline(DEMO_PIPELINE, torch.float32), make_generator(source, sampling, "float32")
    images = [generate(PromptBatch((prompt,), 3))[0].image.astype(int) for prompt in prompts]
    for prompt, image in zip(prompts, images, strict=True):
        expected = generate_images(pipeline, [prompt], sampling, 3)[0]
        assert np.abs(image - np.asarray(expected).astype(int)).max() <= 2
    assert np.abs(images[0] - images[1]).max() > 2


@pytest.mark.slow
def test_nan_of_graphs_is_detected(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    shutil.copytree(exported / "onnx", folder)
    for file in folder.glob("vae*.safetensors"):
        content = file.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        nan = np.full((len(content) - start) // 4, np.nan, np.float32).tobytes()
        file.write_bytes(content[:start] + nan)  # the graphs hold offsets into the file, which must not change
    (generated,) = make_generator(ImageSource("onnx", folder), SAMPLING, "float32")(PromptBatch((PROMPT,), 0))
    assert generated.has_nan


@pytest.mark.slow
def test_truncation_notice_is_stored_in_the_cached_file(exported: Path, tmp_path: Path) -> None:
    long_prompt = PROMPT.model_copy(update={"id": "long", "prompt": "wall " * 600})
    job = GenerationJob(ImageSource("onnx", exported / "onnx"), "", "float32", SAMPLING)
    files = generate_cached_images(job, [PROMPT, long_prompt], 1, tmp_path / "cache").files
    records = [load_record(files[prompt.id, 0]) for prompt in (PROMPT, long_prompt)]
    notices = [record.truncation_notice for record in records if isinstance(record, ImageRecord)]
    assert notices[0] == ""
    assert notices[1].startswith('Prompt "wall wall')


def test_nan_of_a_pipeline_is_stored_in_the_cached_file(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(reference, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("feed_forward.w2.weight"))
    save_file(tensors | {name: torch.full_like(tensors[name], torch.nan)}, file, {"format": "pt"})
    job = GenerationJob(ImageSource("diffusers", folder), "", "float32", SAMPLING)
    files = generate_cached_images(job, [PROMPT], 1, tmp_path / "cache").files
    record = load_record(files[PROMPT.id, 0])
    assert isinstance(record, ImageRecord)
    assert record.defect == "nan"
