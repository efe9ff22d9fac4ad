"""What pressing a pipeline of full size costs: time, memory, disk, and what 4 bits lose on each layer.

`make bench-full-size COMPONENT=transformer`. The weights are random, of the true shapes (demo/full_size.py): what is
measured is the work, not the pictures. Each component is pressed by a process of its own, seen from outside.
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

from ...quantize.plan import build_plan
from ...quantize.writer import compute_savings
from ...recipes.schema import QuantizationSettings
from ...storage.checkpoint import Checkpoint
from ..common.process import Cost, measure_command
from ..common.report import render_table, write_section

COMPONENTS = ("transformer", "text_encoder")
RECIPE_COMPONENTS = (*COMPONENTS, "vae")  # in the recipe for the published model
CALIBRATION: dict[str, Any] = {"prompts": "own", "count": 4, "size": [256, 256], "steps": 8, "guidance": 0.0}


@dataclass(frozen=True)
class QuantizeRun:
    """One component's pressing: what it cost, and what the artifact says of itself."""

    component: str
    max_memory: str
    parameters: int
    cost: Cost
    manifest: dict[str, Any]
    seconds: dict[str, float]


def prepare_pipeline(folder: Path, layers: int | None) -> Path:
    """The pipeline with random weights, written if it is not there yet."""
    pipeline = folder / (f"pipeline-{layers}-layers" if layers else "pipeline")
    if not pipeline.exists():
        command = [sys.executable, "-m", "edgepress.benchmarks.synthetic.full_size", "--output", str(pipeline)]
        cost = measure_command([*command, "--layers", str(layers)] if layers else command, folder / "generate.log")
        size = sum(file.stat().st_size for file in pipeline.glob("*/*.safetensors"))
        click.echo(f"{pipeline}: {size / 1e9:.2f} GB in {cost.seconds:.0f} s, peak RSS {cost.peak_rss / 1e9:.2f} GB")
    return pipeline


def write_recipe(component: str, file: Path) -> None:
    """The recipe that presses one component and calibrates in short."""
    recipe = {
        "device": "full-size",
        "dtype": "bfloat16",
        "quantize": {"method": "best", "components": [component], "embeddings": "int8"},
        "calibration": CALIBRATION,
    }
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")


def quantize_component(component: str, pipeline: Path, folder: Path, max_memory: str) -> QuantizeRun:
    """Presses one component from the start: work left by a run that was cut would make it look cheap."""
    output, recipe = folder / f"pressed-{component}", folder / f"{component}.yaml"
    shutil.rmtree(output, ignore_errors=True)
    write_recipe(component, recipe)
    command = [sys.executable, "-m", "edgepress", "quantize", "--recipe", str(recipe), "--model", str(pipeline)]
    cost = measure_command([*command, "--output", str(output), "--memory", max_memory], folder / f"{component}.log")
    manifest, seconds = (json.loads((output / f"{name}.json").read_text("utf-8")) for name in ("manifest", "timings"))
    return QuantizeRun(component, max_memory, count_parameters(pipeline / component), cost, manifest, seconds)


def count_parameters(folder: Path) -> int:
    checkpoint = Checkpoint(folder)
    return sum(math.prod(checkpoint.shape(name)) for name in checkpoint.names())


# ---------------------------------------------------------------- the section


def render_component_section(run: QuantizeRun) -> str:
    """The body of a component's section in docs/benchmarks.md."""
    parts = [
        f"## What pressing a full-size {run.component.replace('_', ' ')} costs",
        f"`edgepress quantize --memory {run.max_memory}` with `method: {_method(run)}`, whole process with "
        f"start-up; {run.parameters:,} parameters of random values, calibrated on {CALIBRATION['count']} prompts, "
        f"{_size()} pixels, {CALIBRATION['steps']} steps.",
        render_table(["", "value"], [*_cost_rows(run.cost), *_size_rows(run), *_error_rows(run)]),
    ]
    return "\n\n".join([*parts, _phase_table(run.seconds)])


def _method(run: QuantizeRun) -> str:
    return str(run.manifest["recipe"]["quantize"]["method"])


def _size() -> str:
    return " x ".join(str(side) for side in CALIBRATION["size"])


def _cost_rows(cost: Cost) -> list[list[str]]:
    return [
        ["wall time", _format_duration(cost.seconds)],
        ["peak RSS", _format_bytes(cost.peak_rss)],
        ["peak of its own memory", _format_bytes(cost.peak_anonymous)],
        ["peak of mapped files", _format_bytes(cost.peak_mapped)],
        ["read from disk", _format_bytes(cost.disk_bytes_read)],
        ["read, page cache included", _format_bytes(cost.total_bytes_read)],
        ["written to disk", _format_bytes(cost.disk_bytes_written)],
    ]


def _size_rows(run: QuantizeRun) -> list[list[str]]:
    size = run.manifest["sizes"][run.component]
    before, after = size["before"], size["after"]
    sizes = [["size before", _format_bytes(before)], ["size after", _format_bytes(after)]]
    return [*sizes, ["shrinkage", f"{1 - after / before:.1%}"]]


def _error_rows(run: QuantizeRun) -> list[list[str]]:
    """Mean over layers of error over output, both as mean squares, in dB."""
    layers = run.manifest["layers"]
    rtn_db, final_db = (mean_decibels([layer[key] for layer in layers]) for key in ("rtn_error", "error"))
    return [
        ["layers quantized", str(len(layers))],
        ["mean layer error on calibration tokens, rounding alone", f"{rtn_db:.2f} dB"],
        ["mean layer error on calibration tokens, as pressed", f"{final_db:.2f} dB (gain {rtn_db - final_db:.2f} dB)"],
    ]


def mean_decibels(ratios: list[float]) -> float:
    """The mean of ratios of squares in dB; exact layers, which have no dB, are left out."""
    decibels = [10 * math.log10(ratio) for ratio in ratios if ratio > 0]
    return sum(decibels) / len(decibels) if decibels else -math.inf


def render_size_section(pipeline: Path) -> str:
    """The body of the section on the bytes of all weights, computed from their shapes as the manifest's savings are."""
    plan = build_plan(pipeline, QuantizationSettings(components=RECIPE_COMPONENTS, embeddings="int8"))
    rows, total = [], [0, 0]
    for part in plan.components:
        before = sum(part.checkpoint.nbytes(name) for name in part.checkpoint.names())
        after = before - sum(compute_savings(part, plan, torch.bfloat16).values())
        rows.append(_weight_row(part.name, before, after))
        total = [total[0] + before, total[1] + after]
    about = (
        "All weights with `embeddings: int8`, from their shapes, nothing pressed. "
        "The VAE keeps its precision and loses its encoder, which nobody runs."
    )
    rows.append(_weight_row("**whole**", *total))
    return "\n\n".join(
        ["## What a full-size artifact weighs", about, render_table(["", "before", "after", "shrinkage"], rows)]
    )


def _weight_row(name: str, before: int, after: int) -> list[str]:
    return [name, _format_bytes(before), _format_bytes(after), f"{1 - after / before:.1%}"]


def _phase_table(phases: dict[str, float]) -> str:
    total = sum(phases.values()) or 1.0
    rows = [[name, _format_duration(seconds), f"{seconds / total:.0%}"] for name, seconds in phases.items()]
    return render_table(["phase", "time", "share"], rows)


def _format_duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _format_bytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/full-size"), show_default=True)
@click.option("--component", type=click.Choice([*COMPONENTS, "both", "none"]), default="both", show_default=True)
@click.option("--memory", default="6GiB", show_default=True, help="What pressing may use.")
@click.option("--keep", is_flag=True, help="Keep what was pressed (the pipeline stays in any case).")
@click.option("--layers", type=click.IntRange(2), help="Layers instead of all: a rehearsal, not reported.")
def main(folder: Path, component: str, memory: str, keep: bool, layers: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = prepare_pipeline(folder, layers)
    for name in {"both": COMPONENTS, "none": ()}.get(component, (component,)):
        body = render_component_section(quantize_component(name, pipeline, folder, memory))
        if not layers:
            write_section(f"full-size-{name}".replace("_", "-"), f"make bench-full-size COMPONENT={name}", body)
        click.echo(body)
        if not keep:
            shutil.rmtree(folder / f"pressed-{name}")
    body = render_size_section(pipeline)
    if not layers:
        write_section("full-size-whole", "make bench-full-size COMPONENT=none", body)
    click.echo(body)


if __name__ == "__main__":
    main()
