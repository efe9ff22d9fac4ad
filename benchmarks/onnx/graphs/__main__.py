"""ONNX graphs in every precision, and those of ONNX Runtime's own tools: time, memory, bytes, and what they lose.

`make bench-onnx`. A transformer of medium size with random weights, and the demo. Everything is made under --folder and
kept there: a run that was killed goes on where it was.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ....common.progress import Progress, progress_bars
from ....evaluate.results.schema import ALL_GROUP, Results
from ....pipelines.hub import DEMO_PIPELINE
from ...common.report import format_mean, render_table, write_section
from .make import ArtifactCache
from .measure import GraphRun, format_spread, measure_disk_size, measure_idle_memory, relative_error, run_interleaved
from .pictures import compare_paired, evaluate_variants
from .variants import BASE, VARIANTS, Variant

GRAPH = "transformer"
SIZE = (512, 512)  # pixels: 1,024 tokens of the image, 64 of the prompt
PIPELINES = ("medium", "demo")
CALIBRATION = {
    "medium": {"count": 2, "steps": 4, "size": [256, 256]},
    "demo": {"count": 32, "steps": 8, "size": "native"},
}
BLOCKS = (128, 64, 32)


def make_cache(pipeline: str, folder: Path) -> ArtifactCache:
    """Where a part's variants are made; the medium pipeline is written if it is not there yet."""
    if pipeline == "demo":
        return ArtifactCache(
            DEMO_PIPELINE, folder / pipeline, {"components": ["transformer", "text_encoder"]}, CALIBRATION[pipeline]
        )
    command = [
        sys.executable,
        "-m",
        "edgepress.benchmarks.synthetic.full_size",
        "--medium",
        "--output",
        str(folder / pipeline / "pipeline"),
    ]
    subprocess.run(command, check=True)
    return ArtifactCache(
        folder / pipeline / "pipeline", folder / pipeline, {"components": ["transformer"]}, CALIBRATION[pipeline]
    )


def select_variants(names: Sequence[str]) -> list[Variant]:
    return [variant for variant in VARIANTS if variant.name in names]


# ---------------------------------------------------------------- tables


def cost_row(variant: Variant, artifact: Path, runs: Mapping[str, Sequence[GraphRun]]) -> list[str]:
    """Time of a step and peak memory, both over those of fp32 in the same round, and bytes of the graph on the disk."""
    own, base = runs[variant.name], runs[BASE]
    pairs = list(zip(own, base, strict=True))
    speedups = [float32.seconds / one.seconds for one, float32 in pairs]
    memory = [one.memory / float32.memory for one, float32 in pairs]
    return [
        variant.title,
        format_spread(speedups),
        f"{statistics.median(one.seconds for one in own):.2f}",
        f"{statistics.median(one.memory for one in own) / 1e6:.0f}",
        format_spread(memory),
        f"{measure_disk_size(artifact, GRAPH) / 1e6:.0f}",
    ]


COST_HEADER = ["graph", "times as fast as fp32", "s a step", "peak RSS, MB", "of fp32's", "bytes on disk, MB"]


def render_medium_section(artifacts: Mapping[str, Path], runs: Mapping[str, Sequence[GraphRun]], method: str) -> str:
    """The body of the medium transformer's section."""
    reference = runs[BASE][0].output
    rows = []
    for variant in select_variants(list(artifacts)):
        error = relative_error(runs[variant.name][0].output, reference)
        rows.append([*cost_row(variant, artifacts[variant.name], runs), f"{error:.1%}"])
    parts = [
        "## ONNX graphs of a medium transformer",
        "A transformer of 125 million parameters (4 layers, 1536 wide, random weights), one step of a picture of "
        f"{SIZE[0]} x {SIZE[1]} pixels: 1,024 tokens and 64 of the prompt. {method} The last column is the root "
        "mean square of the output's difference to that of fp32, over the output's; random weights say little of "
        "trained ones'.",
        render_table([*COST_HEADER, "error of the output"], rows),
    ]
    return "\n\n".join(parts)


def render_demo_section(
    artifacts: Mapping[str, Path], runs: Mapping[str, Sequence[GraphRun]], method: str, results: Results, prompts: int
) -> str:
    """The body of the demo's section."""
    variants = select_variants(list(artifacts))
    parts = [
        "## ONNX graphs of the demo",
        f"The demo's transformer (17 million parameters), one step of a picture of {SIZE[0]} x {SIZE[1]} pixels: 1,024 "
        f"tokens and 64 of the prompt. {method}",
        render_table(COST_HEADER, [cost_row(variant, artifacts[variant.name], runs) for variant in variants]),
        f"What they paint, all graphs of each, against what those in fp32 paint: {prompts} held-out prompts in the "
        "demo's own size, one seed; intervals are bootstrapped over prompts. Text accuracy is of words that OCR reads.",
        render_table(
            ["graphs", "PSNR dB (95 %)", "worst", "text accuracy % (drop, 95 %)", "MB"],
            _image_rows(variants, artifacts, results),
        ),
        "What accuracy level 4 and larger groups cost, paired over the same prompts (below 0: the first is worse):",
        render_table(["int4", "over", "PSNR, dB", "text accuracy, %"], _level_rows(list(artifacts), results)),
    ]
    return "\n\n".join(parts)


def _describe_method(rounds: int, idle_rss: int) -> str:
    return (
        f"Each graph in a process of its own, in turns with the others, {rounds} rounds; a process loads the graph and "
        "takes four steps, of which the median of the last three counts. Median and range over rounds. A process that "
        f"loads no graph peaks at {idle_rss / 1e6:.0f} MB."
    )


def _image_rows(variants: Sequence[Variant], artifacts: Mapping[str, Path], results: Results) -> list[list[str]]:
    rows = []
    for variant in variants:
        if variant.name in results.variants:
            group = next(one for one in results.variants[variant.name].groups if one.name == ALL_GROUP)
            psnr, text = group.pair_scores["psnr"], group.image_scores["text_accuracy"]
            accuracy = f"{text.variant.mean:.1%} ({format_mean(text.drop, 100, 1)})"
            size = f"{measure_disk_size(artifacts[variant.name]) / 1e6:.1f}"
            rows.append([variant.title, format_mean(psnr.mean), f"{psnr.worst:.2f}", accuracy, size])
    return rows


def _level_rows(names: Sequence[str], results: Results) -> list[list[str]]:
    pairs = [(f"int4-{size}-4", f"int4-{size}-0") for size in BLOCKS]
    pairs += [(f"int4-{size}-4", f"int4-{BLOCKS[-1]}-4") for size in BLOCKS[:-1]]
    titles = {variant.name: variant.title.removeprefix("int4, ") for variant in VARIANTS}
    rows = []
    for better, base in pairs:
        if {better, base} <= set(names):
            psnr, text = (compare_paired(results, better, base, score) for score in ("psnr", "text_accuracy"))
            cells = [format_mean(psnr) if psnr else "equal", format_mean(text, 100, 1) if text else "not measured"]
            rows.append([titles[better], titles[base], *cells])
    return rows


# ---------------------------------------------------------------- the command


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/graphs"), show_default=True)
@click.option("--part", type=click.Choice([*PIPELINES, "both"]), default="both", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--prompts", type=click.IntRange(2), default=64, show_default=True, help="That the demo paints.")
@click.option("--only", multiple=True, metavar="NAME", help="Variants, while developing; nothing is reported.")
@click.option("--keep", is_flag=True, help="Keep what was made, 6 GB.")
def main(folder: Path, part: str, rounds: int, prompts: int, only: tuple[str, ...], keep: bool) -> None:
    logging.getLogger().setLevel(logging.ERROR)  # a tool of ONNX Runtime has all libraries log all they do
    chosen = [variant for variant in VARIANTS if not only or variant.name in only]
    with progress_bars() as progress:
        for name in PIPELINES if part == "both" else (part,):
            body = _run_benchmark(name, folder, chosen, rounds, prompts, progress)
            if not only:
                write_section(f"graphs-{name}", "make bench-onnx", body)
            click.echo(body)
            if not keep:
                shutil.rmtree(folder / name)


def _run_benchmark(
    pipeline: str, folder: Path, variants: Sequence[Variant], rounds: int, prompts: int, progress: Progress
) -> str:
    cache = make_cache(pipeline, folder)
    artifacts = cache.build_all(variants, progress)
    runs = run_interleaved(artifacts, GRAPH, SIZE, rounds, cache.folder, progress)
    method = _describe_method(rounds, measure_idle_memory(cache.folder))
    if pipeline == "medium":
        return render_medium_section(artifacts, runs, method)
    return render_demo_section(
        artifacts, runs, method, evaluate_variants(artifacts, prompts, cache.folder, progress), prompts
    )


if __name__ == "__main__":
    main()
