"""What 4 bits cost the demo pipeline: rounding alone, AWQ and the best, in PSNR and in words that can be read.

`make bench-quality`: held-out evaluation prompts are painted by the reference and by every variant.
`make bench-ladder`: what each step of the ladder gains.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...common.progress import Progress, progress_bars
from ...evaluate.evaluator import run_evaluation
from ...evaluate.plan import EvaluationOptions, plan_evaluation
from ...evaluate.results.schema import ALL_GROUP, Results, ScoreGroup
from ...pipelines.hub import DEMO_PIPELINE
from ...quantize.pipeline import quantize_pipeline
from ...recipes import loader
from ...recipes.schema import Step
from ..common.report import (
    CANDIDATE_NAME,
    compare_paired_psnr,
    format_mean,
    get_overall_scores,
    render_table,
    write_section,
)

METHODS = ("rtn", "awq", "best")
PROMPTS = 128  # held-out ones, of 305: the first
# Ways up the ladder, for the table of rungs.
STEP_SETS: tuple[tuple[Step, ...], ...] = (
    ("range",),
    ("scale", "clip"),
    ("gptq",),
    ("gptq", "refit"),
    ("range", "gptq"),
    ("scale", "gptq"),
)


def evaluate_quantization(quantization: dict[str, Any], folder: Path, progress: Progress) -> Results:
    """The evaluation of one way of quantizing on the first evaluation prompts of the demo."""
    recipe = loader.load_recipe("orin")
    recipe = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update=quantization)})
    result = quantize_pipeline(recipe, DEMO_PIPELINE, folder, progress)
    options = EvaluationOptions(candidates=(f"{CANDIDATE_NAME}={result.output / 'model'}",), limit=PROMPTS, gates=False)
    return run_evaluation(plan_evaluation(recipe, options), progress)


def render_psnr_table(results: dict[str, Results]) -> str:
    rows = []
    for method, evaluation in results.items():
        summary = get_overall_scores(evaluation).pair_scores
        psnr, ssim = summary["psnr"], summary["ssim"]
        rows.append([method, format_mean(psnr.mean, 1, 2), f"{psnr.worst:.2f}", format_mean(ssim.mean, 1, 4)])
    return render_table(["method", "PSNR dB (95 %)", "worst", "SSIM (95 %)"], rows)


def render_text_table(results: dict[str, Results]) -> str:
    """Reference, variants and drops, for each group that the prompts make."""
    first = next(iter(results.values()))
    names = [group.name for group in first.variants[CANDIDATE_NAME].groups if _is_reported(group)]
    rows = [_text_row(name, results, score) for score in ("exact", "text_accuracy", "ned") for name in names]
    columns = [f"{method} (drop, 95 %)" for method in results]
    return render_table(["score %", "prompts", "pictures", "reference", *columns], rows)


def _is_reported(group: ScoreGroup) -> bool:
    return group.name == ALL_GROUP or group.name.split(":")[0] in ("language", "size", "lines", "pattern")


def _text_row(name: str, results: dict[str, Results], score: str) -> list[str]:
    groups = [next(g for g in found.variants[CANDIDATE_NAME].groups if g.name == name) for found in results.values()]
    reference = groups[0].image_scores[score].reference
    drops = [
        f"{g.image_scores[score].variant.mean:.1%} ({format_mean(g.image_scores[score].drop, 100, 1)})" for g in groups
    ]
    return [score, name, str(groups[0].num_pairs), f"{reference.mean:.1%}", *drops]


def render_gain_table(results: dict[str, Results], pairs: Sequence[tuple[str, str]]) -> str:
    """Paired differences in PSNR of the first of each two over the second."""
    rows = [
        [better, base, format_mean(compare_paired_psnr(results[better], results[base]), 1, 2)] for better, base in pairs
    ]
    return render_table(["steps", "over", "gain, dB (95 %)"], rows)


@click.command(help=__doc__)
@click.option("--ladder", is_flag=True, help="The table of rungs instead.")
def main(ladder: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, progress_bars() as progress:
        if ladder:
            write_steps_section(Path(folder), progress)
        else:
            write_methods_section(Path(folder), progress)


def write_steps_section(folder: Path, progress: Progress) -> None:
    """What each way up the ladder gains over rounding alone."""
    baseline = evaluate_quantization({"method": "rtn"}, folder / "rtn", progress)
    results = {
        ", ".join(steps): evaluate_quantization({"steps": steps}, folder / "-".join(steps), progress)
        for steps in STEP_SETS
    }
    body = "\n\n".join(
        [
            "## What each step of the ladder gains on the demo",
            f"Steps as in `quantize.steps`, all at 4.156 bits a weight; PSNR paired over {PROMPTS} prompts.",
            render_gain_table({"rtn": baseline} | results, [(name, "rtn") for name in results]),
            "What `gptq` gains or loses by a further step:",
            render_gain_table(results, [(name, "gptq") for name in results if "gptq" in name and name != "gptq"]),
        ]
    )
    write_section("ladder", "make bench-ladder", body)
    click.echo(body)


def write_methods_section(folder: Path, progress: Progress) -> None:
    """Pictures and words by the three methods."""
    results = {method: evaluate_quantization({"method": method}, folder / method, progress) for method in METHODS}
    body = "\n\n".join(
        [
            "## What 4 bits cost the demo",
            f"Transformer and text encoder at 4.156 bits a weight, {PROMPTS} held-out evaluation prompts, one seed, "
            "computed in float32; intervals are bootstrapped over prompts.",
            render_psnr_table(results),
            "Paired differences in PSNR:",
            render_gain_table(results, [("best", "rtn"), ("best", "awq"), ("awq", "rtn")]),
            "`exact` is the share of pictures whose whole text OCR reads exactly.",
            render_text_table(results),
        ]
    )
    write_section("quality", "make bench-quality", body)
    click.echo(body)


if __name__ == "__main__":
    main()
