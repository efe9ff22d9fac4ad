"""What a user would pick instead of edgepress, on the demo: bits, PSNR, words lost, time and memory.

`make bench-peers`. Every tool runs in an environment of its own under build/peers, where also what was pressed and
scored is kept: a run that was killed goes on where it was.
"""

from __future__ import annotations

from pathlib import Path

import click

from ... import recipe as recipes
from ...progress import Progress, bars
from ...recipe import Recipe
from ..report import write_section
from .catalog import METHODS, OWN, PEERS, Own, Peer
from .failure import PeerError
from .press import CODE, press_own, press_peer
from .score import score_own, score_peer
from .table import Entry, peers_table

ROOT = CODE / "build" / "peers"
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
    recipe = recipes.load("orin")
    chosen = [peer for peer in PEERS if not only or {peer.name, peer.environment, label(peer)} & set(only)]
    with bars() as progress:
        own = {way: _own(way, recipe, limit, progress) for way in OWN}
        entries = [*own.values(), *(_peer(peer, recipe, limit, progress) for peer in chosen)]
    about = ABOUT.format(prompts=limit).replace("\n", " ")
    body = "\n\n".join(["## Peers", about, peers_table(entries, _best(own))])
    if output:
        output.write_text(f"{body}\n", "utf-8")
    elif not only and limit == PROMPTS:  # part of a table is nothing for the docs
        write_section("peers", "make bench-peers", body)
    click.echo(body)


def label(peer: Peer) -> str:
    return f"{peer.environment}/{peer.name}"


def _best(own: dict[Own, Entry]) -> Entry:
    """The best of edgepress's methods that could be measured."""
    plain = [own[Own(method)] for method in METHODS]
    measured = [entry for entry in plain if entry.results]
    if not measured:
        raise click.ClickException(f"edgepress itself failed: {plain[-1].error}")
    return measured[-1]


def _own(own: Own, recipe: Recipe, limit: int, progress: Progress) -> Entry:
    title = f"**{own.title}**"
    try:
        made, folder = press_own(own, recipe, ROOT)
    except PeerError as error:
        return Entry(title, error=str(error))
    return Entry(title, made, score_own(recipe, folder, limit, _named(own.title, progress)))


def _peer(peer: Peer, recipe: Recipe, limit: int, progress: Progress) -> Entry:
    try:
        made, folder = press_peer(peer, recipe, ROOT)
    except PeerError as error:
        return Entry(peer.title, error=str(error))
    return Entry(peer.title, made, score_peer(recipe, folder, limit, _named(label(peer), progress)))


def _named(name: str, progress: Progress) -> Progress:
    """Bars that say whose they are."""
    return lambda stage, done, total, /: progress(f"{name}: {stage}", done, total)


if __name__ == "__main__":
    main()
