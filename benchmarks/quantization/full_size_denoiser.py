"""Measures quantizing a denoiser of 12 or 20 billion parameters: time, memory and disk traffic.

Run by `make bench-full-size-denoiser`. The weights are random but have the shapes of a published model
(benchmarks/synthetic/full_size_denoiser.py), so the work is measured and not the images.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from ..common.process import measure_command
from ..common.report import write_section
from ..synthetic.full_size_denoiser import COMPONENT, DENOISERS
from .full_size import QuantizeRun, quantize_component, render_costs

CALIBRATION: dict[str, Any] = {"prompts": "auto", "count": 2, "size": [256, 256], "steps": 1, "guidance": 0.0}


def prepare_denoiser(name: str, folder: Path, layers: int | None) -> Path:
    """Writes the pipeline with random weights, if it does not exist yet, and returns its folder."""
    pipeline = folder / (f"{name}-{layers}-layers" if layers else name)
    command = [sys.executable, "-m", "edgepress.benchmarks.synthetic.full_size_denoiser", name]
    command += ["--output", str(pipeline), *(["--layers", str(layers)] if layers else [])]
    if not pipeline.exists():
        measure_command(command, folder / "generate.log")
    return pipeline


def render_section(name: str, run: QuantizeRun) -> str:
    """Returns the section of a denoiser in docs/benchmarks/full-size.md."""
    method, size = run.manifest["recipe"]["quantize"]["method"], " x ".join(map(str, CALIBRATION["size"]))
    calibration = f"calibrated on {CALIBRATION['count']} prompts, {size} pixels, {CALIBRATION['steps']} step"
    return "\n\n".join(
        [
            f"## What quantizing the transformer of {DENOISERS[name].model} costs",
            f"`edgepress quantize --max-memory {run.max_memory}` with `method: {method}`, the whole process including "
            f"start-up; `{name}` with {run.num_parameters:,} parameters of random values in its transformer, "
            f"{calibration}. The text encoders and the VAE are tiny.",
            render_costs(run),
        ]
    )


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/full-size"), show_default=True)
@click.option("--pipeline", "name", type=click.Choice(sorted(DENOISERS)), default=min(DENOISERS), show_default=True)
@click.option("--method", type=click.Choice(["rtn", "gptq", "best"]), default="best", show_default=True)
@click.option("--max-memory", default="6GiB", show_default=True, help="Memory that quantizing may use.")
@click.option("--layers", type=click.IntRange(1), help="Fewer blocks of each kind, as a rehearsal. Not reported.")
def main(folder: Path, name: str, method: str, max_memory: str, layers: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = prepare_denoiser(name, folder, layers)
    run = quantize_component(COMPONENT, pipeline, folder, max_memory, method, CALIBRATION)
    body = render_section(name, run)
    if not layers:
        command = f"make bench-full-size-denoiser PIPELINE={name} METHOD={method}"
        write_section(f"full-size-{round(run.num_parameters / 1e9)}-billion", command, body)
    click.echo(body)
    shutil.rmtree(folder / f"quantized-{COMPONENT}")


if __name__ == "__main__":
    main()
