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

from ..evaluate.plan import Options, Plan, plan_of_pairs
from ..evaluate.results import Results
from ..evaluate.run import evaluate
from ..progress import Progress, bars
from ..prompts import Prompt, load_prompts, save_prompts
from ..recipe import Recipe
from ..sources import DEMO
from .report import table, write_section

PAIRS = 500
NOISE = 4.0, 8.0  # standard deviation of the reference's and the variant's, in 8-bit steps
METRICS = ("psnr", "ssim", "mae", "text")


def draw(folder: Path) -> Path:
    """The demo's true signs, again and again with other noise: `reference/`, `variant/`, and their prompts' file."""
    prompts = load_prompts(DEMO / "prompts" / "evaluation.jsonl")
    words = [sys.executable, "-m", "edgepress.demo.truth", "--output", str(folder / "truth")]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    asked: list[Prompt] = []
    rng = np.random.default_rng(0)
    for number in range(PAIRS):
        prompt = prompts[number % len(prompts)]
        asked.append(prompt.model_copy(update={"id": f"{number:03d}"}))
        sign = np.asarray(Image.open(folder / "truth" / f"{prompt.id}.png"))
        for side, deviation in zip(("reference", "variant"), NOISE, strict=True):
            (folder / side).mkdir(exist_ok=True)
            noisy = (sign + rng.normal(0, deviation, sign.shape)).round().clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / side / f"{number:03d}.png")
    save_prompts(asked, folder / "prompts.jsonl")
    return folder / "prompts.jsonl"


def plan(folder: Path, prompts: Path) -> Plan:
    """All pairs, with nothing kept from earlier."""
    options = Options(prompts=str(prompts), metrics=METRICS, output=folder / "evaluation")
    made = plan_of_pairs(Recipe(device="bench"), folder / "reference", folder / "variant", options)
    return replace(made, cache=folder / "pictures")


def timed(plan: Plan, progress: Progress) -> tuple[Results, float, float]:
    """The results, the wall time and the CPU time in seconds."""
    wall, cpu = time.monotonic(), time.process_time()
    results = evaluate(plan, progress)
    return results, time.monotonic() - wall, time.process_time() - cpu


def body(first: tuple[Results, float, float], second: tuple[Results, float, float]) -> str:
    cores = len(os.sched_getaffinity(0))
    rows = [
        [name, f"{wall:.1f}", f"{cpu:.1f}", f"{cpu / wall / cores:.0%}", f"{PAIRS / wall:.1f}"]
        for name, (_, wall, cpu) in (("all measured", first), ("all kept from earlier", second))
    ]
    costs = [
        [name, str(cost.made), f"{cost.seconds:.1f}", f"{1000 * cost.seconds / cost.made:.0f}"]
        for name, cost in first[0].costs.items()
    ]
    return "\n\n".join(
        [
            "## What measuring costs",
            f"{PAIRS} pairs of 128 x 128 pictures in the demo's style with text, a thread for each of {cores} cores; "
            f"without painting and CLIP. Reading and writing files, intervals and tests are part of it.",
            table(["", "wall time, s", "CPU time, s", "of the cores", "pairs a second"], rows),
            "CPU time by metric (`text` is OCR, which reads both pictures of a pair):",
            table(["metric", "measured", "CPU time, s", "ms each"], costs),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as name, bars() as progress:
        folder = Path(name)
        asked = plan(folder, draw(folder))
        text = body(timed(asked, progress), timed(asked, progress))
    write_section("evaluate", "make bench-evaluate", text)
    click.echo(text)


if __name__ == "__main__":
    main()
