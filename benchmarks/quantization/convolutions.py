"""Measures what `conv: int8` saves and costs: tiny U-Nets with random weights, and the demo's trained VAE.

Run by `make bench-conv`. The velocity is the denoiser's output on the reference's own inputs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from ...common.markdown_table import render_table
from ...common.progress import Progress, progress_bars
from ...evaluate.stats.bootstrap import MeanCI, bootstrap_mean
from ...numerics.psnr import compute_psnr
from ...pipelines.hub import DEMO_PIPELINE
from ...pipelines.sampling import SamplingParams, generate_images, load_pipeline, resolve_sampling
from ...prompts.prompt import Prompt
from ...prompts.reader import load_prompts
from ...prompts.sets import resolve_prompt_set
from ...quantize.pipeline import quantize_pipeline
from ...recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from ..common.report import format_mean, write_section
from ..synthetic.tiny_pipelines import write_tiny_pipeline
from ..synthetic.tiny_sizes import SIDE, UNET_CLASSES

SUBJECTS = ("cat", "dog", "door", "sky", "tree", "man", "sign", "cup", "hill", "sea", "bus", "hat")
SAMPLING = SamplingParams(SIDE, SIDE, steps=4, guidance=5.0)
NUM_DEMO_PROMPTS = 8
Call = tuple[tuple[Any, ...], dict[str, Any], torch.Tensor]


def record_calls(pipeline: Any, prompts: Sequence[Prompt]) -> list[list[Call]]:
    """Generates images, and returns the inputs and outputs of the U-Net's calls for each prompt."""
    calls: list[list[Call]] = []
    forward = pipeline.unet.forward

    def record(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        calls[-1].append((args, kwargs, outputs[0]))
        return outputs

    pipeline.unet.forward = record
    for prompt in prompts:
        calls.append([])
        generate_images(pipeline, [prompt], SAMPLING, output_type="latent")
    return calls


@torch.no_grad()
def measure_errors(unet: Any, calls: Sequence[Sequence[Call]]) -> list[float]:
    """The error of a U-Net's outputs relative to the recorded ones, in dB, for each prompt."""
    errors = []
    for prompt_calls in calls:
        pairs = [(unet(*args, **kwargs)[0].double(), output.double()) for args, kwargs, output in prompt_calls]
        error = sum(float((actual - expected).square().sum()) for actual, expected in pairs)
        errors.append(10 * math.log10(error / sum(float(expected.square().sum()) for _, expected in pairs)))
    return errors


def measure_class(name: str, folder: Path, progress: Progress) -> list[str]:
    """Quantizes a tiny pipeline with and without the key; returns a row of the table."""
    source = folder / name
    write_tiny_pipeline(name, source)
    prompts = [Prompt(id=subject, prompt=f"a {subject}", language="en") for subject in SUBJECTS]
    calls = record_calls(load_pipeline(source, torch.float32), prompts)
    sizes, errors = {}, {}
    for conv in ("keep", "int8"):
        recipe = Recipe(
            device="bench",
            quantize=QuantizationSettings.model_validate({"method": "gptq", "conv": conv}),
            calibration=GenerationSettings(count=2, steps=2, size=(SIDE, SIDE), guidance=SAMPLING.guidance),
        )
        result = quantize_pipeline(recipe, source, folder / f"{name}-{conv}", progress=progress)
        sizes[conv] = result.manifest.sizes["unet"]
        errors[conv] = measure_errors(load_pipeline(result.model, torch.float32).unet, calls)
    differences = [int8 - keep for int8, keep in zip(errors["int8"], errors["keep"], strict=True)]
    kilobytes = [sizes["keep"]["before"], sizes["keep"]["after"], sizes["int8"]["after"]]
    means = [_mean(values, SUBJECTS) for values in (errors["keep"], errors["int8"], differences)]
    return [f"`{name}`", *(f"{size / 1e3:.0f}" for size in kilobytes), *map(format_mean, means)]


def measure_vae(folder: Path, progress: Progress) -> tuple[MeanCI, dict[str, int]]:
    """Quantizes the demo's VAE; returns the PSNR of decoded images against the original's, and its bytes."""
    recipe = Recipe(
        device="bench",
        quantize=QuantizationSettings(method="rtn", components=("vae",), conv="int8"),
        calibration=GenerationSettings(count=1, steps=1),
    )
    result = quantize_pipeline(recipe, DEMO_PIPELINE, folder / "vae", progress=progress)
    prompts = load_prompts(resolve_prompt_set(DEMO_PIPELINE, "auto", "evaluation"))[:NUM_DEMO_PROMPTS]
    sampling = resolve_sampling(GenerationSettings(), DEMO_PIPELINE)
    images = [
        generate_images(load_pipeline(source, torch.float32), prompts, sampling)
        for source in (DEMO_PIPELINE, result.model)
    ]
    values = [compute_psnr(np.asarray(a), np.asarray(b)) for a, b in zip(*images, strict=True)]
    finite = [(value, prompt.id) for value, prompt in zip(values, prompts, strict=True) if value is not None]
    return _mean([value for value, _ in finite], [name for _, name in finite]), result.manifest.sizes["vae"]


def _mean(values: Sequence[float], prompts: Sequence[str]) -> MeanCI:
    mean = bootstrap_mean(values, prompts)
    if mean is None:
        raise click.ClickException("Nothing to compare: no image differs.")
    return mean


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as name, progress_bars() as progress:
        rows = [measure_class(pipeline, Path(name), progress) for pipeline in UNET_CLASSES]
        psnr, sizes = measure_vae(Path(name), progress)
    columns = ["tiny, random weights", "U-Net, kB", "4 bits", "and `conv: int8`", "error, dB", "with it", "paired"]
    body = "\n\n".join(
        [
            "### What it saves and costs",
            f"U-Nets in float32 before. Errors are those of the velocity relative to its size, over {len(SUBJECTS)} "
            f"prompts in {SAMPLING.steps} steps with guidance, with 95 % intervals over prompts; linears by `gptq`. "
            "Random weights show the arithmetic, not a trained model's images.",
            render_table(columns, rows),
            f"The demo's trained VAE, which is in 16 bits, goes from {sizes['before'] / 1e3:.0f} to "
            f"{sizes['after'] / 1e3:.0f} kB. Images decoded with it have {format_mean(psnr)} dB PSNR against the "
            f"original's ({NUM_DEMO_PROMPTS} prompts).",
        ]
    )
    write_section("convolutions", "make bench-conv", body)
    click.echo(body)


if __name__ == "__main__":
    main()
