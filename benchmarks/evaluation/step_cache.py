"""What skipping denoising steps costs: images with a step cache, and with fewer steps, against those of all steps.

Run by `make bench-step-cache`. The same prompts and noise for each setting, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from ...common.markdown_table import render_table
from ...common.progress import progress_bars
from ...evaluate.stats.bootstrap import bootstrap_mean
from ...numerics.psnr import compute_psnr
from ...prompts.prompt import Prompt, prompt_seed
from ...prompts.sets import load_prompt_set
from ...runtime.generation_request import GenerationRequest
from ...runtime.pipeline import ImagePipeline
from ..common.report import format_mean, write_section

THRESHOLDS = (0.05, 0.1, 0.2, 0.3)
STEPS = 8


@dataclass(frozen=True)
class Setting:
    """A way to take fewer steps.

    Attributes:
        title: What the table calls it.
        steps: Steps of the schedule.
        threshold: Of the step cache.
    """

    title: str
    steps: int = STEPS
    threshold: float = 0.0


SETTINGS = (
    *(Setting(f"step cache {threshold:g}", threshold=threshold) for threshold in THRESHOLDS),
    *(Setting(f"{steps} steps, no cache", steps) for steps in (7, 6, 5)),
)


@dataclass
class Measured:
    """The images of a setting: their PSNR in dB, and the steps that were computed for each."""

    psnr: list[float]
    computed: list[int]
    prompts: list[str]


def measure(pipeline: ImagePipeline, prompts: Sequence[Prompt]) -> dict[str, Measured]:
    """Generates all images."""
    measured = {setting.title: Measured([], [], []) for setting in SETTINGS}
    with progress_bars() as progress:
        for number, prompt in enumerate(prompts):
            progress("generating", number, len(prompts))
            request = GenerationRequest(prompt.prompt, prompt_seed(prompt.id, 0), STEPS)
            reference = np.asarray(pipeline.generate(request))
            for setting in SETTINGS:
                image = pipeline.generate(replace(request, steps=setting.steps, step_cache=setting.threshold))
                psnr = compute_psnr(reference, np.asarray(image))
                entry = measured[setting.title]
                entry.computed.append(setting.steps - pipeline.num_reused_steps)
                if psnr is not None:
                    entry.psnr.append(psnr)
                    entry.prompts.append(prompt.id)
        progress("generating", len(prompts), len(prompts))
    return measured


def render_rows(measured: dict[str, Measured]) -> list[list[str]]:
    """The rows of the table."""
    rows = []
    for title, entry in measured.items():
        mean = bootstrap_mean(entry.psnr, entry.prompts) if entry.psnr else None
        identical = len(entry.computed) - len(entry.psnr)
        rows.append(
            [title, f"{np.mean(entry.computed):.2f}", format_mean(mean, digits=1) if mean else "", str(identical)]
        )
    return rows


@click.command(help=__doc__)
@click.option("--artifact", type=click.Path(path_type=Path), default=Path("artifacts/pi5"), show_default=True)
@click.option("--prompts", default="demo/pipeline/prompts/evaluation.jsonl", show_default=True)
@click.option("--limit", type=click.IntRange(2), default=32, show_default=True)
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(artifact: Path, prompts: str, limit: int, print_only: bool) -> None:
    pipeline = ImagePipeline(artifact, keep_loaded=True)
    rows = render_rows(measure(pipeline, load_prompt_set(prompts)[:limit]))
    table = render_table(["setting", "steps computed, of 8", "PSNR against 8 steps, dB", "identical images"], rows)
    introduction = (
        f"{limit} prompts of the evaluation set, the demo in `{artifact.name}`, 128 x 128. PSNR is the mean over "
        "images that differ, with its 95 % interval over prompts."
    )
    body = "\n\n".join(["## Step cache", introduction, table])
    if not print_only:
        write_section("step-cache", "make bench-step-cache", body)
    click.echo(body)


if __name__ == "__main__":
    main()
