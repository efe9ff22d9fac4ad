"""Measures what tuning gains on the demo, at equal size: the model itself, and its other solutions.

Run by `make bench-tune`. Images are generated for the final half of the evaluation prompts. Of all choices one rested
on some of them, the rejection of weights by step (docs/decisions.md). A solution's weights are dequantized and run in
float32; its activations are rounded as on a device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import torch

from ...common.markdown_table import render_table
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
from ..common.report import compare_paired_psnr, format_mean, write_section

METRICS = ("psnr", "ssim")  # `make bench-quality` measures text, too
METHODS = ("rtn", "awq", "gptq", "best")
QUANTIZATIONS = {method: {"method": method, "tune": "off"} for method in METHODS} | {
    "tuned": {"method": "best", "tune": "auto"},
}
SOLUTIONS = {  # of the recipes orin, rk3576 and pi5
    "symmetric": Scheme(group_size=128, symmetric=True),
    "narrow": Scheme(group_size=32, symmetric=True, narrow_range=True),
    "w8a8": Scheme(bits=8, group_size="channel", symmetric=True, narrow_range=True, activations="dynamic"),
}


def make_recipe(name: str, schemes: Mapping[str, Scheme]) -> Recipe:
    """Returns the recipe orin with the settings that are compared, and some solutions."""
    recipe = load_recipe("orin")
    changes = QUANTIZATIONS[name] | {"extra_schemes": dict(schemes)}
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
    folder.mkdir(parents=True, exist_ok=True)
    for prompts in batched(load_half(half), sampling.batch_size):
        with torch.no_grad():
            images = generate_images(pipeline, prompts, sampling)
        for prompt, image in zip(prompts, images, strict=True):
            image.save(folder / f"{prompt.id}.png")
    return folder


def evaluate_candidates(candidates: Mapping[str, Path], half: Half, folder: Path, progress: Progress) -> Results:
    """Compares models, or folders of images, with the demo."""
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
        psnr, ssim = group.pair_scores["psnr"], group.pair_scores["ssim"]
        rows.append([name, format_mean(psnr.mean), f"{psnr.worst:.2f}", format_mean(ssim.mean, 1, 4)])
    return render_table(["weights", "PSNR dB (95 %)", "worst", "SSIM (95 %)"], rows)


def render_gains(results: Results, pairs: Sequence[tuple[str, str]]) -> str:
    """Returns a table of paired differences in PSNR."""
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


def write_model_section(folder: Path, half: Half, progress: Progress) -> None:
    """Measures what tuning gains for the model itself."""
    results = {
        name: quantize_pipeline(make_recipe(name, {}), DEMO_PIPELINE, folder / name, progress=progress)
        for name in QUANTIZATIONS
    }
    evaluation = evaluate_candidates({name: result.model for name, result in results.items()}, half, folder, progress)
    sizes = [results[name].manifest.sizes["transformer"]["after"] for name in ("best", "tuned")]
    body = "\n\n".join(
        [
            "## What tuning gains on the demo",
            f"{len(load_half(half))} evaluation prompts, the {half} half, one seed, computed in float32. Intervals are "
            "bootstrapped over prompts. `tuned` is `best`, tuned; what was called `best` until commit 0b5298e is "
            "`gptq`.",
            render_scores(evaluation),
            "Paired differences in PSNR:",
            render_gains(evaluation, [("tuned", method) for method in reversed(METHODS)]),
            "The mean squared error of velocities, on prompts of the calibration that were not trained on:",
            render_tuning(results["tuned"]),
            f"The transformer takes {sizes[0]:,} bytes without tuning and {sizes[1]:,} with it.",
        ]
    )
    _publish("tuning", "make bench-tune", half, body)


def write_solutions_section(folder: Path, half: Half, progress: Progress) -> None:
    """Measures what tuning gains for solutions, whose codes are others."""
    candidates: dict[str, Path] = {}
    for name, suffix in (("best", ""), ("tuned", "-tuned")):
        recipe, output = make_recipe(name, SOLUTIONS), folder / f"{name}-solutions"
        result = quantize_pipeline(recipe, DEMO_PIPELINE, output, progress=progress)
        for scheme in SOLUTIONS:
            images = folder / f"images-{scheme}{suffix}"
            candidates[f"{scheme}{suffix}"] = generate_solution_images(result.model, scheme, half, images)
    evaluation = evaluate_candidates(candidates, half, folder, progress)
    body = "\n\n".join(
        [
            "## What tuning gains for other solutions",
            f"{len(load_half(half))} evaluation prompts, the {half} half, one seed. Weights are dequantized to "
            "float32; activations of w8a8 are rounded to 8 bits.",
            render_scores(evaluation),
            render_gains(evaluation, [(f"{scheme}-tuned", scheme) for scheme in SOLUTIONS]),
            render_tuning(result),
        ]
    )
    _publish("tuning-solutions", "make bench-tune SOLUTIONS=1", half, body)


def _publish(section: str, command: str, half: Half, body: str) -> None:
    """Prints a section, and writes it into its page if it is about the final half."""
    if half == "final":
        write_section(section, command, body)
    click.echo(body)


@click.command(help=__doc__)
@click.option("--half", type=click.Choice(["choosing", "final"]), default="final", show_default=True)
@click.option("--solutions", is_flag=True, help="Measure other solutions instead of the model itself.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep artifacts here, and use those that are there.")
def main(half: Half, solutions: bool, folder: Path | None) -> None:
    write = write_solutions_section if solutions else write_model_section
    with tempfile.TemporaryDirectory() as temporary, progress_bars() as progress:
        write(folder or Path(temporary), half, progress)


if __name__ == "__main__":
    main()
