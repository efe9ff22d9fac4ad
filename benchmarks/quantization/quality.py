"""Measures what 4 bits cost the demo: PSNR, SSIM and text accuracy of each method, or the gain of each step.

Run by `make bench-quality` (methods), `make bench-ladder` (steps) and `make bench-budget` (mixed precision). Images are
generated for evaluation prompts: on the half that no choice rests on, but for the steps, among which is chosen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...common.markdown_table import render_table
from ...common.progress import Progress, progress_bars
from ...evaluate.evaluator import run_evaluation
from ...evaluate.plan import EvaluationOptions, plan_evaluation
from ...evaluate.results.schema import ALL_GROUP, Results, ScoreGroup
from ...numerics.awq_packing import bits_per_weight
from ...pipelines.hub import DEMO_PIPELINE
from ...quantize.allocation.options import GROUPED, OPTIONS
from ...quantize.pipeline import quantize_pipeline
from ...recipes.loader import load_recipe
from ...recipes.schema import Scheme, Step
from ...storage.manifest import Manifest, read_manifest
from ..common.prompt_halves import Half, load_half, write_half
from ..common.report import (
    CANDIDATE_NAME,
    compare_paired_psnr,
    format_mean,
    get_overall_scores,
    write_section,
)

METHODS: dict[str, dict[str, Any]] = {
    "rtn": {"method": "rtn", "tune": "off"},
    "awq": {"method": "awq", "tune": "off"},
    "best": {"method": "best", "tune": "off"},
    "best, tuned": {"method": "best", "tune": "auto"},
}
GAINS = (("best, tuned", "best"), ("best, tuned", "rtn"), ("best", "rtn"), ("best", "awq"), ("awq", "rtn"))
FORMATS: dict[str, dict[str, Any]] = {
    "groups of 128": {"scheme": Scheme()},
    "groups of 64": {"scheme": Scheme(group_size=64)},
    "budget 4.3125bpw": {"budget": "4.3125bpw"},
    "groups of 32": {"scheme": Scheme(group_size=32)},
    "budget 4.625bpw": {"budget": "4.625bpw"},
}
FORMAT_GAINS = (("budget 4.3125bpw", "groups of 64"), ("budget 4.625bpw", "groups of 32"))
STEP_SETS: tuple[tuple[Step, ...], ...] = (
    ("range_search",),
    ("scale", "clip"),
    ("gptq",),
    ("gptq", "scale_refit"),
    ("range_search", "gptq"),
    ("scale", "gptq"),
)


def evaluate_quantization(quantization: dict[str, Any], half: Half, folder: Path, progress: Progress) -> Results:
    """Quantizes the demo with changed settings of the recipe orin, and evaluates it on a half of the prompts.

    Extra schemes are left out, since the images do not depend on them.
    """
    recipe = load_recipe("orin")
    recipe = recipe.model_copy(
        update={"quantize": recipe.quantize.model_copy(update=quantization | {"extra_schemes": {}})}
    )
    result = quantize_pipeline(recipe, DEMO_PIPELINE, folder, progress=progress)
    prompts = write_half(half, folder / "prompts")
    options = EvaluationOptions(
        candidates=(f"{CANDIDATE_NAME}={result.output / 'model'}",),
        prompts=str(prompts),
        limit=len(load_half(half)),
        gates=False,
    )
    return run_evaluation(plan_evaluation(recipe, options), progress)


def render_psnr_table(results: dict[str, Results]) -> str:
    """Returns a table of PSNR and SSIM by method."""
    rows = []
    for method, evaluation in results.items():
        summary = get_overall_scores(evaluation).pair_scores
        psnr, ssim = summary["psnr"], summary["ssim"]
        rows.append([method, format_mean(psnr.mean, 1, 2), f"{psnr.worst:.2f}", format_mean(ssim.mean, 1, 4)])
    return render_table(["method", "PSNR dB (95 %)", "worst", "SSIM (95 %)"], rows)


def render_text_table(results: dict[str, Results]) -> str:
    """Returns a table of text scores and their drops by method, for every reported group of prompts."""
    first = next(iter(results.values()))
    names = [group.name for group in first.variants[CANDIDATE_NAME].groups if _is_reported(group)]
    rows = [_text_row(name, results, score) for score in ("exact", "text_accuracy", "ned") for name in names]
    columns = [f"{method} (drop, 95 %)" for method in results]
    return render_table(["score %", "prompts", "images", "reference", *columns], rows)


def _is_reported(group: ScoreGroup) -> bool:
    return group.name == ALL_GROUP or group.name.split(":")[0] in ("language", "size", "lines", "pattern")


def _text_row(name: str, results: dict[str, Results], score: str) -> list[str]:
    all_groups = [result.variants[CANDIDATE_NAME].groups for result in results.values()]
    groups = [next(group for group in groups if group.name == name) for groups in all_groups]
    scores = [group.image_scores[score] for group in groups]
    drops = [f"{value.variant.mean:.1%} ({format_mean(value.drop, 100, 1)})" for value in scores]
    return [score, name, str(groups[0].num_pairs), f"{scores[0].reference.mean:.1%}", *drops]


def render_gain_table(results: dict[str, Results], pairs: Sequence[tuple[str, str]]) -> str:
    """Returns a table of paired differences in PSNR, the first of each pair minus the second."""
    rows = [
        [better, base, format_mean(compare_paired_psnr(results[better], results[base]), 1, 2)] for better, base in pairs
    ]
    return render_table(["steps", "over", "gain, dB (95 %)"], rows)


@click.command(help=__doc__)
@click.option(
    "--compare",
    type=click.Choice(["methods", "steps", "formats"]),
    default="methods",
    show_default=True,
    help="What is compared.",
)
def main(compare: str) -> None:
    write = {"methods": write_methods_section, "steps": write_steps_section, "formats": write_formats_section}[compare]
    with tempfile.TemporaryDirectory() as folder, progress_bars() as progress:
        write(Path(folder), progress)


def write_formats_section(folder: Path, progress: Progress) -> None:
    """Measures mixed precision beside one format for all layers, and writes docs/benchmarks/budget.md."""
    results = {
        name: evaluate_quantization({"method": "gptq", "tune": "off"} | settings, "final", folder / name, progress)
        for name, settings in FORMATS.items()
    }
    rows = [describe_allocation(name, read_manifest(folder / name)) for name in FORMATS]
    body = "\n\n".join(
        [
            "## Mixed precision on the demo",
            f"Transformer and text encoder by `gptq`, {len(load_half('final'))} evaluation prompts (the final half, of "
            "which one rejected trial of tuning saw 72), one seed, computed in float32. Intervals are bootstrapped "
            "over prompts.",
            render_psnr_table(results),
            "Paired differences in PSNR, at the same size:",
            render_gain_table(results, FORMAT_GAINS),
            "Layers by format. *Expected*: the sum of the layers' drifts to first order; *measured*: the drift of the "
            "velocities on calibration prompts that nothing was solved on.",
            render_table(["quantization", "bits a weight", *OPTIONS, "expected, dB", "measured, dB"], rows),
        ]
    )
    write_section("budget", "make bench-budget", body)
    click.echo(body)


def describe_allocation(name: str, manifest: Manifest | None) -> list[str]:
    """Returns a row with the formats of a model's layers."""
    assert manifest is not None
    record = manifest.allocation
    if record is None:
        size = Scheme.model_validate(manifest.recipe["quantize"]["scheme"]).resolve_group_size(128)
        counts = [str(len(manifest.layers)) if GROUPED.get(option) == size else "" for option in OPTIONS]
        return [name, f"{bits_per_weight(size):.3f}", *counts, "", ""]
    bits = 8 * record.size / sum(layer.weights for layer in record.layers)
    counts = [str(sum(layer.format == option for layer in record.layers)) for option in OPTIONS]
    return [name, f"{bits:.3f}", *counts, f"{record.expected_drift:.2f}", f"{record.drift[record.choice]:.2f}"]


def write_steps_section(folder: Path, progress: Progress) -> None:
    """Measures what each set of steps gains over rounding, and writes docs/benchmarks/ladder.md."""
    baseline = evaluate_quantization(METHODS["rtn"], "choosing", folder / "rtn", progress)
    results = {
        ", ".join(steps): evaluate_quantization(
            {"steps": steps, "tune": "off"}, "choosing", folder / "-".join(steps), progress
        )
        for steps in STEP_SETS
    }
    body = "\n\n".join(
        [
            "## What each quantization step gains on the demo",
            "Steps as in `quantize.steps`, all at 4.156 bits a weight; PSNR paired over the "
            f"{len(load_half('choosing'))} prompts of the choosing half.",
            render_gain_table({"rtn": baseline} | results, [(name, "rtn") for name in results]),
            "What `gptq` gains or loses when another step is added:",
            render_gain_table(results, [(name, "gptq") for name in results if "gptq" in name and name != "gptq"]),
        ]
    )
    write_section("ladder", "make bench-ladder", body)
    click.echo(body)


def write_methods_section(folder: Path, progress: Progress) -> None:
    """Measures each method, and writes docs/benchmarks/quality.md."""
    results = {
        name: evaluate_quantization(settings, "final", folder / name, progress) for name, settings in METHODS.items()
    }
    body = "\n\n".join(
        [
            "## What 4 bits cost the demo",
            f"Transformer and text encoder at 4.156 bits a weight, {len(load_half('final'))} evaluation prompts (the "
            "final half, of which one rejected trial of tuning saw 72), one seed, computed in float32. Intervals are "
            "bootstrapped over prompts.",
            render_psnr_table(results),
            "Paired differences in PSNR:",
            render_gain_table(results, GAINS),
            "`exact` is the share of images whose whole text is read exactly by OCR.",
            render_text_table(results),
        ]
    )
    write_section("quality", "make bench-quality", body)
    click.echo(body)


if __name__ == "__main__":
    main()
