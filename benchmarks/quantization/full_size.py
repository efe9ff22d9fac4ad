"""Measures quantizing a full-size pipeline: time, memory, disk traffic, and the error of every layer.

Run by `make bench-full-size COMPONENT=transformer`. The weights are random but have the shapes of a published model
(benchmarks/synthetic/full_size.py), so the work is measured and not the images. Each component is quantized by its own
process, which is measured from outside.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
import yaml

from ...common.markdown_table import render_table
from ...quantize.model_size import compute_savings
from ...quantize.plan import build_plan
from ...recipes.schema import QuantizationSettings
from ...storage.checkpoint import Checkpoint
from ..common.process import Cost, measure_command
from ..common.report import write_section

COMPONENTS = ("transformer", "text_encoder")
RECIPE_COMPONENTS = (*COMPONENTS, "vae")  # of the recipe for the published model
CALIBRATION: dict[str, Any] = {"prompts": "auto", "count": 4, "size": [256, 256], "steps": 8, "guidance": 0.0}


@dataclass(frozen=True)
class QuantizeRun:
    """The quantization of one component.

    Attributes:
        component: Name of the component.
        max_memory: Value of `--max-memory`.
        num_parameters: Number of parameters of the component.
        cost: Cost of the process.
        manifest: Content of the artifact's manifest.json.
        stage_seconds: Seconds per stage, from the artifact's timings.json.
    """

    component: str
    max_memory: str
    num_parameters: int
    cost: Cost
    manifest: dict[str, Any]
    stage_seconds: dict[str, float]


def prepare_pipeline(folder: Path, layers: int | None) -> Path:
    """Writes the pipeline with random weights, if it does not exist yet, and returns its folder."""
    pipeline = folder / (f"pipeline-{layers}-layers" if layers else "pipeline")
    if not pipeline.exists():
        command = [sys.executable, "-m", "edgepress.benchmarks.synthetic.full_size", "--output", str(pipeline)]
        cost = measure_command([*command, "--layers", str(layers)] if layers else command, folder / "generate.log")
        size = sum(file.stat().st_size for file in pipeline.glob("*/*.safetensors"))
        click.echo(f"{pipeline}: {size / 1e9:.2f} GB in {cost.seconds:.0f} s, peak RSS {cost.peak_rss / 1e9:.2f} GB")
    return pipeline


def write_recipe(component: str, file: Path, method: str = "best", calibration: dict[str, Any] = CALIBRATION) -> None:
    """Writes a recipe that quantizes one component with a short calibration."""
    recipe = {
        "device": "full-size",
        "dtype": "bfloat16",
        "quantize": {"method": method, "components": [component], "embeddings": "int8"},
        "calibration": calibration,
    }
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")


def quantize_component(
    component: str,
    pipeline: Path,
    folder: Path,
    max_memory: str,
    method: str = "best",
    calibration: dict[str, Any] = CALIBRATION,
) -> QuantizeRun:
    """Quantizes one component from the start. Unfinished work of an earlier run would make it look cheap."""
    output, recipe = folder / f"quantized-{component}", folder / f"{component}.yaml"
    shutil.rmtree(output, ignore_errors=True)
    write_recipe(component, recipe, method, calibration)
    command = [sys.executable, "-m", "edgepress", "quantize", "--recipe", str(recipe), "--model", str(pipeline)]
    cost = measure_command([*command, "--output", str(output), "--max-memory", max_memory], folder / f"{component}.log")
    manifest, seconds = (json.loads((output / f"{name}.json").read_text("utf-8")) for name in ("manifest", "timings"))
    return QuantizeRun(component, max_memory, count_parameters(pipeline / component), cost, manifest, seconds)


def count_parameters(folder: Path) -> int:
    """Returns the number of parameters in a component's checkpoint."""
    checkpoint = Checkpoint(folder)
    return sum(math.prod(checkpoint.shape(name)) for name in checkpoint.names())


# ---------------------------------------------------------------- the sections


def render_component_section(run: QuantizeRun) -> str:
    """Returns the section of a component in docs/benchmarks/full-size.md."""
    method = run.manifest["recipe"]["quantize"]["method"]
    size = " x ".join(str(pixels) for pixels in CALIBRATION["size"])
    return "\n\n".join(
        [
            f"## What quantizing a full-size {run.component.replace('_', ' ')} costs",
            f"`edgepress quantize --max-memory {run.max_memory}` with `method: {method}`, the whole process including "
            f"start-up; {run.num_parameters:,} parameters of random values, calibrated on {CALIBRATION['count']} "
            f"prompts, {size} pixels, {CALIBRATION['steps']} steps.",
            render_costs(run),
        ]
    )


def render_costs(run: QuantizeRun) -> str:
    """Returns two tables: cost, size and errors; time by phase."""
    table = render_table(["", "value"], [*_cost_rows(run.cost), *_size_rows(run), *_error_rows(run)])
    return f"{table}\n\n{_render_stage_table(run.stage_seconds)}"


def _cost_rows(cost: Cost) -> list[list[str]]:
    return [
        ["wall time", _format_duration(cost.seconds)],
        ["CPU time of all threads", _format_duration(cost.cpu)],
        ["peak RSS", _format_bytes(cost.peak_rss)],
        ["peak of anonymous memory", _format_bytes(cost.peak_anonymous)],
        ["peak of mapped files", _format_bytes(cost.peak_mapped)],
        ["read from disk", _format_bytes(cost.disk_bytes_read)],
        ["read, page cache included", _format_bytes(cost.total_bytes_read)],
        ["written to disk", _format_bytes(cost.disk_bytes_written)],
    ]


def _size_rows(run: QuantizeRun) -> list[list[str]]:
    size = run.manifest["sizes"][run.component]
    before, after = size["before"], size["after"]
    return [
        ["size before", _format_bytes(before)],
        ["size after", _format_bytes(after)],
        ["reduction", f"{1 - after / before:.1%}"],
    ]


def _error_rows(run: QuantizeRun) -> list[list[str]]:
    """Mean over layers of the error relative to the output, both as mean squares, in dB."""
    layers = run.manifest["layers"]
    rtn, final = (mean_decibels([layer[key] for layer in layers]) for key in ("rtn_error", "error"))
    return [
        ["layers quantized", str(len(layers))],
        ["mean layer error on calibration tokens, rounding only", f"{rtn:.2f} dB"],
        ["mean layer error on calibration tokens, as quantized", f"{final:.2f} dB (gain {rtn - final:.2f} dB)"],
    ]


def mean_decibels(ratios: list[float]) -> float:
    """Returns the mean of ratios of squares in dB, without exact layers, whose ratio is 0."""
    decibels = [10 * math.log10(ratio) for ratio in ratios if ratio > 0]
    return sum(decibels) / len(decibels) if decibels else -math.inf


def render_size_section(pipeline: Path) -> str:
    """Returns the section on the size of all weights, computed from their shapes like the savings in a manifest."""
    plan = build_plan(pipeline, QuantizationSettings(components=RECIPE_COMPONENTS, embeddings="int8"))
    rows, totals = [], [0, 0]
    for component in plan.components:
        before = sum(component.checkpoint.nbytes(name) for name in component.checkpoint.names())
        after = before - sum(compute_savings(component, plan, torch.bfloat16).values())
        rows.append(_render_size_row(component.name, before, after))
        totals = [totals[0] + before, totals[1] + after]
    rows.append(_render_size_row("**total**", *totals))
    return "\n\n".join(
        [
            "## Size of a full-size artifact",
            "All weights with `embeddings: int8`, computed from their shapes; nothing was quantized. The VAE keeps its "
            "precision and loses its encoder, which text-to-image generation never runs.",
            render_table(["", "before", "after", "reduction"], rows),
        ]
    )


def _render_size_row(name: str, before: int, after: int) -> list[str]:
    return [name, _format_bytes(before), _format_bytes(after), f"{1 - after / before:.1%}"]


def _render_stage_table(stage_seconds: dict[str, float]) -> str:
    total = sum(stage_seconds.values()) or 1.0
    rows = [[name, _format_duration(seconds), f"{seconds / total:.0%}"] for name, seconds in stage_seconds.items()]
    return render_table(["phase", "time", "share"], rows)


def _format_duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _format_bytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/full-size"), show_default=True)
@click.option("--component", type=click.Choice([*COMPONENTS, "both", "none"]), default="both", show_default=True)
@click.option("--max-memory", default="6GiB", show_default=True, help="Memory that quantizing may use.")
@click.option("--keep", is_flag=True, help="Keep the quantized components. The pipeline is always kept.")
@click.option("--layers", type=click.IntRange(2), help="A pipeline with fewer layers, as a rehearsal. Not reported.")
def main(folder: Path, component: str, max_memory: str, keep: bool, layers: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = prepare_pipeline(folder, layers)
    for name in {"both": COMPONENTS, "none": ()}.get(component, (component,)):
        body = render_component_section(quantize_component(name, pipeline, folder, max_memory))
        if not layers:
            write_section(f"full-size-{name}".replace("_", "-"), f"make bench-full-size COMPONENT={name}", body)
        click.echo(body)
        if not keep:
            shutil.rmtree(folder / f"quantized-{name}")
    body = render_size_section(pipeline)
    if not layers:
        write_section("full-size-whole", "make bench-full-size COMPONENT=none", body)
    click.echo(body)


if __name__ == "__main__":
    main()
