"""`edgepress bench`: times an artifact on this machine, and says which machine that was."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import UserError
from ...options import PictureSize
from ...progress import bars

if TYPE_CHECKING:
    from ...prompts import Prompt
    from .results import Results

DEFAULT = "smoke"  # the set of prompts
REPORT = "bench.md"
REFRESH = 1  # drawings of the bar a second: ten would cost a small board a share of a core


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(min=1), default=100, show_default=True, help="After a first one.")
@click.option("--prompt", metavar="TEXT", help="What to paint, each time.")
@click.option("--prompts", metavar="FILE|SET", help=f"What to paint, in turn.  [{DEFAULT}]")
@click.option("--size", type=PictureSize(), help="Height and width in pixels.  [default: the artifact's own]")
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
    folder = _writable(output or _beside(artifact))
    name, chosen = _prompts(prompt, prompts)
    from ..rknn import manifest
    from .measure import Plan, measure

    if providers and manifest.there(artifact):
        raise UserError(f"{artifact} holds parts for an NPU, which ONNX Runtime does not run; leave --provider out.")

    plan = Plan(artifact, chosen, name, images, size, steps, tile, seed, not one_graph, providers)
    with bars(REFRESH) as progress:
        results = measure(plan, lambda found: _write(found, folder), progress)
    _write(results, folder)
    _show(results, folder)


def _beside(artifact: Path) -> Path:
    """Not within what is measured."""
    return (artifact.parent if artifact.name in ("onnx", "rknn") else artifact) / "bench"


def _writable(folder: Path) -> Path:
    """A folder that is there and can be written to, or can be made; it is made when there is something to write."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"Nothing can be written to {folder}; give a folder as --output that may be written to.")
    return folder


def _prompts(prompt: str | None, prompts: str | None) -> tuple[str, list[Prompt]]:
    """The set's name and what is in it."""
    from ... import prompt_sets
    from ...prompts import Prompt

    if prompt is None:
        return prompts or DEFAULT, prompt_sets.load(prompts or DEFAULT)
    if prompts is not None:
        raise UserError("--prompt and --prompts both say what to paint; give one of them.")
    return "--prompt", [Prompt(id="prompt", prompt=prompt, language="en")]


def _write(results: Results, folder: Path) -> None:
    from .report import render
    from .results import NAME, replace, save

    folder.mkdir(parents=True, exist_ok=True)
    save(results, folder / NAME)
    replace(folder / REPORT, render(results))


def _show(results: Results, folder: Path) -> None:
    """The report, and where it stands; a run that ended early is an error."""
    from .measure import INTERRUPTED
    from .report import render

    click.echo(render(results))
    where = f"bench.json and {REPORT} in {folder}"
    if results.partial is None:
        click.echo(f"written: {where}")
        return
    count = f"{len(results.pictures) - 1} of {results.settings.images} images"
    if results.partial == INTERRUPTED:
        raise KeyboardInterrupt(f"Interrupted after {count}; what was measured stands in {where}.")
    raise UserError(f"{results.partial} What was measured, {count}, stands in {where}.")
