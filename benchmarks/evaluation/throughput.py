"""What measuring costs: 500 pairs of pictures, without painting and without CLIP, and once more from what was kept.

`make bench-evaluate`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from PIL import Image

from ...common.progress import Progress, progress_bars
from ...evaluate.evaluator import run_evaluation
from ...evaluate.plan import EvaluationOptions, EvaluationPlan, plan_image_pairs
from ...evaluate.results.schema import Results
from ...pipelines.hub import DEMO_PIPELINE
from ...prompts.prompt import Prompt, load_prompts, save_prompts
from ...recipes.schema import Recipe
from ..common.report import render_table, write_section

PAIRS = 500
NOISE = 4.0, 8.0  # standard deviation of the reference's and the variant's, in 8-bit steps
METRICS = ("psnr", "ssim", "mae", "text")


def write_images(folder: Path) -> Path:
    """The demo's true signs, again and again with other noise: `reference/`, `variant/`, and their prompts' file."""
    prompts = load_prompts(DEMO_PIPELINE / "prompts" / "evaluation.jsonl")
    command = [sys.executable, "-m", "edgepress.demo.signs.ground_truth", "--output", str(folder / "truth")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    pair_prompts: list[Prompt] = []
    rng = np.random.default_rng(0)
    for number in range(PAIRS):
        prompt = prompts[number % len(prompts)]
        pair_prompts.append(prompt.model_copy(update={"id": f"{number:03d}"}))
        sign = np.asarray(Image.open(folder / "truth" / f"{prompt.id}.png"))
        for side, deviation in zip(("reference", "variant"), NOISE, strict=True):
            (folder / side).mkdir(exist_ok=True)
            noisy = (sign + rng.normal(0, deviation, sign.shape)).round().clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / side / f"{number:03d}.png")
    save_prompts(pair_prompts, folder / "prompts.jsonl")
    return folder / "prompts.jsonl"


def build_plan(folder: Path, prompts: Path) -> EvaluationPlan:
    """All pairs, with nothing kept from earlier."""
    options = EvaluationOptions(prompts=str(prompts), metrics=METRICS, output=folder / "evaluation")
    evaluation_plan = plan_image_pairs(Recipe(device="bench"), folder / "reference", folder / "variant", options)
    return replace(evaluation_plan, cache=folder / "pictures")


def time_evaluation(plan: EvaluationPlan, progress: Progress) -> tuple[Results, float, float]:
    """The results, the wall time and the CPU time in seconds."""
    wall, cpu = time.monotonic(), time.process_time()
    results = run_evaluation(plan, progress)
    return results, time.monotonic() - wall, time.process_time() - cpu


def render_section(first: tuple[Results, float, float], second: tuple[Results, float, float]) -> str:
    cores = len(os.sched_getaffinity(0))
    rows = [
        [name, f"{wall:.1f}", f"{cpu:.1f}", f"{cpu / wall / cores:.0%}", f"{PAIRS / wall:.1f}"]
        for name, (_, wall, cpu) in (("all measured", first), ("all kept from earlier", second))
    ]
    costs = [
        [name, str(cost.computed), f"{cost.cpu_seconds:.1f}", f"{1000 * cost.cpu_seconds / cost.computed:.0f}"]
        for name, cost in first[0].metric_costs.items()
    ]
    return "\n\n".join(
        [
            "## What measuring costs",
            f"{PAIRS} pairs of 128 x 128 pictures in the demo's style with text, a thread for each of {cores} cores; "
            f"without painting and CLIP. Reading and writing files, intervals and tests are part of it.",
            render_table(["", "wall time, s", "CPU time, s", "of the cores", "pairs a second"], rows),
            "CPU time by metric (`text` is OCR, which reads both pictures of a pair):",
            render_table(["metric", "measured", "CPU time, s", "ms each"], costs),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as name, progress_bars() as progress:
        folder = Path(name)
        evaluation_plan = build_plan(folder, write_images(folder))
        text = render_section(time_evaluation(evaluation_plan, progress), time_evaluation(evaluation_plan, progress))
    write_section("evaluate", "make bench-evaluate", text)
    click.echo(text)


if __name__ == "__main__":
    main()
