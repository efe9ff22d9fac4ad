"""Compares what quantizing full-width blocks costs in two checkouts of edgepress, in turns.

Run by `make bench-full-size-ratio OLD=DIR`. A pipeline of few blocks with the widths of a published model and random
weights is quantized by both, the same number of times, each in its own process. Ratios are those of neighbouring runs,
so that a busy machine slows both down.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from ...common.markdown_table import render_table
from ..common.compare_checkouts import NEW_CHECKOUT, compute_ratio, get_revision
from ..common.process import Cost, measure_command
from ..common.report import write_section
from .full_size import COMPONENTS

PROMPTS = ("a red fox in the snow", "a street in the rain at night", "two cups of tea", "a map of an island")
CALIBRATION: dict[str, Any] = {"count": len(PROMPTS), "size": [256, 256], "guidance": 0.0}
SOLVING = ("quantizing", "solving")  # names of the stage, now and in earlier checkouts


@dataclass(frozen=True)
class Run:
    """One quantization.

    Attributes:
        cost: Of the process.
        stages: Seconds of each stage, from the artifact's timings.json.
    """

    cost: Cost
    stages: dict[str, float]

    @property
    def calibrating(self) -> float:
        """Seconds of the calibration of the component."""
        return sum(seconds for stage, seconds in self.stages.items() if stage.startswith("calibrating"))

    @property
    def solving(self) -> float:
        """Seconds of solving."""
        return sum(self.stages.get(stage, 0.0) for stage in SOLVING)


@dataclass(frozen=True)
class QuantizingCheckout:
    """A checkout whose `quantize` is measured.

    Attributes:
        root: The checkout.
        method: What it calls GPTQ alone.
        folder: Its scratch folder.
    """

    root: Path
    method: str
    folder: Path

    def measure(self, pipeline: Path, component: str, dtype: str, steps: int) -> Run:
        """Quantizes a component of a pipeline from the start."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "view").mkdir(parents=True)
        (self.folder / "view" / "edgepress").symlink_to(self.root.resolve())
        prompts, recipe, output = (self.folder / name for name in ("prompts.jsonl", "recipe.yaml", "artifact"))
        lines = [
            json.dumps({"id": f"p{number}", "prompt": text, "language": "en"}) for number, text in enumerate(PROMPTS)
        ]
        prompts.write_text("\n".join(lines) + "\n", "utf-8")
        settings = {
            "device": "full-width",
            "dtype": dtype,
            "quantize": {"method": self.method, "components": [component], "embeddings": "int8"},
            "calibration": CALIBRATION | {"prompts": str(prompts), "steps": steps},
        }
        recipe.write_text(yaml.safe_dump(settings), "utf-8")
        module = "edgepress" if (self.root / "__main__.py").exists() else "edgepress.cli"
        python = ["env", f"PYTHONPATH={self.folder / 'view'}", sys.executable, "-m", module]
        command = [*python, "quantize", "--recipe", str(recipe), "--model", str(pipeline), "--output", str(output)]
        cost = measure_command(command, self.folder / "log")
        return Run(cost, json.loads((output / "timings.json").read_text("utf-8")))


def prepare_pipeline(folder: Path, blocks: int) -> Path:
    """Writes the pipeline with random weights, if it does not exist yet, and returns its folder."""
    pipeline = folder / f"pipeline-{blocks}-blocks"
    if not pipeline.exists():
        options = ["--output", str(pipeline), "--blocks", str(blocks), "--text-blocks", str(blocks)]
        command = [sys.executable, "-m", "edgepress.benchmarks.synthetic.full_size", *options]
        measure_command(command, folder / "generate.log")
    return pipeline


def make_rows(old: Sequence[Run], new: Sequence[Run]) -> list[list[str]]:
    """Returns the rows of a table: medians of both checkouts, and ratios of neighbouring runs."""
    measures: dict[str, Callable[[Run], float]] = {
        "wall time, s": lambda run: run.cost.seconds,
        "calibration, s": lambda run: run.calibrating,
        "solving, s": lambda run: run.solving,
        "CPU time, s": lambda run: run.cost.cpu,
        "peak RSS, GB": lambda run: run.cost.peak_rss / 1e9,
    }
    rows = []
    for name, measure in measures.items():
        before, after = ([measure(run) for run in runs] for runs in (old, new))
        medians = [f"{statistics.median(values):.2f}" for values in (before, after)]
        rows.append([name, *medians, str(compute_ratio(before, after))])
    return rows


def compare_component(
    checkouts: tuple[QuantizingCheckout, QuantizingCheckout],
    pipeline: Path,
    component: str,
    dtype: str,
    steps: int,
    repeats: int,
) -> list[list[str]]:
    """Quantizes a component in both checkouts in turns, and each first as often as the other."""
    runs: dict[QuantizingCheckout, list[Run]] = {checkout: [] for checkout in checkouts}
    for number in range(repeats):
        for checkout in checkouts if number % 2 == 0 else checkouts[::-1]:
            runs[checkout].append(checkout.measure(pipeline, component, dtype, steps))
            click.echo(f"{component} {checkout.root.name}: {runs[checkout][-1]}", err=True)
    return make_rows(*(runs[checkout] for checkout in checkouts))


def render_section(component: str, rows: Sequence[Sequence[str]], blocks: int, dtype: str, steps: int) -> str:
    """Returns the section of a component in docs/benchmarks/full-size.md."""
    name = component.replace("_", " ")
    return "\n\n".join(
        [
            f"## Full-width blocks of a {name}, compared with an older checkout",
            f"Blocks of their full width with random weights ({blocks} of them), `method: gptq`, `dtype: {dtype}`; "
            f"calibrated on {len(PROMPTS)} prompts, 256 x 256 pixels, {steps} of 8 steps. The whole process, in turns; "
            "medians, and ratios of neighbouring runs, new to old, with 95 % intervals if there are two runs or more.",
            render_table(["", "old", "new", "ratio"], rows),
        ]
    )


@click.command(help=__doc__)
@click.argument("old", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--old-method", default="gptq", show_default=True, help="What the old checkout calls GPTQ alone.")
@click.option("--blocks", type=click.IntRange(1), default=1, show_default=True, help="Blocks of each component.")
@click.option("--steps", type=click.IntRange(1), default=1, show_default=True, help="Denoising steps of calibration.")
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=2, show_default=True, help="Runs in each checkout.")
@click.option("--component", "components", type=click.Choice(COMPONENTS), multiple=True, help="Only this one.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/full-size"), show_default=True)
def main(
    old: Path,
    old_method: str,
    blocks: int,
    steps: int,
    dtype: str,
    repeats: int,
    components: tuple[str, ...],
    folder: Path,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = prepare_pipeline(folder, blocks).resolve()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        checkouts = (
            QuantizingCheckout(old.resolve(), old_method, Path(scratch).resolve() / "old"),
            QuantizingCheckout(NEW_CHECKOUT, "gptq", Path(scratch).resolve() / "new"),
        )
        for component in components or COMPONENTS:
            rows = compare_component(checkouts, pipeline, component, dtype, steps, repeats)
            body = render_section(component, rows, blocks, dtype, steps)
            revision = get_revision(old)
            command = f"make bench-full-size-ratio OLD={revision} OLD_METHOD={old_method} BLOCKS={blocks} STEPS={steps}"
            write_section(
                f"full-size-ratio-{component}".replace("_", "-"), f"{command} DTYPE={dtype} REPEATS={repeats}", body
            )
            click.echo(body)


if __name__ == "__main__":
    main()
