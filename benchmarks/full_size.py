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

from ..checkpoint import Checkpoint
from ..quantize.plan import make_plan
from ..quantize.write import savings
from ..recipe import Quantization
from .process import Cost, measured
from .report import table, write_section

COMPONENTS = ("transformer", "text_encoder")
PRESSED = (*COMPONENTS, "vae")  # in the recipe for the published model
CALIBRATION: dict[str, Any] = {"prompts": "own", "count": 4, "size": [256, 256], "steps": 8, "guidance": 0.0}


@dataclass(frozen=True)
class Pressing:
    """One component's pressing: what it cost, and what the artifact says of itself."""

    component: str
    memory: str
    parameters: int
    cost: Cost
    manifest: dict[str, Any]
    seconds: dict[str, float]


def generate(folder: Path, layers: int | None) -> Path:
    """The pipeline with random weights, written if it is not there yet."""
    pipeline = folder / (f"pipeline-{layers}-layers" if layers else "pipeline")
    if not pipeline.exists():
        words = [sys.executable, "-m", "edgepress.demo.full_size", "--output", str(pipeline)]
        cost = measured([*words, "--layers", str(layers)] if layers else words, folder / "generate.log")
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


def press(component: str, pipeline: Path, folder: Path, memory: str) -> Pressing:
    """Presses one component from the start: work left by a run that was cut would make it look cheap."""
    output, recipe = folder / f"pressed-{component}", folder / f"{component}.yaml"
    shutil.rmtree(output, ignore_errors=True)
    write_recipe(component, recipe)
    words = [sys.executable, "-m", "edgepress.cli", "quantize", "--recipe", str(recipe), "--model", str(pipeline)]
    cost = measured([*words, "--output", str(output), "--memory", memory], folder / f"{component}.log")
    manifest, seconds = (json.loads((output / f"{name}.json").read_text("utf-8")) for name in ("manifest", "timings"))
    return Pressing(component, memory, count_parameters(pipeline / component), cost, manifest, seconds)


def count_parameters(folder: Path) -> int:
    checkpoint = Checkpoint(folder)
    return sum(math.prod(checkpoint.shape(name)) for name in checkpoint.names())


# ---------------------------------------------------------------- the section


def section(pressing: Pressing) -> str:
    """The body of a component's section in docs/benchmarks.md."""
    parts = [
        f"## What pressing a full-size {pressing.component.replace('_', ' ')} costs",
        f"`edgepress quantize --memory {pressing.memory}` with `method: {_method(pressing)}`, whole process with "
        f"start-up; {pressing.parameters:,} parameters of random values, calibrated on {CALIBRATION['count']} prompts, "
        f"{_size()} pixels, {CALIBRATION['steps']} steps.",
        table(["", "value"], [*_cost_rows(pressing.cost), *_size_rows(pressing), *_error_rows(pressing)]),
    ]
    return "\n\n".join([*parts, _phase_table(pressing.seconds)])


def _method(pressing: Pressing) -> str:
    return str(pressing.manifest["recipe"]["quantize"]["method"])


def _size() -> str:
    return " x ".join(str(side) for side in CALIBRATION["size"])


def _cost_rows(cost: Cost) -> list[list[str]]:
    return [
        ["wall time", _minutes(cost.seconds)],
        ["peak RSS", _gigabytes(cost.peak_rss)],
        ["peak of its own memory", _gigabytes(cost.peak_own)],
        ["peak of mapped files", _gigabytes(cost.peak_mapped)],
        ["read from disk", _gigabytes(cost.read)],
        ["read, page cache included", _gigabytes(cost.read_calls)],
        ["written to disk", _gigabytes(cost.written)],
    ]


def _size_rows(pressing: Pressing) -> list[list[str]]:
    size = pressing.manifest["sizes"][pressing.component]
    before, after = size["before"], size["after"]
    sizes = [["size before", _gigabytes(before)], ["size after", _gigabytes(after)]]
    return [*sizes, ["shrinkage", f"{1 - after / before:.1%}"]]


def _error_rows(pressing: Pressing) -> list[list[str]]:
    """Mean over layers of error over output, both as mean squares, in dB."""
    layers = pressing.manifest["layers"]
    rounded, pressed = (mean_decibels([layer[key] for layer in layers]) for key in ("rtn_error", "error"))
    return [
        ["layers quantized", str(len(layers))],
        ["mean layer error on calibration tokens, rounding alone", f"{rounded:.2f} dB"],
        ["mean layer error on calibration tokens, as pressed", f"{pressed:.2f} dB (gain {rounded - pressed:.2f} dB)"],
    ]


def mean_decibels(ratios: list[float]) -> float:
    """The mean of ratios of squares in dB; exact layers, which have no dB, are left out."""
    found = [10 * math.log10(ratio) for ratio in ratios if ratio > 0]
    return sum(found) / len(found) if found else -math.inf


def whole(pipeline: Path) -> str:
    """The body of the section on the bytes of all weights, computed from their shapes as the manifest's savings are."""
    plan = make_plan(pipeline, Quantization(components=PRESSED, embeddings="int8"))
    rows, total = [], [0, 0]
    for part in plan.components:
        before = sum(part.checkpoint.nbytes(name) for name in part.checkpoint.names())
        after = before - sum(savings(part, plan, torch.bfloat16).values())
        rows.append(_weight_row(part.name, before, after))
        total = [total[0] + before, total[1] + after]
    about = (
        "All weights with `embeddings: int8`, from their shapes, nothing pressed. "
        "The VAE keeps its precision and loses its encoder, which nobody runs."
    )
    rows.append(_weight_row("**whole**", *total))
    return "\n\n".join(
        ["## What a full-size artifact weighs", about, table(["", "before", "after", "shrinkage"], rows)]
    )


def _weight_row(name: str, before: int, after: int) -> list[str]:
    return [name, _gigabytes(before), _gigabytes(after), f"{1 - after / before:.1%}"]


def _phase_table(phases: dict[str, float]) -> str:
    whole = sum(phases.values()) or 1.0
    rows = [[name, _minutes(seconds), f"{seconds / whole:.0%}"] for name, seconds in phases.items()]
    return table(["phase", "time", "share"], rows)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/full-size"), show_default=True)
@click.option("--component", type=click.Choice([*COMPONENTS, "both", "none"]), default="both", show_default=True)
@click.option("--memory", default="6GiB", show_default=True, help="What pressing may use.")
@click.option("--keep", is_flag=True, help="Keep what was pressed (the pipeline stays in any case).")
@click.option("--layers", type=click.IntRange(2), help="Layers instead of all: a rehearsal, not reported.")
def main(folder: Path, component: str, memory: str, keep: bool, layers: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = generate(folder, layers)
    for name in {"both": COMPONENTS, "none": ()}.get(component, (component,)):
        body = section(press(name, pipeline, folder, memory))
        if not layers:
            write_section(f"full-size-{name}".replace("_", "-"), f"make bench-full-size COMPONENT={name}", body)
        click.echo(body)
        if not keep:
            shutil.rmtree(folder / f"pressed-{name}")
    body = whole(pipeline)
    if not layers:
        write_section("full-size-whole", "make bench-full-size COMPONENT=none", body)
    click.echo(body)


if __name__ == "__main__":
    main()
