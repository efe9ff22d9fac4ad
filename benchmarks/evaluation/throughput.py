"""Measures the time of scoring 500 pairs of images, and of reading their scores from the cache.

Run by `make bench-evaluate`. Neither generating images nor CLIP is included.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from PIL import Image

from ...common.markdown_table import render_table
from ...common.progress import Progress, progress_bars
from ...demo.signs import ground_truth
from ...evaluate.evaluator import run_evaluation
from ...evaluate.plan import EvaluationOptions, EvaluationPlan, plan_image_pairs
from ...evaluate.results.schema import Results
from ...pipelines.hub import DEMO_PIPELINE
from ...prompts.prompt import Prompt, save_prompts
from ...prompts.reader import load_prompts
from ...recipes.schema import Recipe
from ..common.report import write_section

NUM_PAIRS = 500
NOISE_STD = {"reference": 4.0, "variant": 8.0}  # in 8-bit steps
METRICS = ("psnr", "ssim", "mae", "text")


class TimedResults(NamedTuple):
    """The results of an evaluation, its wall time and its CPU time in seconds."""

    results: Results
    wall: float
    cpu: float


def write_images(folder: Path) -> Path:
    """Writes noisy ground-truth signs to `reference/` and `variant/`, and their prompts; returns the prompts' file."""
    signs = load_prompts(DEMO_PIPELINE / "prompts" / "evaluation.jsonl")
    ground_truth.write_images(signs, folder / "ground-truth")
    prompts: list[Prompt] = []
    rng = np.random.default_rng(0)
    for number in range(NUM_PAIRS):
        sign = signs[number % len(signs)]
        prompts.append(sign.model_copy(update={"id": f"{number:03d}"}))
        image = np.asarray(Image.open(folder / "ground-truth" / f"{sign.id}.png"))
        for name, std in NOISE_STD.items():
            (folder / name).mkdir(exist_ok=True)
            noisy = (image + rng.normal(0, std, image.shape)).round().clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{number:03d}.png")
    save_prompts(prompts, folder / "prompts.jsonl")
    return folder / "prompts.jsonl"


def build_plan(folder: Path, prompts: Path) -> EvaluationPlan:
    """Plans the evaluation of all pairs, with a cache of its own."""
    options = EvaluationOptions(prompts=str(prompts), metrics=METRICS, output=folder / "evaluation")
    plan = plan_image_pairs(Recipe(device="bench"), folder / "reference", folder / "variant", options)
    return replace(plan, image_cache=folder / "images")


def time_evaluation(plan: EvaluationPlan, progress: Progress) -> TimedResults:
    """Runs an evaluation and measures its time."""
    wall, cpu = time.monotonic(), time.process_time()
    results = run_evaluation(plan, progress)
    return TimedResults(results, time.monotonic() - wall, time.process_time() - cpu)


def render_section(first: TimedResults, second: TimedResults) -> str:
    """Returns the section of docs/benchmarks/evaluation.md."""
    cores = len(os.sched_getaffinity(0))
    rows = [
        [name, f"{run.wall:.1f}", f"{run.cpu:.1f}", f"{run.cpu / run.wall / cores:.0%}", f"{NUM_PAIRS / run.wall:.1f}"]
        for name, run in (("all computed", first), ("all from the cache", second))
    ]
    costs = [
        [name, str(cost.computed), f"{cost.cpu_seconds:.1f}", f"{1000 * cost.cpu_seconds / cost.computed:.0f}"]
        for name, cost in first.results.metric_costs.items()
    ]
    return "\n\n".join(
        [
            "## What scoring costs",
            f"{NUM_PAIRS} pairs of 128 x 128 images with text in the demo's style, one thread for each of {cores} "
            "cores, without generating images and without CLIP. Reading and writing files, intervals and tests are "
            "included.",
            render_table(["", "wall time, s", "CPU time, s", "core utilization", "pairs per second"], rows),
            "CPU time by metric (`text` is OCR, which reads both images of a pair):",
            render_table(["metric", "computed", "CPU time, s", "ms each"], costs),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as name, progress_bars() as progress:
        folder = Path(name)
        plan = build_plan(folder, write_images(folder))
        body = render_section(time_evaluation(plan, progress), time_evaluation(plan, progress))
    write_section("evaluate", "make bench-evaluate", body)
    click.echo(body)


if __name__ == "__main__":
    main()
