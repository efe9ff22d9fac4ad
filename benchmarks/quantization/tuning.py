"""Measures what tuning gains on the demo, at equal size: the model itself, and its other solutions.

Run by `make bench-tune`. Images are generated for the final half of the evaluation prompts, on which nothing was
chosen. A solution's weights are dequantized and run in float32; its activations are rounded as on a device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import torch

from ...common.progress import Progress, progress_bars
from ...evaluate.evaluator import run_evaluation
from ...evaluate.plan import EvaluationOptions, plan_evaluation
from ...evaluate.results.schema import Results
from ...export.verification.golden import TorchReference
from ...models.registry import get_family
from ...pipelines.hub import DEMO_PIPELINE, read_pipeline_class
from ...pipelines.sampling import batched, generate_images, resolve_sampling
from ...quantize.pipeline import quantize_pipeline
from ...quantize.result import QuantizeResult
from ...quantize.tuning.activations import quantize_inputs
from ...recipes.loader import load_recipe
from ...recipes.schema import Recipe, Scheme
from ...storage.checkpoint import Checkpoint
from ...storage.layout import solution_folder
from ..common.prompt_halves import Half, load_half, write_half
from ..common.report import compare_paired_psnr, format_mean, render_table, write_section

METRICS = ("psnr", "ssim", "text_accuracy", "ned", "exact")
QUANTIZATIONS = {
    "rtn": {"method": "rtn", "tune": "off"},
    "best": {"method": "best", "tune": "off"},
    "best, tuned": {"method": "best", "tune": "auto"},
}
SOLUTIONS = {  # of the recipes orin, rk3576 and pi5
    "symmetric": Scheme(group_size=128, symmetric=True),
    "narrow": Scheme(group_size=32, symmetric=True, narrow_range=True),
    "w8a8": Scheme(bits=8, group_size="channel", symmetric=True, narrow_range=True, activations="dynamic"),
}


def make_recipe(name: str) -> Recipe:
    """Returns the recipe orin with the settings and the solutions that are compared."""
    recipe = load_recipe("orin")
    changes = QUANTIZATIONS[name] | {"extra_schemes": SOLUTIONS if name != "rtn" else {}}
    return recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update=changes)})


def generate_solution_images(model: Path, scheme: str, half: Half, folder: Path) -> Path:
    """Generates an image of every prompt of a half with the weights of a solution; returns their folder."""
    components = [part for part in ("transformer", "text_encoder") if solution_folder(model, scheme, part).is_dir()]
    solutions = {part: Checkpoint(solution_folder(model, scheme, part)) for part in components}
    pipeline = TorchReference(model, get_family(read_pipeline_class(model)), solutions).load_pipeline()
    if SOLUTIONS[scheme].quantizes_activations:
        for part, solution in solutions.items():
            linears = [name.removesuffix(".qweight") for name in solution.names() if name.endswith(".qweight")]
            quantize_inputs(getattr(pipeline, part), dict.fromkeys(linears))
    sampling = resolve_sampling(load_recipe("orin").evaluation, DEMO_PIPELINE)
    folder.mkdir(parents=True)
    for prompts in batched(load_half(half), sampling.batch_size):
        with torch.no_grad():
            images = generate_images(pipeline, prompts, sampling)
        for prompt, image in zip(prompts, images, strict=True):
            image.save(folder / f"{prompt.id}.png")
    return folder


def measure(results: Mapping[str, QuantizeResult], half: Half, folder: Path, progress: Progress) -> Results:
    """Evaluates models and their solutions against the demo."""
    candidates = {name.replace(", ", "-"): result.model for name, result in results.items()}
    for name in ("best", "best, tuned"):
        for scheme in SOLUTIONS:
            label = f"{scheme}-tuned" if name != "best" else scheme
            candidates[label] = generate_solution_images(results[name].model, scheme, half, folder / label)
    options = EvaluationOptions(
        model="demo",
        candidates=tuple(f"{name}={path}" for name, path in candidates.items()),
        prompts=str(write_half(half, folder / "prompts")),
        limit=len(load_half(half)),
        metrics=METRICS,
        gates=False,
        noise_floor=False,
        output=folder / "evaluation",
    )
    return run_evaluation(plan_evaluation(load_recipe("orin"), options), progress)


def render_scores(results: Results) -> str:
    """Returns a table of the scores of all variants."""
    rows = []
    for name, variant in results.variants.items():
        group = variant.groups[0]
        psnr, text = group.pair_scores["psnr"], group.image_scores["text_accuracy"]
        rows.append([name, format_mean(psnr.mean), f"{psnr.worst:.2f}", format_mean(text.drop, 100, 1)])
    return render_table(["weights", "PSNR dB (95 %)", "worst", "text accuracy drop, points (95 %)"], rows)


def render_gains(results: Results) -> str:
    """Returns a table of paired differences in PSNR."""
    pairs = [("best-tuned", "best"), ("best-tuned", "rtn"), *((f"{scheme}-tuned", scheme) for scheme in SOLUTIONS)]
    rows = [[name, base, format_mean(compare_paired_psnr(results, results, name, base))] for name, base in pairs]
    return render_table(["weights", "over", "gain, dB (95 %)"], rows)


def render_tuning(result: QuantizeResult) -> str:
    """Returns a table of what the manifest records of tuning."""
    rows = [
        [
            scheme,
            str(record.samples),
            f"{record.best_step} of {record.steps}",
            f"{record.validation_before:.3g}",
            f"{record.validation_after:.3g}",
        ]
        for records in result.manifest.tuning.values()
        for scheme, record in records.items()
    ]
    return render_table(["solution", "samples", "best step", "error before", "error after"], rows)


@click.command(help=__doc__)
@click.option("--half", type=click.Choice(["choosing", "final"]), default="final", show_default=True)
def main(half: Half) -> None:
    with tempfile.TemporaryDirectory() as name, progress_bars() as progress:
        folder = Path(name)
        results = {
            name: quantize_pipeline(make_recipe(name), DEMO_PIPELINE, folder / name, progress=progress)
            for name in QUANTIZATIONS
        }
        evaluation = measure(results, half, folder, progress)
        sizes = [result.manifest.sizes["transformer"]["after"] for result in results.values()]
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in results["best, tuned"].seconds.items())
    body = "\n\n".join(
        [
            "## What tuning gains on the demo",
            f"{len(load_half(half))} evaluation prompts, the {half} half, one seed, computed in float32; weights of "
            "solutions are dequantized. Intervals are bootstrapped over prompts.",
            render_scores(evaluation),
            "Paired differences in PSNR:",
            render_gains(evaluation),
            "The velocity's mean squared error on prompts of the calibration that were not trained on:",
            render_tuning(results["best, tuned"]),
            f"Time of the tuned run with all solutions: {stages}. "
            f"The transformer takes {sizes[1]:,} bytes without tuning and {sizes[2]:,} with it.",
        ]
    )
    if half == "final":
        write_section("tuning", "make bench-tune", body)
    click.echo(body)


if __name__ == "__main__":
    main()
