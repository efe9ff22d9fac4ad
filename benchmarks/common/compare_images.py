"""Compares what images cost in two checkouts of edgepress, in turns, each with an artifact that it exported itself.

    python -m edgepress.benchmarks.common.compare_images OLD OLD_ARTIFACT ARTIFACT

Warm images are those of `bench` after its first one, with all graphs loaded. A cold one is the whole process of
`generate`, which has one graph in memory at a time. Ratios are those of neighbouring runs, so that a busy machine slows
both down.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ...common.markdown_table import render_table
from ...evaluate.report.formatting import pluralize
from .compare_checkouts import NEW_CHECKOUT, SCRATCH, Checkout, compute_ratio, get_revision
from .report import write_section

PROMPT = "a red sign"
MS, S, MB = "ms", "s", "MB"
TITLES = {
    "image": ("warm image", MS),
    "text encoder": ("text encoder", MS),
    "step": ("step, median", MS),
    "mean step": ("step, mean", MS),
    "decoder": ("decoder", MS),
    "peak of bench": ("peak memory of warm images", MB),
    "generate": ("cold image, the whole process", S),
    "CPU time of generate": ("CPU time of it", S),
    "peak of generate": ("peak memory of it", MB),
}
FACTORS = {MS: 1e3, S: 1.0, MB: 1e-6}
MEDIUM = (
    "A transformer of 125 million parameters (4 layers, 1536 wide, random weights) in W8A8. No ratio of a step may be "
    "above 0.8."
)
DEMO = "The demo in the precision of `pi5`. No ratio of a warm image may be above 0.7, and none of memory above 1."
Costs = dict[str, float]


def read_timings(content: Mapping[str, Any]) -> Costs:
    """Returns the times in seconds and the peak memory in bytes that a bench.json holds, of this or an older version.

    Args:
        content: The file. Its first image is left out.

    Returns:
        Medians over the images, and for steps also the mean.
    """
    images = (content.get("images") or content["pictures"])[1:]
    steps = [step for image in images for step in image["steps"]]
    return {
        "image": statistics.median(image["seconds"] for image in images),
        "text encoder": statistics.median(image["text_encoder"] for image in images),
        "step": statistics.median(steps),
        "mean step": statistics.fmean(steps),
        "decoder": statistics.median(image["decoder"] for image in images),
        "peak of bench": max(image.get("peak_rss") or image["peak"] for image in images),
    }


def measure_images(checkout: Checkout, artifact: Path, num_images: int, options: Sequence[str]) -> Costs:
    """Measures warm images and a cold one.

    Args:
        checkout: The checkout that runs.
        artifact: An artifact that it can read.
        num_images: Number of warm images.
        options: Options of `bench` and `generate`, such as a size.

    Raises:
        ClickException: A command failed.
    """
    path = str(artifact.resolve())
    checkout.measure(["bench", path, "--images", str(num_images), *options, "--output", f"{SCRATCH}/bench"])
    costs = read_timings(json.loads((checkout.scratch / "bench" / "bench.json").read_text("utf-8")))
    cold = checkout.measure(["generate", path, "--prompt", PROMPT, *options, "--output", f"{SCRATCH}/image.png"])
    return costs | {"generate": cold.seconds, "CPU time of generate": cold.cpu, "peak of generate": cold.peak_rss}


def render_body(title: str, explanation: str, old: Sequence[Costs], new: Sequence[Costs], num_images: int) -> str:
    """Returns a section with medians over the runs and ratios of neighbouring runs."""
    rows = []
    for key, (name, unit) in TITLES.items():
        before, after = ([costs[key] for costs in runs] for runs in (old, new))
        medians = [f"{statistics.median(values) * FACTORS[unit]:.4g} {unit}" for values in (before, after)]
        rows.append([name, *medians, str(compute_ratio(before, after))])
    return "\n\n".join(
        [
            f"## {title}",
            f"{explanation} {len(old)} runs in each checkout, in turns, of {pluralize(num_images, 'image')} "
            "after a first one and of one process that generates an image. Medians over runs; "
            "ratios are new to old, with 95 % intervals.",
            render_table(["", "old", "new", "ratio"], rows),
        ]
    )


@click.command(help=__doc__)
@click.argument("old", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("old_artifact", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("artifact", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Runs in each checkout.")
@click.option("--images", "num_images", type=click.IntRange(min=1), default=16, show_default=True, help="Warm images.")
@click.option("--size", help="Size of the images, such as 512x512.  [default: the artifact's]")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, help="Denoising steps.")
@click.option("--medium", is_flag=True, help="The artifacts are of the medium pipeline of `make bench-onnx`.")
def main(
    old: Path,
    old_artifact: Path,
    artifact: Path,
    repeats: int,
    num_images: int,
    size: str | None,
    steps: int,
    medium: bool,
) -> None:
    options = ["--steps", str(steps), *(("--size", size) if size else ())]
    with tempfile.TemporaryDirectory() as folder:
        older, newer = Checkout(old.resolve(), Path(folder) / "old"), Checkout(NEW_CHECKOUT, Path(folder) / "new")
        costs: dict[Checkout, list[Costs]] = {older: [], newer: []}
        artifacts = {older: old_artifact, newer: artifact}
        for number in range(repeats):
            for checkout in (older, newer) if number % 2 else (newer, older):
                costs[checkout].append(measure_images(checkout, artifacts[checkout], num_images, options))
    name, explanation = ("a medium transformer", MEDIUM) if medium else ("the demo", DEMO)
    title = f"Images of {name}, compared with an older checkout"
    body = render_body(title, explanation, costs[older], costs[newer], num_images)
    click.echo(body)
    command = f"compare_images {get_revision(old)} --repeats {repeats} --images {num_images} {' '.join(options)}"
    write_section(f"images-{'medium' if medium else 'demo'}", command, body)


if __name__ == "__main__":
    main()
