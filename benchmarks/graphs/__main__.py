"""ONNX graphs in every precision, and those of ONNX Runtime's own tools: time, memory, bytes, and what they lose.

`make bench-onnx`. A transformer of medium size with random weights, and the demo. Everything is made under --folder and
kept there: a run that was killed goes on where it was.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ...evaluate.results import ALL, Results
from ...progress import Progress, bars
from ...sources import DEMO
from ..report import shown, table, write_section
from .make import Workshop
from .measure import Ran, disk, idle, in_turns, relative_error, spread
from .pictures import gained, scored
from .variants import BASE, VARIANTS, Variant

GRAPH = "transformer"
SIZE = (512, 512)  # pixels: 1,024 tokens of the image, 64 of the prompt
PARTS = ("medium", "demo")
CALIBRATION = {
    "medium": {"count": 2, "steps": 4, "size": [256, 256]},
    "demo": {"count": 32, "steps": 8, "size": "native"},
}
BLOCKS = (128, 64, 32)


def workshop(part: str, folder: Path) -> Workshop:
    """Where a part's variants are made; the medium pipeline is written if it is not there yet."""
    if part == "demo":
        return Workshop(DEMO, folder / part, {"components": ["transformer", "text_encoder"]}, CALIBRATION[part])
    words = [sys.executable, "-m", "edgepress.demo.full_size", "--medium", "--output", str(folder / part / "pipeline")]
    subprocess.run(words, check=True)
    return Workshop(folder / part / "pipeline", folder / part, {"components": ["transformer"]}, CALIBRATION[part])


def titled(names: Sequence[str]) -> list[Variant]:
    return [variant for variant in VARIANTS if variant.name in names]


# ---------------------------------------------------------------- tables


def cost_row(variant: Variant, artifact: Path, ran: Mapping[str, Sequence[Ran]]) -> list[str]:
    """Time of a step and peak memory, both over those of fp32 in the same round, and bytes of the graph on the disk."""
    own, base = ran[variant.name], ran[BASE]
    pairs = list(zip(own, base, strict=True))
    faster = [float32.seconds / one.seconds for one, float32 in pairs]
    memory = [one.memory / float32.memory for one, float32 in pairs]
    return [
        variant.title,
        spread(faster),
        f"{statistics.median(one.seconds for one in own):.2f}",
        f"{statistics.median(one.memory for one in own) / 1e6:.0f}",
        spread(memory),
        f"{disk(artifact, GRAPH) / 1e6:.0f}",
    ]


COST_HEADER = ["graph", "times as fast as fp32", "s a step", "peak RSS, MB", "of fp32's", "bytes on disk, MB"]


def medium_section(artifacts: Mapping[str, Path], ran: Mapping[str, Sequence[Ran]], how: str) -> str:
    """The body of the medium transformer's section."""
    reference = ran[BASE][0].output
    rows = []
    for variant in titled(list(artifacts)):
        error = relative_error(ran[variant.name][0].output, reference)
        rows.append([*cost_row(variant, artifacts[variant.name], ran), f"{error:.1%}"])
    parts = [
        "## ONNX graphs of a medium transformer",
        "A transformer of 125 million parameters (4 layers, 1536 wide, random weights), one step of a picture of "
        f"{SIZE[0]} x {SIZE[1]} pixels: 1,024 tokens and 64 of the prompt. {how} The last column is the root "
        "mean square of the output's difference to that of fp32, over the output's; random weights say little of "
        "trained ones'.",
        table([*COST_HEADER, "error of the output"], rows),
    ]
    return "\n\n".join(parts)


def demo_section(
    artifacts: Mapping[str, Path], ran: Mapping[str, Sequence[Ran]], how: str, results: Results, prompts: int
) -> str:
    """The body of the demo's section."""
    chosen = titled(list(artifacts))
    parts = [
        "## ONNX graphs of the demo",
        f"The demo's transformer (17 million parameters), one step of a picture of {SIZE[0]} x {SIZE[1]} pixels: 1,024 "
        f"tokens and 64 of the prompt. {how}",
        table(COST_HEADER, [cost_row(variant, artifacts[variant.name], ran) for variant in chosen]),
        f"What they paint, all graphs of each, against what those in fp32 paint: {prompts} held-out prompts in the "
        "demo's own size, one seed; intervals are bootstrapped over prompts. Text accuracy is of words that OCR reads.",
        table(
            ["graphs", "PSNR dB (95 %)", "worst", "text accuracy % (drop, 95 %)", "MB"],
            _picture_rows(chosen, artifacts, results),
        ),
        "What accuracy level 4 and larger groups cost, paired over the same prompts (below 0: the first is worse):",
        table(["int4", "over", "PSNR, dB", "text accuracy, %"], _level_rows(list(artifacts), results)),
    ]
    return "\n\n".join(parts)


def _how(rounds: int, idle_rss: int) -> str:
    return (
        f"Each graph in a process of its own, in turns with the others, {rounds} rounds; a process loads the graph and "
        "takes four steps, of which the median of the last three counts. Median and range over rounds. A process that "
        f"loads no graph peaks at {idle_rss / 1e6:.0f} MB."
    )


def _picture_rows(chosen: Sequence[Variant], artifacts: Mapping[str, Path], results: Results) -> list[list[str]]:
    rows = []
    for variant in chosen:
        if variant.name in results.variants:
            group = next(one for one in results.variants[variant.name].groups if one.name == ALL)
            psnr, text = group.pairs["psnr"], group.scores["text_accuracy"]
            read = f"{text.variant.mean:.1%} ({shown(text.drop, 100, 1)})"
            size = f"{disk(artifacts[variant.name]) / 1e6:.1f}"
            rows.append([variant.title, shown(psnr.mean), f"{psnr.worst:.2f}", read, size])
    return rows


def _level_rows(names: Sequence[str], results: Results) -> list[list[str]]:
    pairs = [(f"int4-{size}-4", f"int4-{size}-0") for size in BLOCKS]
    pairs += [(f"int4-{size}-4", f"int4-{BLOCKS[-1]}-4") for size in BLOCKS[:-1]]
    titles = {variant.name: variant.title.removeprefix("int4, ") for variant in VARIANTS}
    rows = []
    for better, base in pairs:
        if {better, base} <= set(names):
            psnr, text = (gained(results, better, base, score) for score in ("psnr", "text_accuracy"))
            cells = [shown(psnr) if psnr else "equal", shown(text, 100, 1) if text else "not measured"]
            rows.append([titles[better], titles[base], *cells])
    return rows


# ---------------------------------------------------------------- the command


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/graphs"), show_default=True)
@click.option("--part", type=click.Choice([*PARTS, "both"]), default="both", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--prompts", type=click.IntRange(2), default=64, show_default=True, help="That the demo paints.")
@click.option("--only", multiple=True, metavar="NAME", help="Variants, while developing; nothing is reported.")
@click.option("--keep", is_flag=True, help="Keep what was made, 6 GB.")
def main(folder: Path, part: str, rounds: int, prompts: int, only: tuple[str, ...], keep: bool) -> None:
    logging.getLogger().setLevel(logging.ERROR)  # a tool of ONNX Runtime has all libraries log all they do
    chosen = [variant for variant in VARIANTS if not only or variant.name in only]
    with bars() as progress:
        for name in PARTS if part == "both" else (part,):
            body = _measured(name, folder, chosen, rounds, prompts, progress)
            if not only:
                write_section(f"graphs-{name}", "make bench-onnx", body)
            click.echo(body)
            if not keep:
                shutil.rmtree(folder / name)


def _measured(part: str, folder: Path, chosen: Sequence[Variant], rounds: int, prompts: int, progress: Progress) -> str:
    shop = workshop(part, folder)
    artifacts = shop.made(chosen, progress)
    ran = in_turns(artifacts, GRAPH, SIZE, rounds, shop.folder, progress)
    how = _how(rounds, idle(shop.folder))
    if part == "medium":
        return medium_section(artifacts, ran, how)
    return demo_section(artifacts, ran, how, scored(artifacts, prompts, shop.folder, progress), prompts)


if __name__ == "__main__":
    main()
