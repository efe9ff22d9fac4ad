"""Compares edgepress with other quantization tools on the demo: bits, PSNR, text accuracy, time and memory.

Run by `make bench-peers`. Every tool runs in its own environment under build/peers. Quantized layers and scores are
cached there as well, so that an interrupted run can resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from ...common.progress import Progress, progress_bars
from ...recipes.loader import load_recipe
from ...recipes.schema import Recipe
from ..common.report import write_section
from .catalog import EDGEPRESS_METHODS, METHODS, PEERS, EdgepressMethod, Peer
from .errors import PeerError
from .quantization import PACKAGE_ROOT, quantize_with_edgepress, quantize_with_peer
from .scoring import score_edgepress, score_peer
from .table import TableEntry, render_peers_table

ROOT = PACKAGE_ROOT / "build" / "peers"
NUM_PROMPTS = 128
INTRODUCTION = """\
Every tool quantizes the same linear layers of the transformer and the text encoder. Its dequantized weights are put
back into the demo, and the same code generates images with all of them in float32: {prompts} evaluation prompts, one
seed. Neither kernels nor the speed of generation are compared. Tools that calibrate, edgepress among them, use the
recipe's calibration prompts. Bits per weight count everything that a tool stores for these layers: codes, scales,
zero points, tables, low-rank factors. The time runs from the start of the process until the weights are quantized
(for edgepress: written), including start-up and loading. Peak memory is the largest resident set of the process.
Intervals are bootstrapped over prompts; differences are paired."""


@click.command(help=__doc__)
@click.option("--limit", default=NUM_PROMPTS, show_default=True, help="Number of evaluation prompts.")
@click.option(
    "--only", multiple=True, help="Run only these peers: NAME, ENVIRONMENT or ENVIRONMENT/NAME. Not reported."
)
@click.option("--output", type=click.Path(path_type=Path), help="File to write the section to, not docs/benchmarks.")
def main(limit: int, only: tuple[str, ...], output: Path | None) -> None:
    recipe = load_recipe("orin")
    peers = [peer for peer in PEERS if not only or {peer.name, peer.environment, format_label(peer)} & set(only)]
    with progress_bars() as progress:
        edgepress = {method: _run_edgepress(method, recipe, limit, progress) for method in EDGEPRESS_METHODS}
        entries = [*edgepress.values(), *(_run_peer(peer, recipe, limit, progress) for peer in peers)]
    introduction = INTRODUCTION.format(prompts=limit).replace("\n", " ")
    table = render_peers_table(entries, _select_best(edgepress))
    body = "\n\n".join(["## Other tools at the same bits", introduction, table])
    if output:
        output.write_text(f"{body}\n", "utf-8")
    elif not only and limit == NUM_PROMPTS:  # an incomplete table is not documentation
        write_section("peers", "make bench-peers", body)
    click.echo(body)


def format_label(peer: Peer) -> str:
    """Returns ENVIRONMENT/NAME of a peer."""
    return f"{peer.environment}/{peer.name}"


def _select_best(entries: Mapping[EdgepressMethod, TableEntry]) -> TableEntry:
    """Returns the best method of edgepress that was measured."""
    candidates = [entries[EdgepressMethod(method)] for method in METHODS]
    measured = [entry for entry in candidates if entry.results]
    if not measured:
        raise click.ClickException(f"edgepress itself could not be measured: {candidates[-1].error}")
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
    """Returns a callback that puts a name before every stage."""
    return lambda stage, done, total, /: progress(f"{name}: {stage}", done, total)


if __name__ == "__main__":
    main()
