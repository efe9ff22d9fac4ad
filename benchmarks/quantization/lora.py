"""Measures what 4 bits cost the demo with its LoRA: merged before quantization, and as an adapter beside 4-bit weights.

Run by `make bench-lora`; needs peft. The reference has the same LoRA in its original weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from colorsys import rgb_to_hsv
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from ...common.markdown_table import render_table
from ...common.progress import Progress, progress_bars
from ...demo.training.train_lora import COLOUR, INK
from ...evaluate.evaluator import run_evaluation
from ...evaluate.plan import EvaluationOptions, plan_evaluation
from ...evaluate.results.schema import Results
from ...pipelines.hub import DEMO_LORA, DEMO_PIPELINE
from ...pipelines.sampling import batched, generate_images, load_pipeline, resolve_sampling
from ...prompts.prompt import Prompt
from ...prompts.reader import load_prompts
from ...quantize.pipeline import quantize_pipeline
from ...recipes.loader import load_recipe
from ...recipes.schema import Recipe
from ...storage.files import read_json_object
from ...storage.layout import MANIFEST
from ..common.report import compare_paired_psnr, format_mean, write_section

RECIPE = "orin"
NUM_PROMPTS = 48
MERGED, ADAPTER, PLAIN = "INT4, LoRA merged", "INT4, LoRA as adapter", "INT4 without LoRA"
SCALED = {method: f"INT4 by `{method}`, LoRA as adapter" for method in ("awq", "best")}
NAMES = {MERGED: "merged", ADAPTER: "adapter", PLAIN: "plain"} | {row: method for method, row in SCALED.items()}
INK_DISTANCE = 0.35  # of a pixel's colour from the wall's, at which it belongs to a letter
HUE_TOLERANCE = 25 / 360


def has_ink(image: np.ndarray[Any, Any]) -> bool:
    """Whether the letters of a sign, (height, width, 3) in 8 bits, have about the hue of the LoRA's ink."""
    pixels = image.reshape(-1, 3) / 255
    letters = pixels[np.linalg.norm(pixels - np.median(pixels, axis=0), axis=1) > INK_DISTANCE]
    if not len(letters):
        return False
    hues = [rgb_to_hsv(*colour)[0] for colour in (np.median(letters, axis=0), np.array(INK) / 255)]
    return bool(abs((hues[0] - hues[1] + 0.5) % 1 - 0.5) < HUE_TOLERANCE)


def measure_colour(results: Results, name: str | None) -> float:
    """The share of a variant's images, or of the reference's, whose letters have the LoRA's colour."""
    from PIL import Image

    folder = Path(results.identity.image_folder)
    images = [sample.variants[name].image if name else sample.reference for sample in results.samples]
    return float(
        np.mean([image is not None and has_ink(np.asarray(Image.open(folder / image.file))) for image in images])
    )


def write_adapter_images(model: Path, recipe: Recipe, prompts: Sequence[Prompt], folder: Path) -> None:
    """Generates images of a quantized pipeline with the demo's LoRA as an adapter."""
    pipeline = load_pipeline(model, torch.float32)
    pipeline.load_lora_weights(DEMO_LORA)
    folder.mkdir()
    sampling = resolve_sampling(recipe.evaluation, DEMO_PIPELINE)
    for batch in batched(prompts, sampling.batch_size):
        for prompt, image in zip(batch, generate_images(pipeline, batch, sampling), strict=True):
            image.save(folder / f"{prompt.id}.png")


def count_rescaled(model: Path) -> tuple[int, int]:
    """The number of linears of a quantized transformer that read or return scaled values, and of all its linears."""
    linears = read_json_object(model.parent / MANIFEST)["layers"]
    linears = [layer for layer in linears if layer["layer"].startswith("transformer.")]
    return sum(layer.get("is_rescaled", False) for layer in linears), len(linears)


def quantize_without_lora(method: str, folder: Path, progress: Progress) -> Path:
    """Quantizes the demo with another method; returns the quantized pipeline."""
    plain = load_recipe(RECIPE)
    quantize = plain.quantize.model_copy(update={"method": method})
    recipe = plain.model_copy(update={"quantize": quantize})
    return quantize_pipeline(recipe, DEMO_PIPELINE, folder / method, progress=progress).model


def evaluate_variants(folder: Path, progress: Progress) -> tuple[dict[str, Results], dict[str, tuple[int, int]]]:
    """Quantizes the demo with and without its LoRA, and compares each with its reference.

    Returns:
        The results by row, and what `count_rescaled` returns by method.
    """
    plain = load_recipe(RECIPE)
    recipe = plain.model_copy(update={"loras": ("demo",)})
    merged = quantize_pipeline(recipe, DEMO_PIPELINE, folder / "with", progress=progress).model
    quantized = quantize_pipeline(plain, DEMO_PIPELINE, folder / "without", progress=progress).model
    prompts = load_prompts(DEMO_LORA / "prompts.jsonl")[:NUM_PROMPTS]
    write_adapter_images(quantized, recipe, prompts, folder / "images")
    scaled = {method: quantize_without_lora(method, folder, progress) for method in SCALED}
    for method, model in scaled.items():
        write_adapter_images(model, recipe, prompts, folder / f"images-{method}")
    common: dict[str, Any] = {"prompts": str(DEMO_LORA / "prompts.jsonl"), "limit": NUM_PROMPTS, "gates": False}
    candidates = (
        f"{NAMES[MERGED]}={merged}",
        f"{NAMES[ADAPTER]}={folder / 'images'}",
        *(f"{method}={folder / f'images-{method}'}" for method in SCALED),
    )
    with_lora = EvaluationOptions(candidates=candidates, output=folder / "a", **common)
    without = EvaluationOptions(candidates=(f"{NAMES[PLAIN]}={quantized}",), output=folder / "b", **common)
    results = run_evaluation(plan_evaluation(recipe, with_lora), progress)
    rows = dict.fromkeys((MERGED, ADAPTER, *SCALED.values()), results)
    rows[PLAIN] = run_evaluation(plan_evaluation(plain, without), progress)
    return rows, {method: count_rescaled(model) for method, model in scaled.items()}


def render_rows(results: dict[str, Results]) -> str:
    """Returns a table of PSNR, SSIM, text accuracy and colour by variant, with the references of both kinds."""
    rows = []
    for name, evaluation in results.items():
        group = evaluation.variants[NAMES[name]].groups[0]
        psnr, ssim, text = group.pair_scores["psnr"], group.pair_scores["ssim"], group.image_scores["text_accuracy"]
        colours = measure_colour(evaluation, NAMES[name]), measure_colour(evaluation, None)
        rows.append(
            [
                name,
                format_mean(psnr.mean, 1, 2),
                f"{psnr.worst:.2f}",
                format_mean(ssim.mean, 1, 4),
                f"{text.variant.mean:.1%} ({text.reference.mean:.1%})",
                format_mean(text.drop, 100, 1),
                f"{colours[0]:.0%} ({colours[1]:.0%})",
            ]
        )
    columns = [
        "",
        "PSNR dB (95 %)",
        "worst",
        "SSIM (95 %)",
        "text accuracy % (reference)",
        "its drop (95 %)",
        f"{COLOUR} (reference)",
    ]
    return render_table(columns, rows)


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as folder, progress_bars() as progress:
        results, rescaled = evaluate_variants(Path(folder), progress)
        table = render_rows(results)
    gains = {
        row: compare_paired_psnr(results[row], results[ADAPTER], NAMES[row], NAMES[ADAPTER])
        for row in (MERGED, *SCALED.values())
    }
    counts = [f"{number} of {total} linear layers by `{method}`" for method, (number, total) in rescaled.items()]
    body = "\n\n".join(
        [
            "## The demo with its LoRA",
            f"Recipe `{RECIPE}` (method `{load_recipe(RECIPE).quantize.method}`), {NUM_PROMPTS} held-out English "
            f"prompts that ask for {COLOUR} letters, one seed, computed in float32. All but the last row are compared "
            "with the original pipeline with the LoRA in its weights, the last one with the original pipeline as it "
            "is. Intervals are bootstrapped over prompts; drops are paired.",
            table,
            f"Merged before quantization, the PSNR differs by {format_mean(gains[MERGED], 1, 2)} dB from that of the "
            "adapter, paired over the same prompts.",
            f"Quantization scaled the inputs or outputs of {', '.join(counts)} of the transformer, and the adapters "
            "undo that. Their PSNR differs by "
            + " and ".join(f"{format_mean(gains[row], 1, 2)} dB (`{method}`)" for method, row in SCALED.items())
            + " from that of the adapter beside layers that are not scaled.",
        ]
    )
    write_section("lora", "make bench-lora", body)
    click.echo(body)


if __name__ == "__main__":
    main()
