"""What 4 bits cost the demo pipeline: rounding alone, AWQ and the best, in PSNR and in words that can be read.

`make bench-quality`: held-out evaluation prompts are painted by the reference and by every variant.
`make bench-ladder`: what each step of the ladder gains.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .. import recipe as recipes
from ..evaluate.plan import Options, plan_for
from ..evaluate.results import ALL, Group, Results
from ..evaluate.run import evaluate
from ..progress import Progress, bars
from ..quantize.press import press
from ..recipe import Step
from ..sources import DEMO
from .report import VARIANT, paired, scores_of, shown, table, write_section

METHODS = ("rtn", "awq", "best")
PROMPTS = 128  # held-out ones, of 305: the first
# Ways up the ladder, for the table of rungs.
LADDER: tuple[tuple[Step, ...], ...] = (
    ("range",),
    ("scale", "clip"),
    ("gptq",),
    ("gptq", "refit"),
    ("range", "gptq"),
    ("scale", "gptq"),
)


def measure(quantization: dict[str, Any], folder: Path, progress: Progress) -> Results:
    """The evaluation of one way of quantizing on the first evaluation prompts of the demo."""
    recipe = recipes.load("orin")
    recipe = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update=quantization)})
    pressed = press(recipe, DEMO, folder, progress)
    options = Options(candidates=(f"{VARIANT}={pressed.output / 'model'}",), limit=PROMPTS, gates=False)
    return evaluate(plan_for(recipe, options), progress)


def psnr_table(results: dict[str, Results]) -> str:
    rows = []
    for method, found in results.items():
        summary = scores_of(found).pairs
        psnr, ssim = summary["psnr"], summary["ssim"]
        rows.append([method, shown(psnr.mean, 1, 2), f"{psnr.worst:.2f}", shown(ssim.mean, 1, 4)])
    return table(["method", "PSNR dB (95 %)", "worst", "SSIM (95 %)"], rows)


def text_table(results: dict[str, Results]) -> str:
    """Reference, variants and drops, for each group that the prompts make."""
    first = next(iter(results.values()))
    names = [group.name for group in first.variants[VARIANT].groups if _shown(group)]
    rows = [_text_row(name, results, score) for score in ("exact", "text_accuracy", "ned") for name in names]
    columns = [f"{method} (drop, 95 %)" for method in results]
    return table(["score %", "prompts", "pictures", "reference", *columns], rows)


def _shown(group: Group) -> bool:
    return group.name == ALL or group.name.split(":")[0] in ("language", "size", "lines", "pattern")


def _text_row(name: str, results: dict[str, Results], score: str) -> list[str]:
    groups = [next(g for g in found.variants[VARIANT].groups if g.name == name) for found in results.values()]
    reference = groups[0].scores[score].reference
    drops = [f"{g.scores[score].variant.mean:.1%} ({shown(g.scores[score].drop, 100, 1)})" for g in groups]
    return [score, name, str(groups[0].pictures), f"{reference.mean:.1%}", *drops]


def gain_table(results: dict[str, Results], pairs: Sequence[tuple[str, str]]) -> str:
    """Paired differences in PSNR of the first of each two over the second."""
    rows = [[better, base, shown(paired(results[better], results[base]), 1, 2)] for better, base in pairs]
    return table(["steps", "over", "gain, dB (95 %)"], rows)


@click.command(help=__doc__)
@click.option("--ladder", is_flag=True, help="The table of rungs instead.")
def main(ladder: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, bars() as progress:
        if ladder:
            write_ladder(Path(folder), progress)
        else:
            write_methods(Path(folder), progress)


def write_ladder(folder: Path, progress: Progress) -> None:
    """What each way up the ladder gains over rounding alone."""
    rounded = measure({"method": "rtn"}, folder / "rtn", progress)
    found = {", ".join(steps): measure({"steps": steps}, folder / "-".join(steps), progress) for steps in LADDER}
    body = "\n\n".join(
        [
            "## What each step of the ladder gains on the demo",
            f"Steps as in `quantize.steps`, all at 4.156 bits a weight; PSNR paired over {PROMPTS} prompts.",
            gain_table({"rtn": rounded} | found, [(name, "rtn") for name in found]),
            "What `gptq` gains or loses by a further step:",
            gain_table(found, [(name, "gptq") for name in found if "gptq" in name and name != "gptq"]),
        ]
    )
    write_section("ladder", "make bench-ladder", body)
    click.echo(body)


def write_methods(folder: Path, progress: Progress) -> None:
    """Pictures and words by the three methods."""
    results = {method: measure({"method": method}, folder / method, progress) for method in METHODS}
    body = "\n\n".join(
        [
            "## What 4 bits cost the demo",
            f"Transformer and text encoder at 4.156 bits a weight, {PROMPTS} held-out evaluation prompts, one seed, "
            "computed in float32; intervals are bootstrapped over prompts.",
            psnr_table(results),
            "Paired differences in PSNR:",
            gain_table(results, [("best", "rtn"), ("best", "awq"), ("awq", "rtn")]),
            "`exact` is the share of pictures whose whole text OCR reads exactly.",
            text_table(results),
        ]
    )
    write_section("quality", "make bench-quality", body)
    click.echo(body)


if __name__ == "__main__":
    main()
