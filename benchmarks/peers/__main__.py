"""What a user would pick instead of edgepress, on the demo: bits, PSNR, words lost, time and memory.

`make bench-peers`. Every tool runs in an environment of its own under build/peers, where also what was pressed and
scored is kept: a run that was killed goes on where it was.
"""

from __future__ import annotations

from pathlib import Path

import click

from ...common.progress import Progress, progress_bars
from ...recipes import loader
from ...recipes.schema import Recipe
from ..common.report import write_section
from .catalog import EDGEPRESS_METHODS, METHODS, PEERS, EdgepressMethod, Peer
from .failure import PeerError
from .press import PACKAGE_ROOT, quantize_with_edgepress, quantize_with_peer
from .score import score_edgepress, score_peer
from .table import TableEntry, render_peers_table

ROOT = PACKAGE_ROOT / "build" / "peers"
PROMPTS = 128
ABOUT = """\
Every tool quantizes the same linear layers of the transformer and the text encoder. Its dequantized weights are put
back into the demo, and the same code paints with all of them in float32: {prompts} evaluation prompts, one seed.
Kernels are not compared, nor speed of painting. Tools that calibrate, edgepress among them, see the recipe's
calibration prompts. Bits a weight count all that a tool stores for these layers: codes, scales, zero points, tables,
low-rank parts. The time runs from the start of the process until the weights are quantized (for edgepress: written),
start-up and loading included; peak memory is the process's largest resident set. Intervals are bootstrapped over
prompts; differences are paired."""


@click.command(help=__doc__)
@click.option("--limit", default=PROMPTS, show_default=True, help="Evaluation prompts.")
@click.option("--only", multiple=True, help="Peers by NAME, ENVIRONMENT or ENVIRONMENT/NAME, while developing.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the section there, not into docs/benchmarks.md.")
def main(limit: int, only: tuple[str, ...], output: Path | None) -> None:
    recipe = loader.load_recipe("orin")
    peers = [peer for peer in PEERS if not only or {peer.name, peer.environment, format_label(peer)} & set(only)]
    with progress_bars() as progress:
        edgepress = {way: _run_edgepress(way, recipe, limit, progress) for way in EDGEPRESS_METHODS}
        entries = [*edgepress.values(), *(_run_peer(peer, recipe, limit, progress) for peer in peers)]
    about = ABOUT.format(prompts=limit).replace("\n", " ")
    body = "\n\n".join(["## Peers", about, render_peers_table(entries, _select_best(edgepress))])
    if output:
        output.write_text(f"{body}\n", "utf-8")
    elif not only and limit == PROMPTS:  # part of a table is nothing for the docs
        write_section("peers", "make bench-peers", body)
    click.echo(body)


def format_label(peer: Peer) -> str:
    return f"{peer.environment}/{peer.name}"


def _select_best(entries: dict[EdgepressMethod, TableEntry]) -> TableEntry:
    """The best of edgepress's methods that could be measured."""
    candidates = [entries[EdgepressMethod(method)] for method in METHODS]
    measured = [entry for entry in candidates if entry.results]
    if not measured:
        raise click.ClickException(f"edgepress itself failed: {candidates[-1].error}")
    return measured[-1]


def _run_edgepress(method: EdgepressMethod, recipe: Recipe, limit: int, progress: Progress) -> TableEntry:
    title = f"**{method.title}**"
    try:
        run, folder = quantize_with_edgepress(method, recipe, ROOT)
    except PeerError as error:
        return TableEntry(title, error=str(error))
    return TableEntry(title, run, score_edgepress(recipe, folder, limit, _prefix_progress(method.title, progress)))


def _run_peer(peer: Peer, recipe: Recipe, limit: int, progress: Progress) -> TableEntry:
    try:
        run, folder = quantize_with_peer(peer, recipe, ROOT)
    except PeerError as error:
        return TableEntry(peer.title, error=str(error))
    return TableEntry(
        peer.title, run, score_peer(recipe, folder, limit, _prefix_progress(format_label(peer), progress))
    )


def _prefix_progress(name: str, progress: Progress) -> Progress:
    """Bars that say whose they are."""
    return lambda stage, done, total, /: progress(f"{name}: {stage}", done, total)


if __name__ == "__main__":
    main()
