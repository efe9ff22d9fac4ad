"""`edgepress bench`: measures an artifact on this machine, and says which machine that was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..common.errors import UserError
from ..common.requirements import requires_extra
from ..recipes.presets import MAX_STEPS
from ..storage.layout import ONNX, RKNN, Artifact, locate_folder
from .command import Command, accept_old_names
from .console import print_json, show_progress
from .execution_providers import provider_option, require_no_npu, threads_option
from .options import PATH, json_option, output_option, verbosity_options
from .parameter_types import ImageSize, WholeNumber

if TYPE_CHECKING:
    from ..perf.schema import BenchResults
    from ..prompts.prompt import Prompt

DEFAULT_PROMPTS = "smoke"  # the set of prompts
REFRESH_PER_SECOND = 1  # of the progress bar: ten would take a share of a small board's core


@accept_old_names({"--one-graph": "--low-memory"})
@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--images", type=WholeNumber(min=1), default=100, show_default=True, help="Number of images after the first."
)
@click.option("--prompt", metavar="TEXT", help="What each image shows.")
@click.option("--prompts", metavar="FILE|SET", help=f"Prompts to use in turn.  [default: {DEFAULT_PROMPTS}]")
@click.option("--size", type=ImageSize(), help="Height and width in pixels.  [default: the artifact's]")
@click.option("--steps", type=WholeNumber(1, MAX_STEPS), default=8, show_default=True, help="Denoising steps.")
@click.option("--seed", type=WholeNumber(0, 2**62), default=0, show_default=True, help="Seed of the first image.")
@click.option("--tile", type=WholeNumber(min=1), metavar="PIXELS", help="Decode in tiles of this side, as in generate.")
@click.option(
    "--low-memory",
    is_flag=True,
    help="Keep one graph in memory at a time, as generate does; times then include loading.",
)
@provider_option
@threads_option
@output_option("Folder of the latest results and of all earlier ones.  [default: bench, in the artifact]")
@json_option
@verbosity_options
@requires_extra("runtime")
def bench(
    artifact: Path,
    images: int,
    prompt: str | None,
    prompts: str | None,
    size: tuple[int, int] | None,
    steps: int,
    seed: int,
    tile: int | None,
    low_memory: bool,
    providers: tuple[str, ...],
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure start-up, time per image and step, and memory, in a process that does nothing else.

    Writes bench.json and bench.md, also into a folder for what was measured and how: results of other settings,
    artifacts or machines stay side by side. A run that ends early keeps what it has measured in a folder of its own.
    """
    if not sys.platform.startswith("linux"):
        raise UserError("'edgepress bench' reads the memory of processes from /proc. Run it on Linux.")
    from ..storage.preflight import check_results_folder
    from ..storage.recognition import require_export

    require_export(artifact)
    output = output or _default_output(artifact)
    check_results_folder(output)
    name, prompt_list = _resolve_prompts(prompt, prompts)
    from ..perf.publishing import publish_results
    from ..perf.runner import BenchConfig, run_benchmark

    if providers:
        require_no_npu(artifact)
    keep_loaded = False if low_memory else None
    config = BenchConfig(artifact, prompt_list, name, images, size, steps, tile, seed, keep_loaded, providers, threads)
    with show_progress(REFRESH_PER_SECOND) as progress:
        results = run_benchmark(config, lambda partial: publish_results(partial, output), progress)
    _print_results(results, publish_results(results, output), as_json)


def _default_output(artifact: Path) -> Path:
    """Next to the exports, not in what is measured."""
    is_folder = locate_folder(artifact).name in (ONNX, RKNN)
    return (Artifact.containing(artifact) if is_folder else Artifact(artifact)).bench


def _resolve_prompts(prompt: str | None, prompts: str | None) -> tuple[str, list[Prompt]]:
    """The name of the prompt set and its prompts."""
    from ..prompts import sets
    from ..prompts.prompt import Prompt

    if prompt is None:
        return prompts or DEFAULT_PROMPTS, sets.load_prompt_set(prompts or DEFAULT_PROMPTS)
    if prompts is not None:
        raise UserError("--prompt and --prompts exclude each other. Give one of them.")
    return "--prompt", [Prompt(id="prompt", prompt=prompt, language="en")]


def _print_results(results: BenchResults, folder: Path, as_json: bool) -> None:
    """Prints the report, and where it is; a run that ended early is an error."""
    from ..perf.publishing import REPORT_FILE, RESULTS_FILE
    from ..perf.report import render_report
    from ..perf.runner import INTERRUPTED

    where = f"{RESULTS_FILE} and {REPORT_FILE} in {folder}"
    if as_json:
        print_json(results.model_dump(mode="json"))
    else:
        click.echo(render_report(results))
        if results.incomplete_reason is None:
            click.echo(f"Written: {where}")
    if results.incomplete_reason is None:
        return
    count = f"{len(results.images) - 1} of {results.settings.num_images} images"
    if results.incomplete_reason == INTERRUPTED:
        raise KeyboardInterrupt(f"Interrupted after {count}. What was measured is in {where}.")
    raise UserError(
        f"{results.incomplete_reason} What was measured, {count}, is in {where}. Run it again to measure all."
    )
