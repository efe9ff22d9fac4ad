"""Measures ONNX graphs in every precision and those of ONNX Runtime's own quantizers: speed, memory, size, quality.

Run by `make bench-onnx`, on a medium-size transformer with random weights and on the demo. Everything is created under
--folder and reused, so that an interrupted run can resume.
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

from ....common.markdown_table import render_table
from ....common.progress import Progress, progress_bars
from ....evaluate.results.schema import ALL_GROUP, Results
from ....pipelines.hub import DEMO_PIPELINE
from ...common.report import format_mean, write_section
from .artifact_cache import ArtifactCache
from .images import compare_paired, evaluate_variants
from .runs import GraphRun, format_spread, measure_disk_size, measure_idle_memory, relative_error, run_interleaved
from .variants import BASE, VARIANTS, Variant

GRAPH = "transformer"
SIZE = (512, 512)  # pixels: 1,024 image tokens and 64 prompt tokens
PIPELINES = ("medium", "demo")
CALIBRATION = {
    "medium": {"count": 2, "steps": 4, "size": [256, 256]},
    "demo": {"count": 32, "steps": 8, "size": "native"},
}
GROUP_SIZES = (128, 64, 32)


def make_cache(pipeline: str, folder: Path) -> ArtifactCache:
    """Returns the cache of a pipeline's variants; writes the medium pipeline if it does not exist yet."""
    if pipeline == "demo":
        components = {"components": ["transformer", "text_encoder"]}
        return ArtifactCache(DEMO_PIPELINE, folder / pipeline, components, CALIBRATION[pipeline])
    source = folder / pipeline / "pipeline"
    options = ["--medium", "--output", str(source)]
    subprocess.run([sys.executable, "-m", "edgepress.benchmarks.synthetic.full_size", *options], check=True)
    return ArtifactCache(source, folder / pipeline, {"components": ["transformer"]}, CALIBRATION[pipeline])


def select_variants(names: Sequence[str]) -> list[Variant]:
    """Returns the variants with these names."""
    return [variant for variant in VARIANTS if variant.name in names]


# ---------------------------------------------------------------- tables


COST_HEADER = ["graph", "speed-up over fp32", "s per step", "peak RSS, MB", "relative to fp32", "size on disk, MB"]


def render_cost_row(variant: Variant, artifact: Path, runs: Mapping[str, Sequence[GraphRun]]) -> list[str]:
    """Returns a variant's row: time of a step and peak memory, also relative to fp32 in the same round, and size."""
    pairs = list(zip(runs[variant.name], runs[BASE], strict=True))
    return [
        variant.title,
        format_spread([base.seconds / run.seconds for run, base in pairs]),
        f"{statistics.median(run.seconds for run, _ in pairs):.2f}",
        f"{statistics.median(run.memory for run, _ in pairs) / 1e6:.0f}",
        format_spread([run.memory / base.memory for run, base in pairs]),
        f"{measure_disk_size(artifact, GRAPH) / 1e6:.0f}",
    ]


def render_medium_section(artifacts: Mapping[str, Path], runs: Mapping[str, Sequence[GraphRun]], method: str) -> str:
    """Returns the section of the medium transformer in docs/benchmarks/onnx.md."""
    reference = runs[BASE][0].output
    rows = []
    for variant in select_variants(list(artifacts)):
        error = relative_error(runs[variant.name][0].output, reference)
        rows.append([*render_cost_row(variant, artifacts[variant.name], runs), f"{error:.1%}"])
    return "\n\n".join(
        [
            "## ONNX graphs of a medium transformer",
            "A transformer of 125 million parameters (4 layers, 1536 wide, random weights), one step of a "
            f"{SIZE[0]} x {SIZE[1]} image: 1,024 image tokens and 64 prompt tokens. {method} The last column is the "
            "root mean square of the difference from the fp32 output, relative to that of the output. Random weights "
            "say little about trained ones.",
            render_table([*COST_HEADER, "output error"], rows),
        ]
    )


def render_demo_section(
    artifacts: Mapping[str, Path],
    runs: Mapping[str, Sequence[GraphRun]],
    method: str,
    results: Results,
    num_prompts: int,
) -> str:
    """Returns the section of the demo in docs/benchmarks/onnx.md."""
    variants = select_variants(list(artifacts))
    return "\n\n".join(
        [
            "## ONNX graphs of the demo",
            f"The demo's transformer (17 million parameters), one step of a {SIZE[0]} x {SIZE[1]} image: 1,024 image "
            f"tokens and 64 prompt tokens. {method}",
            render_table(
                COST_HEADER, [render_cost_row(variant, artifacts[variant.name], runs) for variant in variants]
            ),
            "Images generated with all graphs of each kind, compared with those of the fp32 graphs: "
            f"{num_prompts} held-out prompts at the demo's native size, one seed. Intervals are bootstrapped over "
            "prompts. Text accuracy counts words read by OCR.",
            render_table(
                ["graphs", "PSNR dB (95 %)", "worst", "text accuracy % (drop, 95 %)", "MB"],
                _image_rows(variants, artifacts, results),
            ),
            "What accuracy level 4 and larger groups cost, paired over the same prompts. Below 0 the first one is "
            "worse:",
            render_table(["int4", "over", "PSNR, dB", "text accuracy, %"], _level_rows(list(artifacts), results)),
        ]
    )


def _describe_method(rounds: int, idle_rss: int) -> str:
    return (
        f"Each graph runs in its own process, interleaved with the others, for {rounds} rounds. A process loads the "
        "graph and takes four steps; the median of the last three counts. Median and range over rounds. A process "
        f"that loads no graph peaks at {idle_rss / 1e6:.0f} MB."
    )


def _image_rows(variants: Sequence[Variant], artifacts: Mapping[str, Path], results: Results) -> list[list[str]]:
    rows = []
    for variant in variants:
        if variant.name in results.variants:
            group = next(group for group in results.variants[variant.name].groups if group.name == ALL_GROUP)
            psnr, text = group.pair_scores["psnr"], group.image_scores["text_accuracy"]
            accuracy = f"{text.variant.mean:.1%} ({format_mean(text.drop, 100, 1)})"
            size = f"{measure_disk_size(artifacts[variant.name]) / 1e6:.1f}"
            rows.append([variant.title, format_mean(psnr.mean), f"{psnr.worst:.2f}", accuracy, size])
    return rows


def _level_rows(names: Sequence[str], results: Results) -> list[list[str]]:
    pairs = [(f"int4-{size}-4", f"int4-{size}-0") for size in GROUP_SIZES]
    pairs += [(f"int4-{size}-4", f"int4-{GROUP_SIZES[-1]}-4") for size in GROUP_SIZES[:-1]]
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
@click.option("--pipeline", type=click.Choice([*PIPELINES, "both"]), default="both", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--prompts", type=click.IntRange(2), default=64, show_default=True, help="Prompts of the demo.")
@click.option("--only", multiple=True, metavar="NAME", help="Measure only this variant; repeatable. Not reported.")
@click.option("--keep", is_flag=True, help="Keep all files, 6 GB.")
def main(folder: Path, pipeline: str, rounds: int, prompts: int, only: tuple[str, ...], keep: bool) -> None:
    logging.getLogger().setLevel(logging.ERROR)  # a tool of ONNX Runtime turns on the logs of all libraries
    variants = [variant for variant in VARIANTS if not only or variant.name in only]
    with progress_bars() as progress:
        for name in PIPELINES if pipeline == "both" else (pipeline,):
            body = _run_benchmark(name, folder, variants, rounds, prompts, progress)
            if not only:
                write_section(f"graphs-{name}", "make bench-onnx", body)
            click.echo(body)
            if not keep:
                shutil.rmtree(folder / name)


def _run_benchmark(
    pipeline: str, folder: Path, variants: Sequence[Variant], rounds: int, num_prompts: int, progress: Progress
) -> str:
    cache = make_cache(pipeline, folder)
    artifacts = cache.build_all(variants, progress)
    runs = run_interleaved(artifacts, GRAPH, SIZE, rounds, cache.folder, progress)
    method = _describe_method(rounds, measure_idle_memory(cache.folder))
    if pipeline == "medium":
        return render_medium_section(artifacts, runs, method)
    results = evaluate_variants(artifacts, num_prompts, cache.folder, progress)
    return render_demo_section(artifacts, runs, method, results, num_prompts)


if __name__ == "__main__":
    main()
