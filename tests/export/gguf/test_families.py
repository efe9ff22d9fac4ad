"""GGUF files of tiny pipelines of several classes, opened by diffusers' own loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgepress.benchmarks.synthetic.tiny_pipelines import write_tiny_pipeline
from edgepress.benchmarks.synthetic.tiny_sizes import SIDE
from edgepress.export.gguf.exporter import export_gguf
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    device="test",
    quantize=QuantizationSettings(method="rtn"),
    calibration=GenerationSettings(count=1, steps=1, size=(SIDE, SIDE)),
)


def generate_latents(pipeline: object) -> Tensor:
    prompts, sampling = [Prompt(id="a", prompt="a cat", language="en")], SamplingParams(SIDE, SIDE, 2, 0.0)
    return torch.as_tensor(generate_images(pipeline, prompts, sampling, output_type="latent")[0])


@pytest.mark.parametrize(
    ("class_name", "denoiser", "encoders"),
    [
        ("Flux2KleinPipeline", "transformer", ["text_encoder"]),
        ("QwenImagePipeline", "transformer", ["text_encoder"]),
        ("StableDiffusion3Pipeline", "transformer", ["text_encoder_3"]),
        ("StableDiffusionXLPipeline", "unet", []),
    ],
)
def test_diffusers_computes_the_latents_of_the_artifact(
    class_name: str, denoiser: str, encoders: list[str], tmp_path: Path
) -> None:
    """diffusers dequantizes in float16, so they differ by its rounding, and by that of Q4_1's minima."""
    from diffusers import GGUFQuantizationConfig

    write_tiny_pipeline(class_name, tmp_path / "source")
    quantize_pipeline(RECIPE, tmp_path / "source", tmp_path / "artifact")
    result = export_gguf(tmp_path / "artifact", tmp_path / "artifact")
    assert sorted(result.export.components) == sorted([denoiser, *encoders])
    pipeline = load_pipeline(tmp_path / "artifact" / "model", torch.float32)
    expected, original = generate_latents(pipeline), getattr(pipeline, denoiser)
    loaded = type(original).from_single_file(
        str(result.folder / f"{denoiser}.gguf"),
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        config=str(tmp_path / "artifact" / "model"),
        subfolder=denoiser,
        torch_dtype=torch.float32,
    )
    assert not [name for name, parameter in loaded.named_parameters() if parameter.is_meta]
    setattr(pipeline, denoiser, loaded)
    assert float((generate_latents(pipeline) - expected).abs().max()) < 0.01 * float(expected.abs().max())
