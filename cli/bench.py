"""`edgepress bench`: times an artifact on this machine, and says which machine that was."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..common.errors import UserError
from ..common.progress import progress_bars
from .options import ImageSize

if TYPE_CHECKING:
    from ..perf.schema import BenchResults
    from ..prompts.prompt import Prompt

DEFAULT_PROMPTS = "smoke"  # the set of prompts
REPORT_FILE = "bench.md"
REFRESH_PER_SECOND = 1  # drawings of the bar a second: ten would cost a small board a share of a core


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(min=1), default=100, show_default=True, help="After a first one.")
@click.option("--prompt", metavar="TEXT", help="What to paint, each time.")
@click.option("--prompts", metavar="FILE|SET", help=f"What to paint, in turn.  [{DEFAULT_PROMPTS}]")
@click.option("--size", type=ImageSize(), help="Height and width in pixels.  [default: the artifact's own]")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, help="Denoising steps.")
@click.option("--seed", type=click.IntRange(0, 2**62), default=0, show_default=True, help="Of the first picture.")
@click.option("--tile", type=int, metavar="PIXELS", help="Decode in tiles of this side, as generate does.")
@click.option("--one-graph", is_flag=True, help="One graph in memory at a time, as generate does; loading counts then.")
@click.option("--provider", "providers", multiple=True, metavar="NAME", help="Of ONNX Runtime; may be repeated.  [CPU]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="[bench, in the artifact]")
def bench(
    artifact: Path,
    images: int,
    prompt: str | None,
    prompts: str | None,
    size: tuple[int, int] | None,
    steps: int,
    seed: int,
    tile: int | None,
    one_graph: bool,
    providers: tuple[str, ...],
    output: Path | None,
) -> None:
    """Measure start-up, time per image and step, and memory, in a process that does nothing but paint.

    Writes bench.json and bench.md. A run that ends early keeps what it has measured, says so, and exits with 2.
    """
    if not sys.platform.startswith("linux"):
        raise UserError("edgepress bench needs Linux, whose /proc says what a process holds in memory.")
    folder = _require_writable(output or _default_output(artifact))
    name, prompt_list = _resolve_prompts(prompt, prompts)
    from ..perf.runner import BenchConfig, run_benchmark
    from ..runtime.rknn import exported

    if providers and exported.is_rknn_artifact(artifact):
        raise UserError(f"{artifact} holds parts for an NPU, which ONNX Runtime does not run; leave --provider out.")

    plan = BenchConfig(artifact, prompt_list, name, images, size, steps, tile, seed, not one_graph, providers)
    with progress_bars(REFRESH_PER_SECOND) as progress:
        results = run_benchmark(plan, lambda found: _write(found, folder), progress)
    _write(results, folder)
    _print_results(results, folder)


def _default_output(artifact: Path) -> Path:
    """Not within what is measured."""
    return (artifact.parent if artifact.name in ("onnx", "rknn") else artifact) / "bench"


def _require_writable(folder: Path) -> Path:
    """A folder that is there and can be written to, or can be made; it is made when there is something to write."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"Nothing can be written to {folder}; give a folder as --output that may be written to.")
    return folder


def _resolve_prompts(prompt: str | None, prompts: str | None) -> tuple[str, list[Prompt]]:
    """The set's name and what is in it."""
    from ..prompts import sets
    from ..prompts.prompt import Prompt

    if prompt is None:
        return prompts or DEFAULT_PROMPTS, sets.load_prompt_set(prompts or DEFAULT_PROMPTS)
    if prompts is not None:
        raise UserError("--prompt and --prompts both say what to paint; give one of them.")
    return "--prompt", [Prompt(id="prompt", prompt=prompt, language="en")]


def _write(results: BenchResults, folder: Path) -> None:
    from ..perf.report import render_report
    from ..perf.schema import RESULTS_FILE, replace_text, save_results

    folder.mkdir(parents=True, exist_ok=True)
    save_results(results, folder / RESULTS_FILE)
    replace_text(folder / REPORT_FILE, render_report(results))


def _print_results(results: BenchResults, folder: Path) -> None:
    """The report, and where it stands; a run that ended early is an error."""
    from ..perf.report import render_report
    from ..perf.runner import INTERRUPTED

    click.echo(render_report(results))
    where = f"bench.json and {REPORT_FILE} in {folder}"
    if results.incomplete_reason is None:
        click.echo(f"written: {where}")
        return
    count = f"{len(results.images) - 1} of {results.settings.num_images} images"
    if results.incomplete_reason == INTERRUPTED:
        raise KeyboardInterrupt(f"Interrupted after {count}; what was measured stands in {where}.")
    raise UserError(f"{results.incomplete_reason} What was measured, {count}, stands in {where}.")
